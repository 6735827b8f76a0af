"""What has a builder's name: the volume that outlives it, and what belongs to somebody else."""

from __future__ import annotations

from typing import Any

from cluster import Api, OperatorProcess, a_pool, at_most, eventually
from integration.test_a_pool_converges import created
from integration.test_builders_come_and_go import (
    OTHER_IMAGE,
    builders,
    change,
    come_to_be,
    names,
    uids,
)

CLAIMS = "persistentvolumeclaims"
VOLUME = {"storage": {"volumeClaim": {"size": "1Gi"}}}


def claims_come_to_be(api: Api, namespace: str, *numbers: int) -> dict[str, str]:
    """Waits until exactly these builders have a volume, or had one; their uids."""
    wanted = builders(*numbers)
    eventually(lambda: names(api, namespace, CLAIMS) == wanted, within=10, what=f"volumes {wanted}")
    return uids(api, namespace, CLAIMS)


def test_volumes_wait_for_builders_to_come_up_to_the_largest_size(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    scaling = {"min": 1, "max": 3, "idleAfter": "1s"}
    created(installed, namespace, builders=VOLUME, scaling=scaling)
    come_to_be(installed, namespace, 0)
    # The newest go first. Of those that come together, any may be the oldest: to the second.
    change(installed, namespace, scaling={"min": 3})
    come_to_be(installed, namespace, 0, 1, 2)
    volumes = claims_come_to_be(installed, namespace, 0, 1, 2)
    change(installed, namespace, scaling={"min": 1})
    come_to_be(installed, namespace, 0)
    change(installed, namespace, scaling={"min": 2})
    come_to_be(installed, namespace, 0, 1)
    assert uids(installed, namespace, CLAIMS) == volumes, "builder 1 has the cache it had"
    # One more than the largest size is for those that a rollout adds.
    change(installed, namespace, scaling={"min": 1, "max": 1})
    come_to_be(installed, namespace, 0)
    assert claims_come_to_be(installed, namespace, 0, 1).items() <= volumes.items()


def test_rollouts_take_turns_between_two_volumes(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, builders=VOLUME)
    first = claims_come_to_be(installed, namespace, 0)
    change(installed, namespace, builders={"image": OTHER_IMAGE})
    come_to_be(installed, namespace, 1)
    both = claims_come_to_be(installed, namespace, 0, 1)
    assert first.items() <= both.items()
    change(installed, namespace, builders={"image": None})
    come_to_be(installed, namespace, 0)
    assert claims_come_to_be(installed, namespace, 0, 1) == both


def test_somebody_elses_deployment_with_the_name_of_a_builder_is_never_touched(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    theirs = a_deployment("ci-builder-0", namespace)
    installed.apply(theirs)
    before = untouched(installed, "deployment", namespace)
    installed.apply(a_pool("ci", namespace))
    condition = says_name_conflict(installed, namespace)
    assert f"Deployment {namespace}/ci-builder-0" in condition["message"]
    assert "rename the pool or remove the object" in condition["message"]
    assert untouched(installed, "deployment", namespace) == before
    installed.must("delete", "deployment", "ci-builder-0", "-n", namespace)
    eventually(
        lambda: (
            (found := installed.get("deployment", "ci-builder-0", namespace))
            and found["spec"]["template"]["spec"]["containers"][0]["name"] == "buildkitd"
        ),
        within=60,
        what="the builder comes once its name is free",
    )


def test_a_deployment_that_only_looks_like_a_builder_is_never_touched(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    """Its number is taken, and the pool goes on with the next one."""
    labels = {"buildpool.dev/pool": "ci", "app.kubernetes.io/component": "builder"}
    installed.apply(a_deployment("ci-builder-0", namespace, labels=labels))
    before = untouched(installed, "deployment", namespace)
    created(installed, namespace)
    come_to_be(installed, namespace, 0, 1)
    change(installed, namespace, builders={"image": OTHER_IMAGE})
    come_to_be(installed, namespace, 0, 2)
    installed.must("delete", "bkp", "ci", "-n", namespace, at_most(20))
    assert untouched(installed, "deployment", namespace) == before


def test_somebody_elses_claim_with_the_name_of_a_builder_is_never_touched(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    """It may be full of what they need: no builder gets it, and the pool's end spares it."""
    installed.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "ci-builder-0", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                # As large as ours: nothing but the operator itself keeps it from being taken.
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )
    before = untouched(installed, "persistentvolumeclaim", namespace)
    installed.apply(a_pool("ci", namespace, builders=VOLUME))
    condition = says_name_conflict(installed, namespace)
    assert f"PersistentVolumeClaim {namespace}/ci-builder-0" in condition["message"]
    # Whatever wakes the pool: it is the same again.
    wrong = '{"spec":{"selector":{"buildpool.dev/serving":"no"}}}'
    installed.must("patch", "service", "ci", "-n", namespace, "-p", wrong)
    eventually(
        lambda: "RepairedDrift" in installed.reasons("ci", namespace), within=15, what="a pass"
    )
    assert untouched(installed, "persistentvolumeclaim", namespace) == before
    assert names(installed, namespace) == set(), "a builder would write to it"
    installed.must("delete", "bkp", "ci", "-n", namespace, at_most(20))
    assert untouched(installed, "persistentvolumeclaim", namespace) == before


def a_deployment(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    """A Deployment of somebody else."""
    labels = {"app": "theirs"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "example/c:v1"}]},
            },
        },
    }


def untouched(api: Api, kind: str, namespace: str) -> dict[str, Any]:
    """All of ci-builder-0 that a write of ours would change."""
    found = api.get(kind, "ci-builder-0", namespace)
    assert found is not None
    metadata = found["metadata"]
    kept = ("uid", "labels", "ownerReferences")
    return {"spec": found["spec"], **{key: metadata.get(key) for key in kept}}


def says_name_conflict(api: Api, namespace: str) -> dict[str, Any]:
    """The condition, once it is there."""
    found: dict[str, Any] = eventually(
        lambda: (
            (c := api.condition("ci", namespace, "Ready")).get("reason") == "NameConflict" and c
        ),
        within=10,
        what="NameConflict",
    )
    return found


def test_a_replica_set_whose_deployment_is_gone_is_removed(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    come_to_be(installed, namespace, 0)
    (template,) = [d["spec"]["template"] for d in installed.list("deployments", namespace)]
    (own,) = eventually(
        lambda: installed.list("replicasets", namespace), within=10, what="the builder has one"
    )
    # Of a version that does not exist: so the garbage collector does not find out, as it does not
    # where another Deployment took the name while the API server was away.
    owner = {"apiVersion": "apps/v9", "kind": "Deployment", "name": "ci-builder-0", "uid": "gone"}
    left = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": "left",
            "namespace": namespace,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
        },
    }
    installed.apply(left)
    change(installed, namespace, builders={"slots": 3})
    eventually(
        lambda: not installed.get("replicaset", "left", namespace), within=10, what="it is gone"
    )
    (stays,) = installed.list("replicasets", namespace)
    assert stays["metadata"]["uid"] == own["metadata"]["uid"], "that of the builder"
