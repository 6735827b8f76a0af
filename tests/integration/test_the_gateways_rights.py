"""What a gateway's router may do by its own rights: enough, in all namespaces or in some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from buildpool.core import naming
from buildpool.core.naming import PoolKey
from cluster import (
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_most,
    eventually,
    operator_process,
)
from integration.charts import (
    SECOND,
    Object,
    credentials_of,
    refused_in,
    rendered,
    second_release,
    the,
)
from integration.routers import RouterProcess, router_process


@dataclass(frozen=True)
class Installation:
    """Where the operator and its gateway run, and with whose rights."""

    name: str
    """Of the operator's account; the gateway's is named after it."""
    home: str
    flags: tuple[str, ...] = ()

    @property
    def gateway(self) -> str:
        return f"{self.name}-gateway"


def a_pod_of_the_gateway(where: Installation, name: str) -> Object:
    """It is never started: there is no node."""
    template = the("Deployment", "buildpool-gateway", rendered())["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": where.home,
            "labels": template["metadata"]["labels"],
        },
        "spec": {**template["spec"], "serviceAccountName": where.gateway},
    }


def what_waits(pool: str, namespace: str, pod: str) -> Object:
    """What a pod of the gateway tells while one build waits there."""
    entry = {"name": pod, "waiting": 1, "since": "2030-01-01T00:00:00Z"}
    return {
        "apiVersion": naming.API_VERSION,
        "kind": naming.KIND,
        "metadata": {"name": pool, "namespace": namespace},
        "status": {"gateways": [entry]},
    }


def serve_a_pool(
    api: Api, kubeconfig: Path, namespace: str, where: Installation, folder: Path
) -> None:
    """A pool gets behind the gateway, whose router takes back what a killed one has told."""
    operator, router = folder / "operator.log", folder / "router.log"
    operators, routers = (
        credentials_of(api, account, where.home, like=kubeconfig, file=folder / account)
        for account in (where.name, where.gateway)
    )
    flags = ("--namespace", where.home, *where.flags, "--gateway-service", where.gateway)
    pod = f"{namespace}-gateway-of-before"
    api.apply(a_pod_of_the_gateway(where, pod))
    with operator_process(OperatorProcess(operators, operator, namespace, flags)):
        api.apply(a_pool("ci", namespace, routing="Gateway"))
        certificate = naming.gateway_certificate(PoolKey(namespace, "ci"))
        eventually(
            lambda: api.get("secret", certificate, where.home),
            within=30,
            what="the gateway is told of the pool",
        )
        tell = ("apply", "--server-side", "--subresource=status", "-f", "-")
        as_router = f"--field-manager={naming.FIELD_MANAGER}-{pod}"
        api.must(*tell, as_router, stdin=yaml.safe_dump(what_waits("ci", namespace, pod)))
        eventually(
            lambda: status_of(api, namespace).get("waiting") == 1,
            within=30,
            what="the operator counts what waits",
        )
        with router_process(RouterProcess(routers, router, pod, where.home, where.flags)):
            eventually(
                lambda: not status_of(api, namespace).get("gateways"),
                within=30,
                what="the router takes back what is not so any more",
            )
        api.must("delete", "bkp", "ci", "-n", namespace, at_most(30))
        assert api.get("secret", certificate, where.home) is None
    api.must("delete", "pod", pod, "-n", where.home, "--wait=false")
    for log in (operator, router):
        assert not refused_in(log)
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


def status_of(api: Api, namespace: str) -> Object:
    """What the pool says."""
    status: Object = (api.get("bkp", "ci", namespace) or {}).get("status", {})
    return status


def test_roles_are_enough_for_the_gateway(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    where = Installation(OPERATOR_ACCOUNT, OPERATOR_NAMESPACE)
    serve_a_pool(installed, kubeconfig, namespace, where, tmp_path)


@pytest.fixture
def release(installed: Api, namespace: str) -> Iterator[str]:
    """The home of a second installation, for one watched namespace."""
    with second_release(installed, namespace) as home:
        yield home


def test_roles_are_enough_for_the_gateway_of_watched_namespaces(
    installed: Api, kubeconfig: Path, namespace: str, release: str, tmp_path: Path
) -> None:
    where = Installation(SECOND, release, ("--watch-namespace", namespace))
    serve_a_pool(installed, kubeconfig, namespace, where, tmp_path)
