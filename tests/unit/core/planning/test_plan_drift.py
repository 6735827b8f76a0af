"""What somebody else has changed of a pool's objects is put right, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from buildpool.core import naming
from buildpool.core.api import EventReason
from buildpool.core.objects.drift import Difference, differences
from memory_cluster import MemoryCluster, settled
from plans import applied, asked, container, retired, turnover
from samples import a_pool


def other_image(cluster: MemoryCluster) -> None:
    container(cluster["Deployment/ci-builder-0"])["image"] = "evil/image:v1"


def scaled_to_zero(cluster: MemoryCluster) -> None:
    cluster["Deployment/ci-builder-0"]["spec"]["replicas"] = 0


def emptied_config(cluster: MemoryCluster) -> None:
    cluster["ConfigMap/ci-builder"]["data"]["buildkitd.toml"] = ""


def a_selector_that_selects_nothing(cluster: MemoryCluster) -> None:
    cluster["Service/ci"]["spec"]["selector"]["app"] = "mine"


def lost_label(cluster: MemoryCluster) -> None:
    del cluster["Service/ci"]["metadata"]["labels"][naming.LABEL_POOL]


def no_more_user_namespace(cluster: MemoryCluster) -> None:
    del cluster["Deployment/ci-builder-0"]["spec"]["template"]["spec"]["hostUsers"]


DRIFT = {
    "another image": (
        other_image,
        "Deployment builds/ci-builder-0",
        "spec.template.spec.containers[buildkitd].image",
    ),
    "scaled by hand": (scaled_to_zero, "Deployment builds/ci-builder-0", "spec.replicas"),
    "an emptied file": (emptied_config, "ConfigMap builds/ci-builder", "data.buildkitd.toml"),
    "one more label to select by": (
        a_selector_that_selects_nothing,
        "Service builds/ci",
        "spec.selector.app",
    ),
    "a label taken off": (
        lost_label,
        "Service builds/ci",
        f"metadata.labels.{naming.LABEL_POOL}",
    ),
    "the user namespace turned off": (
        no_more_user_namespace,
        "Deployment builds/ci-builder-0",
        "spec.template.spec.hostUsers",
    ),
}


@pytest.mark.parametrize(("edit", "ref", "path"), DRIFT.values(), ids=DRIFT)
def test_what_somebody_changed_is_put_right(
    edit: Callable[[MemoryCluster], None], ref: str, path: str
) -> None:
    pool = a_pool(builders={"security": "UserNamespace"})
    cluster = settled(pool)
    edit(cluster)
    todo = cluster.step(pool)
    assert [(c.reason, c.message) for c in todo.apply] == [
        (
            EventReason.REPAIRED_DRIFT,
            f"{ref} had been changed at {path} by somebody else and was put right",
        )
    ]
    assert cluster.settle(pool) == []


@pytest.mark.parametrize(("edit", "ref", "path"), DRIFT.values(), ids=DRIFT)
def test_what_the_cluster_itself_changes_is_not_written_over(
    edit: Callable[[MemoryCluster], None], ref: str, path: str
) -> None:
    pool = a_pool(builders={"security": "UserNamespace"})
    cluster = settled(pool)
    edit(cluster)
    observation = cluster.observe(pool)
    (changed,) = (found for found in observation.live if str(found) == ref)
    (repair,) = asked(pool, observation).apply
    overruled = tuple(differences(observation.live[changed], repair.object))
    assert [difference.path for difference in overruled] == [path]
    assert asked(pool, replace(observation, overruled={changed: overruled})).apply == ()
    for other in (Difference("spec.somewhere.else", 1), Difference(path, "something else")):
        elsewhere = replace(observation, overruled={changed: (other,)})
        assert [c.ref for c in asked(pool, elsewhere).apply] == [changed]


def test_what_the_cluster_itself_changes_hides_no_other_change() -> None:
    pool = a_pool()
    cluster = settled(pool)
    pod = cluster["Deployment/ci-builder-0"]["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = "mirror.example/buildkit"
    observation = cluster.observe(pool)
    (repair,) = asked(pool, observation).apply
    overruled = {repair.ref: tuple(differences(observation.live[repair.ref], repair.object))}
    pod["terminationGracePeriodSeconds"] = 30
    (change,) = asked(pool, replace(cluster.observe(pool), overruled=overruled)).apply
    assert "terminationGracePeriodSeconds" in change.message


def test_who_may_reach_builders_is_put_right() -> None:
    pool = a_pool(routing="Gateway")
    cluster = settled(pool)
    cluster["NetworkPolicy/ci-builder"]["spec"]["ingress"].append({})
    (change,) = cluster.step(pool).apply
    assert change.message == (
        "NetworkPolicy builds/ci-builder had been changed at spec.ingress by somebody else "
        "and was put right"
    )
    assert cluster.settle(pool) == []


def extra_variable(cluster: MemoryCluster) -> None:
    container(cluster["Deployment/ci-builder-0"])["env"] = [{"name": "THEIRS", "value": "1"}]


def restarted(cluster: MemoryCluster) -> None:
    template = cluster["Deployment/ci-builder-0"]["spec"]["template"]["metadata"]
    template["annotations"]["kubectl.kubernetes.io/restartedAt"] = "2026-01-01T12:00:00Z"


def labelled(cluster: MemoryCluster) -> None:
    cluster["Service/ci"]["metadata"]["labels"]["team"] = "theirs"


def sidecar(cluster: MemoryCluster) -> None:
    pod = cluster["Deployment/ci-builder-0"]["spec"]["template"]["spec"]
    pod["containers"].insert(0, {"name": "proxy", "image": "proxy:v1"})


def another_port(cluster: MemoryCluster) -> None:
    cluster["Service/ci"]["spec"]["ports"].append({"name": "theirs", "port": 80})


@pytest.mark.parametrize("edit", [extra_variable, restarted, labelled, sidecar, another_port])
def test_what_others_add_is_none_of_our_business(edit: Callable[[MemoryCluster], None]) -> None:
    pool = a_pool()
    cluster = settled(pool)
    edit(cluster)
    assert cluster.settle(pool) == []


def test_a_change_that_makes_no_new_pod_waits_for_nobody() -> None:
    pool = a_pool(replicas=3)
    cluster = settled(pool)
    for index in range(3):
        cluster[f"Deployment/ci-builder-{index}"]["spec"]["revisionHistoryLimit"] = 10
    assert len(cluster.step(pool).apply) == 3


def test_what_somebody_changed_of_a_builder_that_is_to_go_stays_so() -> None:
    cluster = settled(a_pool(builders={"image": "r.example/buildkit:v1"}))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool(builders={"image": "r.example/buildkit:v2"})
    cluster.settle(pool)
    other_image(cluster)
    assert cluster.settle(pool) == [], "to put it right would cost a build its pod"


def test_a_builder_whose_revision_somebody_changed_is_replaced() -> None:
    pool = a_pool()
    cluster = settled(pool)
    template = cluster["Deployment/ci-builder-0"]["spec"]["template"]["metadata"]
    template["annotations"][naming.ANNOTATION_REVISION] = "another"
    assert applied(cluster.step(pool)) == ["Deployment/ci-builder-1"]
    assert retired(cluster.step(pool)) == ["ci-builder-0"]


def test_a_builder_that_somebody_deleted_is_replaced_by_one_with_another_name() -> None:
    pool = a_pool()
    cluster = settled(pool)
    (ref,) = (ref for ref in cluster.objects if ref.name == "ci-builder-0")
    del cluster.objects[ref]
    for pod in cluster.pods.values():
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert turnover(cluster.step(pool)) == (["ci-builder-1"], [], [])
    assert cluster.settle(pool) == []


def test_a_builder_that_somebody_deleted_without_its_pod_gets_the_pod_back() -> None:
    pool = a_pool()
    cluster = settled(pool)
    before = set(cluster.pods)
    (ref,) = (ref for ref in cluster.objects if ref.name == "ci-builder-0")
    del cluster.objects[ref]
    assert turnover(cluster.step(pool)) == (["ci-builder-0"], [], [])
    assert set(cluster.pods) == before
    assert cluster.settle(pool) == []
