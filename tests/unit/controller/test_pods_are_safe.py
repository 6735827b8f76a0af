"""No pod runs with other rights on its node than it shall have, whatever the cluster stores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from buildpool.controller.act import act
from buildpool.core.api import EventReason, Pool, Reason
from buildpool.core.objects.refs import Object
from buildpool.core.planning.plan import Plan
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.reporting.report import report_pass
from memory_api import run
from memory_cluster import PASS, MemoryCluster, settled
from samples import a_pool, planned

OWN_USERS = {"security": "UserNamespace"}


def without_own_users(obj: Object) -> None:
    """As Kubernetes stores a Deployment while user namespaces are off."""
    if obj["kind"] == "Deployment":
        obj["spec"]["template"]["spec"].pop("hostUsers", None)


def confined(obj: Object) -> None:
    """As an admission policy changes it that knows better."""
    if obj["kind"] == "Deployment":
        for container in obj["spec"]["template"]["spec"]["containers"]:
            container["securityContext"]["runAsNonRoot"] = False


class Watched(MemoryCluster):
    """Remembers how many pods each Deployment wanted, in this order."""

    def __init__(self, admit: Callable[[Object], None]) -> None:
        super().__init__(admit=admit)
        self.wanted: list[int] = []
        self.changes = 0
        """Writes that changed what is stored."""

    def store(self, desired: Object) -> Object:
        if desired["kind"] == "Deployment":
            self.wanted.append(desired["spec"]["replicas"])
        before = {ref: _content(obj) for ref, obj in self.objects.items()}
        found = super().store(desired)
        self.changes += before != {ref: _content(obj) for ref, obj in self.objects.items()}
        return found


def _content(obj: Object) -> str:
    metadata = {k: v for k, v in obj["metadata"].items() if k in ("labels", "annotations")}
    return str((metadata, obj.get("spec")))


def a_pass(cluster: MemoryCluster, pool: Pool) -> tuple[Plan, Outcome, Any]:
    """One pass, with what became of it and what is told."""
    pool = cluster.known(pool)
    s, plan = planned(pool, cluster.observe(pool), now=cluster.now)
    outcome = run(act(cluster.api, plan))
    report = report_pass(s, plan, outcome)
    cluster.status = report.status
    cluster.roll()
    cluster.now += PASS
    return plan, outcome, report


def test_a_builder_without_its_user_namespace_never_has_a_pod() -> None:
    pool, cluster = a_pool(builders=OWN_USERS), Watched(without_own_users)
    for _ in range(3):
        _, outcome, report = a_pass(cluster, pool)
        assert not cluster.pods
        assert not outcome.overruled
    assert set(cluster.wanted) == {0}, "not even for a moment"
    ready = report.status.condition("Ready")
    assert (ready.status.value, ready.reason) == ("False", Reason.POD_REFUSED.value)
    for words in ("spec.template.spec.hostUsers is left out", "UserNamespacesSupport", "Rootless"):
        assert words in ready.message
    (builder,) = report.status.builders
    assert (builder.reason, builder.ready) == (Reason.POD_REFUSED.value, False)


def test_a_refusal_that_lasts_changes_nothing_in_the_cluster() -> None:
    pool = a_pool(builders=OWN_USERS)
    cluster = Watched(without_own_users)
    a_pass(cluster, pool)
    changes = cluster.changes
    reports = [a_pass(cluster, pool)[2] for _ in range(3)]
    assert cluster.changes == changes
    assert [each.events for each in reports[1:]] == [(), ()]
    assert all(each.status == reports[-1].status for each in reports[1:])


def test_a_builder_starts_once_the_cluster_knows_user_namespaces() -> None:
    pool, cluster = a_pool(builders=OWN_USERS), Watched(without_own_users)
    a_pass(cluster, pool)
    cluster.admit = lambda _: None
    _, outcome, _ = a_pass(cluster, pool)
    assert not outcome.failures
    assert len(cluster.pods) == 1
    assert EventReason.REPAIRED_DRIFT not in [event.reason for event in outcome.done]
    assert cluster.settle(pool) == []


def test_a_builder_with_other_rights_never_has_a_pod() -> None:
    pool, cluster = a_pool(), Watched(confined)
    for _ in range(3):
        _, outcome, _ = a_pass(cluster, pool)
        assert not cluster.pods
        (failure,) = outcome.failures
        assert failure.reason is Reason.POD_REFUSED
        assert "runAsNonRoot as false" in failure.message
    assert set(cluster.wanted) == {0}


@pytest.mark.parametrize("name", ["ci-builder-0", "ci-cache"])
def test_what_runs_is_never_stopped_by_a_policy_that_comes_later(name: str) -> None:
    pool = a_pool(cache={"registry": {"managed": {}}})
    cluster = settled(pool)
    cluster.admit = confined
    deployment = cluster[f"Deployment/{name}"]
    deployment["spec"]["revisionHistoryLimit"] = 7  # by somebody
    template, pods = copy.deepcopy(deployment["spec"]), set(cluster.pods)
    for _ in range(3):
        _, outcome, _ = a_pass(cluster, pool)
        (failure,) = outcome.failures
        assert "left alone" in failure.message
    assert cluster[f"Deployment/{name}"]["spec"] == template
    assert set(cluster.pods) == pods


def test_a_policy_that_does_not_look_at_what_is_only_tried_lets_no_pod_stay() -> None:
    class Late(Watched):
        def store(self, desired: Object) -> Object:
            found = super().store(desired)
            confined(found)
            return found

    pool, cluster = a_pool(), Late(lambda _: None)
    for _ in range(3):
        _, outcome, _ = a_pass(cluster, pool)
        assert [failure.reason for failure in outcome.failures] == [Reason.POD_REFUSED]
        assert not cluster.pods
    assert cluster.wanted[0] == 1, "for a moment"
    assert set(cluster.wanted[1:]) == {0}, "and never again"


def test_a_policy_may_be_stricter_than_we_are() -> None:
    def stricter(obj: Object) -> None:
        if obj["kind"] == "Deployment":
            pod = obj["spec"]["template"]["spec"]
            pod.setdefault("securityContext", {})["fsGroup"] = 70000
            for container in (*pod["containers"], *pod.get("initContainers", ())):
                context = container.setdefault("securityContext", {})
                drop = context.setdefault("capabilities", {}).setdefault("drop", [])
                context["capabilities"]["drop"] = [*drop, "NET_RAW"]

    pool, cluster = a_pool(), Watched(stricter)
    _, outcome, _ = a_pass(cluster, pool)
    assert not outcome.failures
    assert len(cluster.pods) == 1


@pytest.mark.parametrize(
    ("builders", "edit"), [(OWN_USERS, without_own_users), ({}, confined)], ids=["own", "rootless"]
)
def test_a_builder_that_serves_so_already_is_told_of_and_left_alone(
    builders: dict[str, Any], edit: Callable[[Object], None]
) -> None:
    pool = a_pool(builders=builders)
    cluster = settled(pool)
    edit(cluster["Deployment/ci-builder-0"])
    cluster.admit = edit
    cluster.roll()
    before = dict(cluster.pods)
    for _ in range(3):
        _, outcome, report = a_pass(cluster, pool)
        (failure,) = outcome.failures
        assert failure.reason is Reason.POD_REFUSED
        assert "left alone" in failure.message
    assert cluster.pods == before
    (builder,) = report.status.builders
    assert (builder.ready, builder.reason) == (True, Reason.POD_REFUSED.value)


def test_what_somebody_took_off_by_hand_is_put_right() -> None:
    pool = a_pool(builders=OWN_USERS)
    cluster = settled(pool)
    without_own_users(cluster["Deployment/ci-builder-0"])
    _, outcome, _ = a_pass(cluster, pool)
    assert not outcome.failures
    assert cluster.settle(pool) == []


def test_a_new_builder_is_written_once() -> None:
    for builders in (OWN_USERS, {}):
        cluster = Watched(lambda _: None)
        a_pass(cluster, a_pool(builders=builders))
        assert cluster.wanted == [1]


def test_a_cache_with_other_rights_is_stopped_and_builders_are_not() -> None:
    def cache_only(obj: Object) -> None:
        if obj["metadata"]["name"] == "ci-cache":
            confined(obj)

    pool = a_pool(cache={"registry": {"managed": {}}})
    cluster = Watched(cache_only)
    _, outcome, _ = a_pass(cluster, pool)
    assert [failure.reason for failure in outcome.failures] == [Reason.POD_REFUSED]
    assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 0
    assert cluster["Deployment/ci-builder-0"]["spec"]["replicas"] == 1
