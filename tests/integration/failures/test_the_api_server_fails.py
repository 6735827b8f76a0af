"""The API server falls silent, refuses, or answers too late: the operator acts again by itself.

Within a minute, and in the same process: Kubernetes never has to restart it.
"""

from __future__ import annotations

import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from cluster import (
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_rest,
    eventually,
    looks_again,
    operator_process,
)
from gateway.ports import free_port
from integration.failures.overload import storm_of_429
from integration.proxies import Proxy, proxy_to
from integration.test_a_pool_converges import children, created

A_MINUTE = 60.0
LEADS = "leads."
LOST = "has lost the Lease"


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    """A proxy before the API server."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    with proxy_to(urlsplit(cluster["server"]).port or 443) as proxy:
        yield proxy


@pytest.fixture
def proxied(kubeconfig: Path, proxy: Proxy, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A leading operator that sees the API server through the proxy."""
    settings = yaml.safe_load(kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(settings))
    path.chmod(0o600)
    health = ("--health-port", str(free_port()))
    process = OperatorProcess(path, tmp_path / "operator.log", "proxied", health, free_port())
    with operator_process(process):
        comes_to(process, LEADS, within=30)
        yield process
        assert "Traceback" not in process.log.read_text(), process.log.read_text()[-4000:]


def comes_to(process: OperatorProcess, line: str, *, within: float, times: int = 1) -> None:
    """Waits until the operator has said so, so many times."""
    eventually(
        lambda: process.log.read_text().count(line) >= times,
        within=within,
        what=f"{process.identity} says {line!r}",
    )


def is_running(process: OperatorProcess) -> bool:
    return process.process is not None and process.process.poll() is None


def answer(port: int | str, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        text: str = response.read().decode()
        return text


def builders(api: Api, pool: str, namespace: str) -> int:
    return sum(name.startswith("Deployment/") for name in children(api, pool, namespace))


def acts(api: Api, namespace: str, *, within: float) -> float:
    """Whether a new pool, a changed one and a spoilt one are seen to; seconds until they were.

    Needs a pool ci with two builders.
    """
    doomed = api.list("configmaps", namespace, "buildpool.dev/pool=ci")[0]["metadata"]
    started = time.monotonic()
    api.must("delete", "configmap", doomed["name"], "-n", namespace)
    api.apply(a_pool("new", namespace), a_pool("changed", namespace, scaling={"min": 2}))

    def done() -> bool:
        found = api.get("configmap", doomed["name"], namespace)
        return (
            bool(found and found["metadata"]["uid"] != doomed["uid"])
            and builders(api, "changed", namespace) == 2
            and builders(api, "new", namespace) == 1
        )

    eventually(done, within=within, what="it acts again", every=0.5)
    return time.monotonic() - started


def with_two_pools(api: Api, process: OperatorProcess, namespace: str) -> None:
    """The pools that ``acts`` spoils and changes."""
    api.apply(a_pool("changed", namespace))
    created(api, namespace, scaling={"min": 2})
    eventually(lambda: builders(api, "changed", namespace) == 1, within=10, what="both are there")
    # Until the last pass over them, so that what comes is not theirs.
    at_rest(lambda: [process.passes(pool, namespace) for pool in ("ci", "changed")])


def test_connections_that_die_in_silence_are_replaced(
    installed: Api, proxied: OperatorProcess, proxy: Proxy, namespace: str
) -> None:
    with_two_pools(installed, proxied, namespace)
    proxy.forget_connections()
    acts(installed, namespace, within=A_MINUTE)
    assert proxy.swallowed > 0
    assert is_running(proxied)


def test_after_a_blackout_it_leads_and_acts_in_the_same_process(
    installed: Api, proxied: OperatorProcess, proxy: Proxy, namespace: str
) -> None:
    """In between it does not lead and says so, but is healthy: no reason to restart it."""
    with_two_pools(installed, proxied, namespace)
    proxy.is_silent = True
    comes_to(proxied, LOST, within=30)
    assert answer(proxied.flags[1], "/healthz") == "ok\n"
    eventually(
        lambda: "buildpool_leader 0.0" in answer(proxied.metrics_port, "/metrics"),
        within=10,
        what="it does not lead",
    )
    proxy.is_silent = False
    acts(installed, namespace, within=A_MINUTE)
    assert "buildpool_leader 1.0" in answer(proxied.metrics_port, "/metrics")
    assert is_running(proxied)

    proxy.is_silent = True
    assert proxied.stop() == 0, "it cannot end without the API server"
    # For the next test: it could not be released.
    installed.must("delete", "lease", "buildpool-operator", "-n", OPERATOR_NAMESPACE)


def refused_claims(process: OperatorProcess) -> float:
    """How often the API server had no time for it to renew the Lease, or to ask for it."""
    return process.counted("buildpool_kubernetes_requests_total", code="429", kind="Lease")


def test_after_a_storm_of_429_it_leads_and_acts_in_the_same_process(
    installed: Api, kubeconfig: Path, proxied: OperatorProcess, namespace: str
) -> None:
    with_two_pools(installed, proxied, namespace)
    with storm_of_429(installed, OPERATOR_ACCOUNT, kubeconfig, slow="configmaps"):
        comes_to(proxied, LOST, within=40)
        before = refused_claims(proxied)
        eventually(lambda: refused_claims(proxied) > before, within=30, what="it tries on")
    acts(installed, namespace, within=A_MINUTE)
    assert is_running(proxied)


def test_a_leader_that_wakes_too_late_finds_another_and_waits(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    """Stopped in mid-pass, it leads on for a moment after it wakes: nothing is there twice."""
    one = OperatorProcess(kubeconfig, tmp_path / "one.log", "one")
    two = OperatorProcess(kubeconfig, tmp_path / "two.log", "two")
    pools = [f"ci-{number}" for number in range(4)]

    def state() -> dict[str, str]:
        return {
            f"{pool}: {name}": obj["metadata"]["uid"]
            for pool in pools
            for name, obj in children(installed, pool, namespace).items()
        }

    with operator_process(one):
        comes_to(one, LEADS, within=30)
        with operator_process(two):
            assert one.process is not None
            installed.apply(*(a_pool(pool, namespace, scaling={"min": 2}) for pool in pools))
            one.process.send_signal(signal.SIGSTOP)
            try:
                comes_to(two, LEADS, within=60)
                eventually(
                    lambda: all(builders(installed, pool, namespace) == 2 for pool in pools),
                    within=20,
                    what="the other finishes the work",
                )
                before = at_rest(state)
            finally:
                one.process.send_signal(signal.SIGCONT)
            comes_to(one, LOST, within=10)
            # It asks for the Lease again when nothing of its lost term is under way any more.
            claims = one.claims()
            eventually(lambda: one.claims() > claims, within=45, what="its term is over")
            assert state() == before
            assert one.log.read_text().count(LEADS) == 1
            assert two.stop() == 0

        # The next term of the first, in the same process.
        comes_to(one, LEADS, within=10, times=2)
        installed.apply(a_pool("later", namespace))
        eventually(
            lambda: builders(installed, "later", namespace) == 1, within=10, what="it acts again"
        )
        for pool in pools:
            looks_again(installed, one, pool, namespace)
        assert state() == before
        assert is_running(one)
