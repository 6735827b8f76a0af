"""Whatever stands in one pool or in a foreign object: the process lives and tends the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import OPERATOR_NAMESPACE, Api, OperatorProcess, a_pool, eventually, operator_process
from integration.test_a_pool_converges import created

FOREIGN = "foreign-gateway"


@pytest.fixture
def foreign_secret(installed: Api) -> Any:
    """What another chart may have in the namespace; labelled as ours, but for its pool."""
    labels = {
        "app.kubernetes.io/name": "buildpool",
        "app.kubernetes.io/managed-by": "buildpool",
        "app.kubernetes.io/component": "gateway",
    }
    metadata = {"name": FOREIGN, "namespace": OPERATOR_NAMESPACE, "labels": labels}
    installed.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    yield metadata
    installed.must("delete", "secret", FOREIGN, "-n", OPERATOR_NAMESPACE)


def test_an_operator_that_starts_beside_a_foreign_secret_tends_its_pools(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, foreign_secret: Any
) -> None:
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log", "beside")
    left = f"authority.{namespace}.gone"
    labels = {
        **foreign_secret["labels"],
        "app.kubernetes.io/component": "authority",
        "buildpool.dev/pool": "gone",
        "buildpool.dev/pool-namespace": namespace,
    }
    metadata = {"name": left, "namespace": OPERATOR_NAMESPACE, "labels": labels}
    installed.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    with operator_process(process):
        created(installed, namespace)
        eventually(
            lambda: installed.get("secret", left, OPERATOR_NAMESPACE) is None,
            within=30,
            what="what a pool has left is swept",
        )
        assert process.process is not None
        assert process.process.poll() is None
    assert "Traceback" not in process.log.read_text()
    assert installed.get("secret", FOREIGN, OPERATOR_NAMESPACE) is not None


def test_a_host_that_is_none_is_its_own_pools_trouble(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    odd = a_pool("odd", namespace, cache={"registry": {"ref": "xn--a/cache"}})
    inward = a_pool("inward", namespace, cache={"registry": {"ref": "127.0.0.1:1/cache"}})
    installed.apply(odd, inward)
    created(installed, namespace)

    def said(pool: str, kind: str) -> str:
        return str(installed.condition(pool, namespace, kind).get("message", ""))

    eventually(
        lambda: "xn--a in the host is no valid name" in said("odd", "Accepted"),
        within=20,
        what="the spec is refused",
    )
    eventually(
        lambda: "the operator's own pod or node" in said("inward", "CacheReady"),
        within=20,
        what="loopback is not asked",
    )
    assert operator.process is not None
    assert operator.process.poll() is None
