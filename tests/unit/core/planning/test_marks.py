"""Which builders are marked as busy and as retired, and what follows from these marks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool, RetireReason, SizeReason
from buildpool.core.objects.refs import Object
from buildpool.core.planning.marks import LEAVE_ALONE, Mark, marks
from buildpool.core.resources import disruption_budget, pool_service
from buildpool.core.scaling import Decision, Retirement
from buildpool.core.words import Finding
from memory_cluster import MemoryCluster, settled
from samples import NOW, a_pod, a_pool, a_situation

QUIET = dict.fromkeys(LEAVE_ALONE)
RETIRED = naming.ANNOTATION_RETIRED
LATER = NOW + timedelta(minutes=1, microseconds=123_456)


def a_decision(**overrides: Any) -> Decision:
    """One that changes nothing."""
    return Decision(1, SizeReason.AT_MINIMUM, "", **overrides)


def retiring(*indexes: int) -> Decision:
    retire = (
        Retirement(index, Finding(RetireReason.SURPLUS, "It is too many.")) for index in indexes
    )
    return a_decision(retire=tuple(retire))


def marked(
    cluster: MemoryCluster, decision: Decision | None = None, pool: Pool | None = None
) -> list[Mark]:
    pool = pool or a_pool()
    s = a_situation(pool, cluster.observe(pool), now=LATER)
    return list(marks(s, decision or a_decision()))


def carry_out(cluster: MemoryCluster, todo: list[Mark]) -> None:
    cluster.act(replace(cluster.plan(a_pool()), mark=tuple(todo), apply=(), delete=()))


def pod_of(cluster: MemoryCluster, index: int = 0) -> Object:
    (pod,) = (
        pod
        for pod in cluster.pods.values()
        if pod["metadata"]["labels"].get(naming.LABEL_BUILDER) == f"ci-builder-{index}"
    )
    return pod


def selects(selector: dict[str, str], pod: Object) -> bool:
    return bool(selector.items() <= pod["metadata"]["labels"].items())


def is_reached(cluster: MemoryCluster, index: int = 0) -> bool:
    """Whether the pool's Service leads to a builder."""
    return selects(pool_service(a_pool(), gateway="")["spec"]["selector"], pod_of(cluster, index))


def is_spared(cluster: MemoryCluster, index: int = 0) -> bool:
    """Whether evictions of a builder are refused."""
    spec = disruption_budget(a_pool())["spec"]
    return spec["maxUnavailable"] == 0 and selects(
        spec["selector"]["matchLabels"], pod_of(cluster, index)
    )


def test_an_idle_builder_that_serves_needs_no_mark() -> None:
    cluster = settled(a_pool())
    assert marked(cluster) == []
    assert is_reached(cluster)
    assert not is_spared(cluster)


# --- busy ----------------------------------------------------------------------------------------


def test_a_busy_builder_is_left_alone_until_it_is_idle() -> None:
    cluster = settled(a_pool())
    cluster.builds = {"ci-builder-0": 1}
    (mark,) = marked(cluster)
    assert (mark.ref.kind, mark.uid) == ("Pod", pod_of(cluster)["metadata"]["uid"])
    assert mark.metadata == {
        "labels": {naming.LABEL_BUSY: "true"},
        "annotations": LEAVE_ALONE,
    }
    assert mark.reason is None, "it would be told with each build"
    carry_out(cluster, [mark])
    assert is_spared(cluster)
    assert marked(cluster) == []

    cluster.builds = {}
    (mark,) = marked(cluster)
    assert mark.metadata == {"labels": {naming.LABEL_BUSY: None}, "annotations": QUIET}
    carry_out(cluster, [mark])
    assert not is_spared(cluster)
    assert marked(cluster) == []


def test_what_the_user_says_to_autoscalers_holds_again_when_a_builder_is_idle() -> None:
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    pool = a_pool(builders={"podAnnotations": {key: "true", "note": ""}})
    cluster = settled(pool)
    assert marked(cluster, pool=pool) == []
    cluster.builds = {"ci-builder-0": 1}
    carry_out(cluster, marked(cluster, pool=pool))
    assert pod_of(cluster)["metadata"]["annotations"].items() >= LEAVE_ALONE.items()
    cluster.builds = {}
    carry_out(cluster, marked(cluster, pool=pool))
    annotations = pod_of(cluster)["metadata"]["annotations"]
    assert annotations[key] == "true"
    assert not annotations.keys() & (LEAVE_ALONE.keys() - {key})
    assert annotations["note"] == ""


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_daemon_that_does_not_answer_keeps_the_mark_it_has(is_busy: bool) -> None:
    cluster = settled(a_pool())
    cluster.builds = {"ci-builder-0": int(is_busy)}
    carry_out(cluster, marked(cluster))
    cluster.builds, cluster.silent = {}, {"ci-builder-0"}
    assert marked(cluster) == []
    assert is_spared(cluster) is is_busy


def test_a_builder_whose_daemon_has_ended_is_not_busy_any_more() -> None:
    cluster = settled(a_pool())
    cluster.builds = {"ci-builder-0": 1}
    carry_out(cluster, marked(cluster))
    pod_of(cluster)["status"] = a_pod(waiting=("CrashLoopBackOff", "back-off"))["status"]
    carry_out(cluster, marked(cluster))
    assert not is_spared(cluster)


# --- retired -------------------------------------------------------------------------------------


def test_a_builder_that_retires_is_marked_before_its_pod() -> None:
    cluster = settled(a_pool())
    deployment, pod = marked(cluster, retiring(0))
    assert str(deployment.ref) == "Deployment builds/ci-builder-0"
    assert deployment.metadata == {"annotations": {RETIRED: "2026-01-01T12:01:00.123+00:00"}}
    assert deployment.reason is EventReason.RETIRED_BUILDER
    assert deployment.message.startswith("retired Deployment builds/ci-builder-0 (Surplus): ")
    assert pod.metadata == {"labels": {naming.LABEL_SERVING: "false"}}
    assert pod.reason is None
    carry_out(cluster, [deployment, pod])
    assert not is_reached(cluster)
    assert marked(cluster) == []


def test_when_it_retired_is_never_read_back_as_later_than_it_was() -> None:
    cluster = settled(a_pool())
    carry_out(cluster, marked(cluster, retiring(0)))
    (member,) = a_situation(a_pool(), cluster.observe(a_pool()), now=LATER).members
    assert member.builder.retired is not None
    assert timedelta(0) <= LATER - member.builder.retired < timedelta(milliseconds=1)


def test_a_builder_that_is_restored_serves_again() -> None:
    cluster = settled(a_pool())
    carry_out(cluster, marked(cluster, retiring(0)))
    deployment, pod = marked(cluster, a_decision(restore=(0,)))
    assert deployment.metadata == {"annotations": {RETIRED: None}}
    assert deployment.reason is EventReason.RESTORED_BUILDER
    assert pod.metadata == {"labels": {naming.LABEL_SERVING: "true"}}
    carry_out(cluster, [deployment, pod])
    assert is_reached(cluster)
    assert marked(cluster) == []


@pytest.mark.parametrize("done", [0, 1, 2])
def test_wherever_the_marks_of_a_retired_builder_break_off_the_next_pass_mends_it(
    done: int,
) -> None:
    cluster = settled(a_pool())
    carry_out(cluster, marked(cluster, retiring(0))[:done])
    carry_out(cluster, marked(cluster, a_decision() if done else retiring(0)))
    assert not is_reached(cluster)
    assert RETIRED in cluster["Deployment/ci-builder-0"]["metadata"]["annotations"]


def test_a_pod_that_somebody_took_out_of_the_service_is_put_back() -> None:
    cluster = settled(a_pool())
    del pod_of(cluster)["metadata"]["labels"][naming.LABEL_SERVING]
    (mark,) = marked(cluster)
    assert mark.metadata == {"labels": {naming.LABEL_SERVING: "true"}}


def test_what_goes_is_not_marked() -> None:
    cluster = settled(a_pool(replicas=2))
    cluster.builds = {"ci-builder-0": 1, "ci-builder-1": 1}
    pool = a_pool(replicas=2)
    (only,) = marked(cluster, a_decision(remove=(0,)), pool)
    assert only.ref.name == pod_of(cluster, 1)["metadata"]["name"]


def test_a_pod_that_ends_is_not_marked() -> None:
    cluster = settled(a_pool())
    cluster.builds = {"ci-builder-0": 1}
    pod_of(cluster)["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert marked(cluster) == []


# --- any state there may be ----------------------------------------------------------------------

_labels = st.fixed_dictionaries(
    {},
    optional={
        naming.LABEL_SERVING: st.sampled_from(["true", "false", "maybe"]),
        naming.LABEL_BUSY: st.sampled_from(["true", "false"]),
        **{key: st.sampled_from(["true", "false"]) for key in LEAVE_ALONE},
    },
)


@given(
    st.tuples(_labels, _labels),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sets(st.sampled_from([0, 1])),
    st.sets(st.sampled_from([0, 1])),
)
def test_whatever_stands_on_pods_one_pass_puts_it_right(
    labels: tuple[dict[str, str], ...],
    builds: tuple[int, ...],
    silent: set[int],
    retired: set[int],
) -> None:
    pool = a_pool(replicas=2)
    cluster = settled(pool)
    for index, found in enumerate(labels):
        metadata = pod_of(cluster, index)["metadata"]
        annotations = {key: value for key, value in found.items() if key in LEAVE_ALONE}
        metadata["labels"] |= {key: value for key, value in found.items() if key not in annotations}
        metadata["annotations"] |= annotations
    cluster.builds = {f"ci-builder-{index}": count for index, count in enumerate(builds)}
    cluster.silent = {f"ci-builder-{index}" for index in silent}
    carry_out(cluster, marked(cluster, retiring(*retired), pool))
    assert marked(cluster, pool=pool) == []
    for index in (0, 1):
        assert is_reached(cluster, index) is (index not in retired)
        if index not in silent:
            assert is_spared(cluster, index) is bool(builds[index])
