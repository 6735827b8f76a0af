"""Operator and gateway in clusters of either family of IP, found by the addresses of pods.

`make integration` runs this twice: in a control plane of IPv4, and in one that has no IPv4 at all.
"""

from __future__ import annotations

import os
import socket
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from buildpool.core import naming
from buildpool.core.naming import PoolKey
from cluster import (
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    eventually,
    operator_process,
)
from devcluster.addresses import ADDRESSES, Addresses, Family
from devcluster.layout import layout
from devcluster.plan import Plan
from gateway.ports import free_port
from integration.charts import credentials_of
from integration.proxies import proxy_to
from integration.routers import (
    ACCOUNT,
    RouterProcess,
    envoy_of,
    router_process,
    takes_builds,
)

GATEWAY = ("--gateway-service", "buildpool-gateway")
IN_A_POD = """\
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/hosts" /etc/hosts
mount -t tmpfs tmpfs /var/run
mkdir -p /var/run/secrets/kubernetes.io
cp -r "$1/serviceaccount" /var/run/secrets/kubernetes.io/
shift
exec "$@"
"""
"""Gives a program the files of a pod, in mounts of its own."""


@pytest.fixture(scope="module")
def family(devcluster: list[str]) -> Family:
    """That of the cluster."""
    return Plan.read(layout(os.environ["DEVCLUSTER_NAME"], os.environ, Path.home()).plan).family


@pytest.fixture(scope="module")
def addresses(family: Family) -> Addresses:
    """Of the cluster. Pods have none here, so its node's stands for theirs."""
    return ADDRESSES[family]


def in_a_pod(folder: Path, kubeconfig: Path, addresses: Addresses) -> tuple[str, ...]:
    """The command that starts a program with what the kubelet gives to the operator's pod."""
    raw = yaml.safe_load(kubeconfig.read_text())
    account = folder / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(raw["users"][0]["user"]["token"])
    (account / "namespace").write_text(OPERATOR_NAMESPACE)
    authority = layout(os.environ["DEVCLUSTER_NAME"], os.environ, Path.home()).pki / "ca.crt"
    (account / "ca.crt").write_bytes(authority.read_bytes())
    search = f"{OPERATOR_NAMESPACE}.svc.k8s.test svc.k8s.test k8s.test"
    (folder / "resolv.conf").write_text(f"search {search}\nnameserver {addresses.node}\n")
    (folder / "hosts").write_text(f"{addresses.node} kubernetes.default.svc\n")
    where = (f"KUBERNETES_SERVICE_HOST={addresses.node}", "KUBERNETES_SERVICE_PORT=443")
    mounts = ("unshare", "--mount", "--", "sh", "-ec", IN_A_POD, "sh", str(folder))
    return ("env", "-u", "KUBECONFIG", *where, *mounts)


@pytest.fixture
def pod(kubeconfig: Path, addresses: Addresses, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, as it is in its pod: it finds the API server as one, and the domain, too."""
    within = in_a_pod(tmp_path, kubeconfig, addresses)
    flags = (*GATEWAY, "--health-port", str(free_port()))
    process = OperatorProcess(kubeconfig, tmp_path / "pod.log", "in-a-pod", flags, within=within)
    api_server = {"server_host": addresses.loopback, "at": (addresses.node, 443)}
    with proxy_to(6443, **api_server), operator_process(process):
        eventually(
            lambda: "leads." in process.log.read_text(), within=30, what="the operator leads"
        )
        yield process
        assert "Traceback" not in process.log.read_text(), process.log.read_text()[-4000:]


@pytest.fixture
def operator(kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One operator that knows of a gateway."""
    process = OperatorProcess(kubeconfig, tmp_path / "log", "of-a-gateway", GATEWAY)
    with operator_process(process):
        yield process


def page(addresses: Addresses, port: int, path: str) -> str:
    """What is answered to the kubelet, or to Prometheus: they ask the address of the pod."""
    url = f"http://{naming.authority_form(addresses.node, port)}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


@contextmanager
def a_builder_at(addresses: Addresses) -> Iterator[socket.socket]:
    """Where the daemon of a builder would listen; whoever connects, can be seen."""
    kind = socket.AF_INET6 if ":" in addresses.node else socket.AF_INET
    with socket.create_server((addresses.node, naming.PORT), family=kind) as listener:
        listener.settimeout(30)
        yield listener


def test_the_cluster_has_the_family_that_was_asked_for(
    installed: Api, family: Family, addresses: Addresses
) -> None:
    service = installed.get("service", "kubernetes", "default")
    assert service is not None
    assert [name.lower() for name in service["spec"]["ipFamilies"]] == [family]
    assert service["spec"]["clusterIP"] == addresses.service
    if family is Family.IPV6:
        for port in (2379, 6443, 10257, 10259):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_operator_is_healthy_measured_and_at_work(
    installed: Api, pod: OperatorProcess, addresses: Addresses, namespace: str
) -> None:
    assert page(addresses, int(pod.flags[-1]), "/healthz") == "ok\n"
    eventually(
        lambda: "buildpool_leader 1.0\n" in page(addresses, pod.metrics_port, "/metrics"),
        within=10,
        what="Prometheus sees that it leads",
    )
    cache: Any = {"registry": {"managed": {}}}
    with a_builder_at(addresses) as builder:
        spec: Any = {"routing": "Gateway", "scaling": {"min": 1}, "cache": cache}
        installed.apply(a_pool("ci", namespace, **spec))
        takes_builds(installed, PoolKey(namespace, "ci"), addresses.node)
        asker, where = builder.accept()
        asker.close()
        assert where[0] == addresses.node, "the operator asks the daemon"
    assert installed.condition("ci", namespace, "CertificatesReady")["status"] == "True"
    config = installed.get("configmap", "ci-builder", namespace)
    assert config is not None
    daemon = tomllib.loads(config["data"]["buildkitd.toml"])
    assert "tcp://:1234" in daemon["grpc"]["address"], "it listens on both families"


def test_the_operator_finds_the_domain_of_the_cluster_out(
    installed: Api, pod: OperatorProcess, namespace: str
) -> None:
    installed.apply(a_pool("ci", namespace, routing="Gateway"))
    service = eventually(
        lambda: installed.get("service", "ci", namespace), within=20, what="it has a Service"
    )
    host = f"buildpool-gateway.{OPERATOR_NAMESPACE}.svc.k8s.test"
    assert service["spec"]["externalName"] == host


def test_the_gateway_is_healthy_measured_and_at_work(
    installed: Api,
    kubeconfig: Path,
    operator: OperatorProcess,
    addresses: Addresses,
    namespace: str,
    tmp_path: Path,
) -> None:
    pool = PoolKey(namespace, "ci")
    installed.apply(a_pool("ci", namespace, routing="Gateway", scaling={"min": 1}))
    own = credentials_of(
        installed, ACCOUNT, OPERATOR_NAMESPACE, like=kubeconfig, file=tmp_path / ACCOUNT
    )
    takes_builds(installed, pool, addresses.node)
    operator.stop()  # from now on, nobody but the router asks the daemon
    router = RouterProcess(own, tmp_path / "router.log", "a-gateway")
    with (
        a_builder_at(addresses) as builder,
        router_process(router),
        envoy_of(router, tmp_path),
    ):
        eventually(router.is_ready, within=20, what="Envoy has all pools", every=0.5)
        for path in ("/healthz", "/readyz"):
            assert page(addresses, router.health_port, path) == "ok\n"
        assert "buildpool_gateway_" in page(addresses, router.metrics_port, "/metrics")
        asker, where = builder.accept()
        asker.close()
        assert where[0] == addresses.node, "the router asks the daemon"
        reached = naming.authority_form(addresses.node, naming.PORT)
        assert router.builder_for(pool) == reached
        socket.create_connection((addresses.node, router.port), timeout=5).close()
