"""A pool behind the gateway: what it hears from there, and that nothing goes past it."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api.status import format_time
from buildpool.core.naming import PoolKey
from cluster import (
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_most,
    at_rest,
    eventually,
    operator_process,
)
from integration.charts import credentials_of
from integration.routers import (
    ACCOUNT,
    RouterProcess,
    a_held_client,
    envoy_of,
    router_process,
)

POD = "a-gateway"


@pytest.fixture
def operator(kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One operator that knows of a gateway."""
    process = OperatorProcess(
        kubeconfig, tmp_path / "log", "of-a-gateway", ("--gateway-service", "buildpool-gateway")
    )
    with operator_process(process):
        eventually(
            lambda: "leads." in process.log.read_text(), within=30, what="the operator leads"
        )
        yield process


@pytest.fixture
def gateway(installed: Api) -> Iterator[str]:
    """A pod of the gateway that is ready, as far as its labels and its status say."""
    yield from a_gateway_pod(installed)


@pytest.fixture
def acknowledging(installed: Api) -> Iterator[str]:
    """The same of a version that says what it serves."""
    yield from a_gateway_pod(installed, {naming.ANNOTATION_ACKNOWLEDGES: "true"})


def a_gateway_pod(installed: Api, annotations: dict[str, str] | None = None) -> Iterator[str]:
    labels = naming.installation_selector(naming.COMPONENT_GATEWAY)
    metadata: dict[str, Any] = {"name": POD, "namespace": OPERATOR_NAMESPACE, "labels": labels}
    metadata["annotations"] = annotations or {}
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "none", "image": "none.example/none:1", "securityContext": restricted}
    spec = {"containers": [container]}
    installed.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    is_ready(installed, POD, True)
    yield POD
    installed.must("delete", "pod", POD, "-n", OPERATOR_NAMESPACE, "--now", "--ignore-not-found")


@pytest.fixture
def pool(installed: Api, namespace: str, operator: OperatorProcess, gateway: str) -> str:
    """A pool behind the gateway, asleep."""
    scaling = {"min": 0, "max": 3}
    installed.apply(a_pool("ci", namespace, routing="Gateway", scaling=scaling))
    becomes(installed, namespace, "Asleep", within=20)
    return namespace


def is_ready(api: Api, pod: str, ready: bool) -> None:
    """What the kubelet would say of a pod."""
    condition = {"type": "Ready", "status": str(ready)}
    patch = json.dumps({"status": {"conditions": [condition]}})
    api.must("patch", "pod", pod, "-n", OPERATOR_NAMESPACE, "--subresource=status", "-p", patch)


def becomes(api: Api, namespace: str, reason: str, *, within: float = 5) -> None:
    """Waits until this is why the pool is ready, or is not."""
    eventually(
        lambda: api.condition("ci", namespace, "Ready").get("reason") == reason,
        within=within,
        what=f"it is {reason}",
    )


def tell(api: Api, namespace: str, pod: str, waiting: int, *, refused: str = "") -> None:
    """What the pod would write."""
    entry: dict[str, Any] = {"name": pod, "waiting": waiting}
    if waiting:
        entry["since"] = format_time(datetime.now(UTC))
    if refused:
        entry["refused"] = refused
    body: dict[str, Any] = {
        "apiVersion": "buildpool.dev/v1alpha1",
        "kind": "BuildKitPool",
        "metadata": {"name": "ci", "namespace": namespace},
        "status": {"gateways": [entry] if waiting or refused else []},
    }
    apply = ("apply", "--server-side", "--subresource=status", f"--field-manager=buildpool-{pod}")
    api.must(*apply, "-f", "-", stdin=json.dumps(body))


def builders(api: Api, namespace: str) -> list[dict[str, Any]]:
    """Of the pool."""
    return api.list("deployments", namespace, "app.kubernetes.io/component=builder")


def status(api: Api, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = (api.get("bkp", "ci", namespace) or {}).get("status", {})
    return found


def test_what_a_pod_tells_is_counted_and_wakes_the_pool(
    installed: Api, pool: str, gateway: str
) -> None:
    """The operator's own part, from the write of a pod on."""
    tell(installed, pool, gateway, 2)
    eventually(lambda: status(installed, pool)["waiting"] == 2, within=5, what="it is told")
    eventually(lambda: builders(installed, pool), within=5, what="a builder is made")
    row = installed.must("get", "bkp", "ci", "-n", pool).splitlines()
    assert row[0].split()[:4] == ["NAME", "READY", "BUSY", "WAITING"]
    assert row[1].split()[3] == "2"
    tell(installed, pool, gateway, 0)
    eventually(lambda: status(installed, pool)["waiting"] == 0, within=5, what="nobody waits")


def test_a_client_that_is_held_is_seen_in_the_pool_and_wakes_it(
    installed: Api, kubeconfig: Path, pool: str, gateway: str, tmp_path: Path
) -> None:
    """All of the way: from the first packet of a client to what ``kubectl get`` shows.

    So its handshake, Envoy, the router and its write, the operator's pass, and one kubectl.
    """
    credentials = credentials_of(
        installed, ACCOUNT, OPERATOR_NAMESPACE, like=kubeconfig, file=tmp_path / ACCOUNT
    )
    router = RouterProcess(credentials, tmp_path / "router.log", gateway)
    with router_process(router), envoy_of(router, tmp_path):
        eventually(router.is_ready, within=20, what="Envoy has all pools", every=0.5)
        began = time.monotonic()
        with a_held_client(installed, PoolKey(pool, "ci"), router.port) as hello:
            eventually(lambda: status(installed, pool)["waiting"] == 1, within=10, what="it waits")
            seen = time.monotonic() - began
            eventually(lambda: builders(installed, pool), within=5, what="a builder is made")
            assert router.metric("waiting", pool="ci", client="default") == 1
            assert not hello.done()
        eventually(lambda: status(installed, pool)["waiting"] == 0, within=10, what="it has left")
        assert router.metric("waiting", pool="ci", client="default") == 0
    print(f"WAITING shows a client {seen:.2f} s after its first packet")


def test_what_the_gateway_tells_is_left_alone_by_the_operators_own_writes(
    installed: Api, pool: str, gateway: str
) -> None:
    tell(installed, pool, gateway, 1)
    eventually(lambda: status(installed, pool)["waiting"] == 1, within=5, what="it is told")
    installed.must("annotate", "bkp", "ci", "-n", pool, "buildpool.dev/rotate=certificates")
    eventually(
        lambda: "RenewedCertificate" in installed.reasons("ci", pool), within=60, what="a pass"
    )
    assert [entry["name"] for entry in status(installed, pool)["gateways"]] == [gateway]


def test_what_a_pod_told_that_is_gone_counts_no_more_and_is_taken_away(
    installed: Api, pool: str
) -> None:
    tell(installed, pool, "a-pod-that-is-gone", 3)
    eventually(
        lambda: not status(installed, pool).get("gateways"), within=10, what="it is taken away"
    )
    assert status(installed, pool)["waiting"] == 0
    assert not builders(installed, pool)


def test_a_pool_is_ready_only_while_the_gateway_is(installed: Api, pool: str, gateway: str) -> None:
    is_ready(installed, gateway, False)
    becomes(installed, pool, "GatewayNotReady")
    assert installed.condition("ci", pool, "Ready")["status"] == "False"
    is_ready(installed, gateway, True)
    becomes(installed, pool, "Asleep")
    installed.must("delete", "pod", gateway, "-n", OPERATOR_NAMESPACE, "--now")
    becomes(installed, pool, "GatewayNotReady")


def test_a_pool_that_the_gateway_does_not_serve_says_why(
    installed: Api, pool: str, gateway: str
) -> None:
    why = "gateway.hostnames: x.example.com is a name of pool builds/other already"
    tell(installed, pool, gateway, 0, refused=why)
    becomes(installed, pool, "HostnameTaken")
    ready = installed.condition("ci", pool, "Ready")
    assert (ready["status"], ready["message"]) == ("False", why)
    assert status(installed, pool)["waiting"] == 0
    tell(installed, pool, gateway, 0)
    becomes(installed, pool, "Asleep")


def test_others_are_kept_from_builders_as_long_as_the_pool_is_behind_the_gateway(
    installed: Api, pool: str
) -> None:
    policy = ("networkpolicy", "ci-builder")
    there = lambda: installed.get(*policy, pool)  # noqa: E731
    first = there()
    assert first is not None
    installed.must("delete", *policy, "-n", pool)
    eventually(there, within=2.5, what="it is there again")
    edit = '[{"op":"add","path":"/spec/ingress/0/ports/0","value":{"port":5000}}]'
    installed.must("patch", *policy, "-n", pool, "--type=json", "-p", edit)
    eventually(lambda: there()["spec"] == first["spec"], within=2.5, what="it is put right")
    installed.apply(a_pool("ci", pool, routing="Direct", scaling={"min": 1, "max": 3}))
    eventually(lambda: there() is None, within=5, what="it is gone")


def shakes_hands(api: Api, namespace: str, port: int, name: str, folder: Path) -> bool:
    """Whether a client with its Secret is let in under a name, at its first try."""
    secret = api.get(
        "secret", naming.client_certificate(PoolKey(namespace, "ci"), "default"), namespace
    )
    assert secret is not None
    for file, value in secret["data"].items():
        (folder / file).write_bytes(base64.b64decode(value))
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=name) as channel,
        ):
            # Envoy's settings: it has let the client in.
            channel.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
            )
            return channel.recv(9) != b""
    except OSError:
        return False


def test_a_pool_that_says_it_is_ready_is_served_at_once(
    installed: Api,
    kubeconfig: Path,
    namespace: str,
    operator: OperatorProcess,
    acknowledging: str,
    tmp_path: Path,
) -> None:
    """Whenever ``kubectl wait`` ends: after a pool was made, and after its spec was changed."""
    credentials = credentials_of(
        installed, ACCOUNT, OPERATOR_NAMESPACE, like=kubeconfig, file=tmp_path / ACCOUNT
    )
    spec = {"routing": "Gateway", "scaling": {"min": 0, "max": 3}}
    wait = ("wait", "bkp/ci", "-n", namespace, "--for=condition=Ready", at_most(30))
    entries = lambda: status(installed, namespace).get("gateways")  # noqa: E731
    router = RouterProcess(credentials, tmp_path / "router.log", acknowledging)
    with router_process(router):
        installed.apply(a_pool("ci", namespace, **spec))
        becomes(installed, namespace, "GatewayLoading", within=20)
        assert installed.condition("ci", namespace, "Ready")["status"] == "False"
        assert not entries(), "there is no Envoy that could serve it"
        with envoy_of(router, tmp_path):
            for hostnames in ([], ["one.example.com"], ["two.example.com"]):
                gateway = {"gateway": {"hostnames": hostnames}} if hostnames else {}
                installed.apply(a_pool("ci", namespace, **spec, **gateway))
                installed.must(*wait)
                for name in (f"ci.{namespace}.svc", *hostnames):
                    assert shakes_hands(installed, namespace, router.port, name, tmp_path), name
            version = at_rest(lambda: installed.get("bkp", "ci", namespace)["metadata"])  # type: ignore[index]
            assert [entry["name"] for entry in entries()] == [acknowledging]
            assert installed.get("bkp", "ci", namespace)["metadata"] == version  # type: ignore[index]
