"""The API server falls silent or refuses: the router serves on, and then knows what is new.

Within a minute, and in the same process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from buildpool.core.naming import PoolKey
from cluster import (
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    eventually,
    operator_process,
)
from integration.charts import credentials_of
from integration.failures.overload import storm_of_429
from integration.proxies import Proxy, proxy_to
from integration.routers import ACCOUNT, RouterProcess, behind, router_process, takes_builds

A_MINUTE = 60.0
OLD, NEW = "192.0.2.1", "192.0.2.2"
"""Addresses that nobody has."""


@pytest.fixture
def operator(kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One that sees the API server as it is, and tells the gateway of its pools."""
    flags = ("--gateway-service", "buildpool-gateway")
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log", "of-a-gateway", flags)
    with operator_process(process):
        eventually(
            lambda: "leads." in process.log.read_text(), within=30, what="the operator leads"
        )
        yield process


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    """A proxy before the API server."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    with proxy_to(urlsplit(cluster["server"]).port or 443) as proxy:
        yield proxy


@pytest.fixture
def credentials(installed: Api, kubeconfig: Path, tmp_path: Path) -> Path:
    """The gateway's own."""
    return credentials_of(
        installed, ACCOUNT, OPERATOR_NAMESPACE, like=kubeconfig, file=tmp_path / ACCOUNT
    )


@pytest.fixture
def router(
    installed: Api,
    credentials: Path,
    proxy: Proxy,
    operator: OperatorProcess,
    namespace: str,
    tmp_path: Path,
) -> Iterator[RouterProcess]:
    """One that sees the API server through the proxy, and knows the pool ``old``."""
    log = tmp_path / "router.log"
    process = RouterProcess(behind(proxy.port, credentials), log, f"{namespace}-gateway")
    old = PoolKey(namespace, "old")
    with router_process(process):
        installed.apply(a_pool("old", namespace, routing="Gateway"))
        takes_builds(installed, old, OLD)
        knows(process, old, f"{OLD}:1234", within=20)
        yield process
        assert not process.says("Traceback"), log.read_text()[-4000:]


def knows(router: RouterProcess, pool: PoolKey, answer: str, *, within: float = A_MINUTE) -> None:
    """Waits until this is what the router answers to who asks for a pool."""
    eventually(
        lambda: router.builder_for(pool) == answer, within=within, what=f"{pool}: {answer}", every=1
    )


def is_cut_off(router: RouterProcess) -> None:
    """Waits until it says that it hears of nothing any more."""
    words = ("The watch of Secrets is interrupted", "The watch of Pods is interrupted")
    eventually(lambda: all(map(router.says, words)), within=45, what="it is cut off", every=1)


def a_new_pool(api: Api, namespace: str) -> PoolKey:
    """A pool with a builder, of which the router is told while it cannot hear."""
    pool = PoolKey(namespace, "new")
    api.apply(a_pool(pool.name, namespace, routing="Gateway"))
    takes_builds(api, pool, NEW)
    return pool


def test_watches_that_die_in_silence_are_replaced(
    installed: Api, router: RouterProcess, proxy: Proxy, namespace: str
) -> None:
    proxy.forget_connections()
    new = a_new_pool(installed, namespace)
    knows(router, new, f"{NEW}:1234")
    assert proxy.swallowed > 0


def test_after_a_blackout_it_knows_what_came_and_what_went(
    installed: Api, router: RouterProcess, proxy: Proxy, namespace: str
) -> None:
    old = PoolKey(namespace, "old")
    before = router.metric("pools")
    proxy.is_silent = True
    new = a_new_pool(installed, namespace)
    installed.must("delete", "pods", "-n", namespace, "-l", "buildpool.dev/pool=old", "--now")
    is_cut_off(router)
    assert router.builder_for(old) == f"{OLD}:1234", "it serves with what it knew"
    assert router.builder_for(new) == f"pool {new} is not served here any more"
    assert router.is_healthy()
    proxy.is_silent = False
    knows(router, new, f"{NEW}:1234")
    knows(router, old, f"pool {old} has no builder now; a build wakes it")
    assert router.metric("pools") >= before + 1


def test_after_a_storm_of_429_it_knows_what_is_new(
    installed: Api, router: RouterProcess, credentials: Path, namespace: str
) -> None:
    """A watch goes on through it; one that ends, as each does after a while, is refused."""
    with storm_of_429(installed, ACCOUNT, credentials, slow="pods"):
        is_cut_off(router)
        new = a_new_pool(installed, namespace)
        assert router.builder_for(PoolKey(namespace, "old")) == f"{OLD}:1234"
        assert router.is_healthy()
    knows(router, new, f"{NEW}:1234")
    assert router.says("HTTP status 429")
