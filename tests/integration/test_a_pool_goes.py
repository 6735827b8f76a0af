"""Deletion leaves nothing, with and without an operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import (
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_most,
    eventually,
    operator_process,
)
from integration.test_a_pool_converges import KINDS, created


def leftovers(api: Api, namespace: str) -> list[str]:
    """What is left of pool ci in its namespace."""
    found = api.list(f"{KINDS},bkp,pods,persistentvolumeclaims", namespace)
    return [
        f"{obj['kind']}/{obj['metadata']['name']}"
        for obj in found
        if obj["metadata"]["name"] != "kube-root-ca.crt"
    ]


def pool_of(api: Api, namespace: str) -> dict[str, Any]:
    """Pool ci, which is there."""
    pool = api.get("bkp", "ci", namespace)
    assert pool is not None
    return pool


def test_a_deleted_pool_leaves_nothing(
    installed: Api, operator: OperatorProcess, namespace: str, authority_of: Any
) -> None:
    claim = {"volumeClaim": {"size": "1Gi"}}
    created(installed, namespace, scaling={"min": 2}, builders={"storage": claim})
    installed.must("delete", "bkp", "ci", "-n", namespace, at_most(20))
    assert authority_of("ci", namespace) is None
    eventually(lambda: not leftovers(installed, namespace), within=5, what="nothing is left")


def test_a_pool_with_a_broken_spec_can_be_deleted(
    installed: Api, operator: OperatorProcess, namespace: str, authority_of: Any
) -> None:
    created(installed, namespace, access={"clients": [{"name": "a"}, {"name": "b"}]})
    installed.apply(a_pool("ci", namespace, builders={"config": "no toml"}))
    installed.must("delete", "bkp", "ci", "-n", namespace, at_most(20))
    assert authority_of("ci", namespace) is None
    eventually(lambda: not leftovers(installed, namespace), within=5, what="nothing is left")


def test_without_an_operator_the_finalizer_can_be_taken_off_by_hand(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    """docs/how-to/uninstall.md says so; the next operator sweeps what lies in its own namespace."""
    first = OperatorProcess(kubeconfig, tmp_path / "first.log", "first")
    with operator_process(first):
        created(installed, namespace)
    installed.must("delete", "bkp", "ci", "-n", namespace, "--wait=false")
    patch = '{"metadata":{"finalizers":null}}'
    installed.must("patch", "bkp", "ci", "-n", namespace, "--type=merge", "-p", patch)
    eventually(
        lambda: not installed.list("deployments,services,pods", namespace),
        within=20,
        what="the garbage collector has removed what the pool owned",
    )
    assert leftovers(installed, namespace)
    assert authority_of("ci", namespace) is not None
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "second.log", "second")):
        eventually(
            lambda: authority_of("ci", namespace) is None and not leftovers(installed, namespace),
            within=30,
            what="the rest is swept",
        )


def test_a_pool_deleted_while_no_operator_ran_goes_when_one_comes(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "first.log", "first")):
        created(installed, namespace)
    installed.must("delete", "bkp", "ci", "-n", namespace, "--wait=false")
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "second.log", "second")):
        eventually(
            lambda: not leftovers(installed, namespace) and authority_of("ci", namespace) is None,
            within=40,
            what="everything is gone",
        )


def test_a_deletion_that_leaves_behind_what_is_owned_leaves_nothing(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    """The garbage collector may take the owner off before an operator comes to look."""
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "first.log", "first")):
        created(installed, namespace)
    installed.must("delete", "bkp", "ci", "-n", namespace, "--cascade=orphan", "--wait=false")
    eventually(
        lambda: (
            not [
                obj
                for obj in installed.list("deployments,services", namespace)
                if "ownerReferences" in obj["metadata"]
            ]
        ),
        within=20,
        what="nothing has the pool as its owner any more",
    )
    assert installed.get("deployment", "ci-builder-0", namespace) is not None
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "second.log", "second")):
        all_gone(installed, namespace, authority_of)


def test_a_pool_whose_authority_is_gone_takes_its_clients_secrets_along(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "first.log", "first")):
        created(installed, namespace, access={"clients": [{"name": "a"}, {"name": "b"}]})
        eventually(
            lambda: len(pool_of(installed, namespace)["status"].get("clients", ())) == 2,
            within=20,
            what="the status names its clients",
        )
    authority = authority_of("ci", namespace)["metadata"]["name"]
    installed.must("delete", "secret", authority, "-n", OPERATOR_NAMESPACE)
    installed.must("delete", "bkp", "ci", "-n", namespace, "--wait=false")
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "second.log", "second")):
        all_gone(installed, namespace, authority_of)


CACHE: dict[str, Any] = {"registry": {"managed": {}}}
CLAIM: dict[str, Any] = {"storage": {"volumeClaim": {"size": "1Gi"}}}
NEEDED = (
    "ConfigMap/ci-builder",
    "ConfigMap/ci-cache",
    "Deployment/ci-cache",
    "PersistentVolumeClaim/ci-builder-0",
    "PersistentVolumeClaim/ci-cache",
    "Secret/ci-builder",
    "Secret/ci-cache",
    "Secret/ci-cache-client",
    "Secret/ci-client-default",
    "Service/ci-cache",
)
"""What a build may need until it ends."""


def needed(api: Api, namespace: str) -> list[str]:
    """What of it is there and is not on its way out."""
    staying = [
        obj
        for obj in api.list(f"{KINDS},persistentvolumeclaims", namespace)
        if "deletionTimestamp" not in obj["metadata"]
    ]
    names = {f"{obj['kind']}/{obj['metadata']['name']}" for obj in staying}
    return sorted(names.intersection(NEEDED))


@contextmanager
def a_build(api: Api, namespace: str) -> Iterator[None]:
    """A builder's pod that is told to go and does not, since a build runs on it."""
    labels = {
        "app.kubernetes.io/component": "builder",
        "buildpool.dev/pool": "ci",
        "buildpool.dev/builder": "ci-builder-7",
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "ci-builder-7-building",
            "namespace": namespace,
            "labels": labels,
            "finalizers": ["example.com/builds"],
        },
        "spec": {"containers": [{"name": "buildkitd", "image": "r.example/none"}]},
    }
    api.apply(pod)
    api.must("delete", "pod", "ci-builder-7-building", "-n", namespace, "--wait=false")
    yield
    end = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    api.must("patch", "pod", "ci-builder-7-building", "-n", namespace, *end)


def deleted(api: Api, namespace: str) -> None:
    """Deletes the pool as Argo CD does, and waits until its builders are told to go."""
    foreground = ("--cascade=foreground", "--wait=false")
    api.must("delete", "bkp", "ci", "-n", namespace, *foreground)
    eventually(
        lambda: (
            not [
                obj
                for obj in api.list("deployments,services", namespace)
                if obj["metadata"]["name"] in ("ci", "ci-builder-0")
            ]
        ),
        within=20,
        what="the way to the builders and the builders are gone",
    )


def is_told(api: Api, namespace: str) -> bool:
    """Whether the pool names the pod it waits for."""
    return "ci-builder-7" in api.condition("ci", namespace, "Ready").get("message", "")


def all_gone(api: Api, namespace: str, authority_of: Any) -> None:
    eventually(
        lambda: not leftovers(api, namespace) and authority_of("ci", namespace) is None,
        within=40,
        what="everything is gone",
    )


def test_a_deletion_in_the_foreground_takes_nothing_from_a_build_though_operators_die(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    """The garbage collector removes at once whatever has the pool as its owner."""
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log", "killed")
    with operator_process(process):
        created(installed, namespace, cache=CACHE, builders=CLAIM)
        eventually(lambda: len(needed(installed, namespace)) == 10, within=20, what="all is there")
        with a_build(installed, namespace):
            deleted(installed, namespace)
            for _ in range(2):
                process.kill()
                before = process.log.read_text().count("leads.")
                process.start()
                eventually(
                    lambda n=before: process.log.read_text().count("leads.") > n,
                    within=30,
                    what="it leads again",
                )
                eventually(
                    lambda: process.passes("ci", namespace) >= 2,
                    within=30,
                    what="it looks at the deleted pool, again and again",
                )
                assert is_told(installed, namespace)
                assert needed(installed, namespace) == sorted(NEEDED)
        all_gone(installed, namespace, authority_of)


def test_a_lost_lease_takes_nothing_from_a_build_of_a_deleted_pool(
    installed: Api, operator: OperatorProcess, namespace: str, authority_of: Any
) -> None:
    created(installed, namespace, cache=CACHE, builders=CLAIM)
    eventually(lambda: len(needed(installed, namespace)) == 10, within=20, what="all is there")
    lease = ("lease", "buildpool-operator", "-n", OPERATOR_NAMESPACE)
    with a_build(installed, namespace):
        deleted(installed, namespace)
        thief = json.dumps({"spec": {"holderIdentity": "a thief"}})
        installed.must("patch", *lease, "--type=merge", "-p", thief)
        eventually(
            lambda: "lost the Lease" in operator.log.read_text(), within=30, what="it is noticed"
        )
        eventually(
            lambda: operator.log.read_text().count("leads.") >= 2, within=60, what="it leads again"
        )
        before = operator.passes("ci", namespace)
        eventually(
            lambda: operator.passes("ci", namespace) > before,
            within=30,
            what="it looks at the deleted pool",
        )
        assert needed(installed, namespace) == sorted(NEEDED)
    all_gone(installed, namespace, authority_of)


def test_what_an_older_operator_has_made_loses_its_owner(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    """Otherwise the first deletion in the foreground after an upgrade would remove it."""
    created(installed, namespace)
    pool = installed.get("bkp", "ci", namespace)
    assert pool is not None
    owner = {
        "apiVersion": "buildpool.dev/v1alpha1",
        "kind": "BuildKitPool",
        "name": "ci",
        "uid": pool["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    for kind, name in (("ConfigMap", "ci-builder"), ("Secret", "ci-builder")):
        live = installed.get(kind.lower(), name, namespace)
        assert live is not None
        labels = {**live["metadata"]["labels"], "app.kubernetes.io/instance": "ci"}
        old = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "annotations": {"buildpool.dev/applied": "of an older operator"},
                "ownerReferences": [owner],
            },
            "data": live["data"],
        }
        if "type" in live:
            old["type"] = live["type"]
        ours = ("--server-side", "--field-manager=buildpool", "--force-conflicts", "-f", "-")
        installed.must("apply", *ours, stdin=json.dumps(old))

        def is_mended(kind: str = kind, name: str = name) -> bool:
            found = installed.get(kind.lower(), name, namespace)
            assert found is not None
            metadata = found["metadata"]
            made_by = metadata["annotations"].get("buildpool.dev/pool-uid")
            return (
                made_by == owner["uid"]
                and "ownerReferences" not in metadata
                and "app.kubernetes.io/instance" not in metadata["labels"]
            )

        installed.must("annotate", "bkp", "ci", "-n", namespace, f"buildpool.dev/rotate=x-{name}")
        eventually(is_mended, within=30, what=f"{kind} {name} has no owner any more")


def test_what_a_backup_has_brought_back_of_an_earlier_pool_makes_way_for_the_new_one(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    labels = {
        "app.kubernetes.io/name": "buildpool",
        "app.kubernetes.io/managed-by": "buildpool",
        "buildpool.dev/pool": "ci",
        "buildpool.dev/pool-namespace": namespace,
    }
    annotations = {"buildpool.dev/pool-uid": "earlier", "buildpool.dev/clients": "default"}
    restored = (
        ("Secret", OPERATOR_NAMESPACE, f"authority.{namespace}.ci", "authority"),
        ("Secret", namespace, "ci-builder", "builder"),
        ("Secret", namespace, "ci-client-default", "client"),
        ("ConfigMap", namespace, "ci-builder", "builder"),
    )
    for kind, where, name, component in restored:
        metadata = {"name": name, "namespace": where, "annotations": annotations}
        metadata["labels"] = {**labels, "app.kubernetes.io/component": component}
        installed.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata})
    created(installed, namespace)
    pool = installed.get("bkp", "ci", namespace)
    assert pool is not None
    uid = pool["metadata"]["uid"]
    for kind, where, name, _ in restored:
        eventually(
            lambda kind=kind, where=where, name=name: (
                (found := installed.get(kind.lower(), name, where))
                and found["metadata"]["annotations"]["buildpool.dev/pool-uid"] == uid
            ),
            within=10,
            what=f"{kind} {name} is the new pool's",
        )
