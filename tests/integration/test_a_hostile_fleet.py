"""One operator for good pools and hostile ones: the good ones notice nothing, the others say why.

Nothing here is judged by absolute times: how fast good pools follow beside hostile ones is compared
with how fast they follow alone, in the same run.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import pool_ref
from buildpool.kube.cluster import Cluster, connect
from buildpool.kube.informer import Informer
from buildpool.kube.metrics import RequestMetrics
from cluster import OPERATOR_NAMESPACE, Api, OperatorProcess, a_pool, eventually
from daemons import until
from integration.hostilities import (
    HOSTILITIES,
    Hostility,
    Scene,
    a_garbled_status,
    a_scene,
    admission,
    beforehand,
    foreign,
)
from limits import patience

GOOD = 100
CROWD = 5
"""Good pools that are changed at a time."""
NUISANCE = 1.0
"""Seconds between two changes of hostile pools."""
NOISE = 1.0
"""Seconds that a busy machine may add to the median. The 95th percentile is shown, not judged."""


@dataclass
class Fleet:
    """The pools of a namespace as a watch shows them."""

    cluster: Cluster
    namespace: str
    informer: Informer = field(init=False)
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.informer = Informer(
            self.cluster, "BuildKitPool", self.namespace, {}, lambda _: self._changed.set()
        )

    async def until(self, holds: Callable[[], bool], *, within: float, what: str) -> None:
        """Waits for something that the pools show."""
        seconds = patience(within)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        assert holds(), f"not within {seconds:g} s: {what}"

    def status(self, pool: str) -> dict[str, Any]:
        """What a pool says."""
        found: dict[str, Any] = self._of(pool).get("status", {})
        return found

    def condition(self, pool: str, kind: str) -> dict[str, Any]:
        """One condition; empty where there is none."""
        found = (c for c in self.status(pool).get("conditions", ()) if c["type"] == kind)
        return next(found, {})

    def is_carried_out(self, pool: str) -> bool:
        """Whether what it says is about its present spec, which is carried out in full."""
        return (
            self.status(pool).get("observedGeneration")
            == self._of(pool).get("metadata", {}).get("generation", 0)
            and self.condition(pool, "Accepted").get("status") == "True"
            and self.condition(pool, "CertificatesReady").get("status") == "True"
            and self.status(pool)["replicas"] > 0
        )

    def has_client(self, pool: str, client: str) -> bool:
        """Whether it has followed its last change."""
        clients = [entry["name"] for entry in self.status(pool).get("clients", ())]
        return client in clients and self.is_carried_out(pool)

    async def give(self, pool: str, client: str) -> None:
        """Changes the spec of a pool: another client."""
        ref = pool_ref(PoolKey(self.namespace, pool))
        await self.cluster.patch(ref, {"spec": {"access": {"clients": [{"name": client}]}}})

    def _of(self, pool: str) -> dict[str, Any]:
        return self.informer.objects.get((self.namespace, pool), {})


@asynccontextmanager
async def fleets(*namespaces: str) -> AsyncIterator[list[Fleet]]:
    """The pools of some namespaces, for the length of a block."""
    before = sockets()
    async with connect(RequestMetrics(CollectorRegistry())) as cluster:
        found = [Fleet(cluster, namespace) for namespace in namespaces]
        watches = [asyncio.create_task(fleet.informer.run()) for fleet in found]
        for fleet in found:
            await fleet.informer.synced.wait()
        try:
            yield found
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
    # A broken off watch says goodbye by itself, for which the loop must not be over.
    await until(lambda: sockets() <= before, "the connections are closed", within=30)


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(file.readlink()).startswith("socket:")
    return count


async def created(fleet: Fleet, *objects: dict[str, Any], at_once: int = 10) -> None:
    """Creates objects, several at a time."""
    slots = asyncio.Semaphore(at_once)

    async def create(obj: dict[str, Any]) -> None:
        async with slots:
            await fleet.cluster.create(obj)

    await asyncio.gather(*map(create, objects))


async def followed(fleet: Fleet, pools: list[str], client: str) -> list[float]:
    """How long each pool takes to follow a change; a few are changed at a time, whatever it takes.

    So a slow machine has no longer queue.
    """
    left, times = iter(pools), []

    async def change_some() -> None:
        for pool in left:
            started = time.monotonic()
            await fleet.give(pool, client)
            await fleet.until(
                lambda pool=pool: fleet.has_client(pool, client),  # type: ignore[misc]
                within=90,
                what=f"{pool} follows",
            )
            times.append(time.monotonic() - started)

    await asyncio.gather(*(change_some() for _ in range(CROWD)))
    return times


@asynccontextmanager
async def nuisances(fleet: Fleet, pools: list[str]) -> AsyncIterator[None]:
    """Hostile pools are changed all the time, one after the other."""

    async def change() -> None:
        for number, pool in enumerate(cycle(pools)):
            await fleet.give(pool, f"mean-{number // len(pools)}")
            await asyncio.sleep(NUISANCE)

    changing = asyncio.create_task(change())
    try:
        yield
    finally:
        changing.cancel()
        with suppress(asyncio.CancelledError):
            await changing


def summary(times: list[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    return median(times), quantiles(times, n=20)[-1]


@pytest.fixture
def scene(devcluster: list[str]) -> Iterator[Scene]:
    """Servers that the operator may ask: not on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.96.0.1", 53))  # sends nothing
        address = probe.getsockname()[0]
    with a_scene(address) as scene:
        yield scene


@pytest.fixture
def hostile(installed: Api, scene: Scene, namespace: str) -> Iterator[str]:
    """Another namespace, with an admission that is against some pools."""
    name = f"{namespace}-hostile"
    installed.must("create", "namespace", name)
    against = list(admission(name, scene))
    installed.apply(*against)
    yield name
    for obj in against:  # it would hold up the end of the pools
        installed.must("delete", obj["kind"], name)
    for home in (namespace, name):
        installed.must("delete", "bkp", "--all", "-n", home, "--wait=false", "--ignore-not-found")
    foreign = ("-l", "example.com/foreign", "--wait=false")
    installed.must("delete", "secrets,pods", "-n", OPERATOR_NAMESPACE, *foreign)
    eventually(
        lambda: not (installed.list("bkp", namespace) or installed.list("bkp", name)),
        within=300,
        what="the fleet is gone",
        every=1,
    )
    installed.must("delete", "namespace", name, "--wait=false")


@pytest.mark.timeout(1200)
async def test_good_pools_notice_nothing_of_hostile_ones_which_say_why(
    installed: Api, operator: OperatorProcess, namespace: str, hostile: str, scene: Scene
) -> None:
    good = [f"good-{number}" for number in range(GOOD)]
    pools = [pool for kind in HOSTILITIES for pool in kind.pools(scene, hostile)]
    names = [pool["metadata"]["name"] for pool in pools]
    assert len(names) == 50
    async with fleets(namespace, hostile) as (ours, theirs):
        await created(ours, *(a_pool(pool, namespace) for pool in good))
        await ours.until(
            lambda: all(map(ours.is_carried_out, good)), within=120, what="all are carried out"
        )
        alone = summary(await followed(ours, good, "alone"))
        await created(theirs, *beforehand(hostile))
        await created(ours, *foreign(namespace))
        await created(theirs, *pools)
        # Fifty new pools are work of their own, whatever they are like.
        await theirs.until(
            lambda: all(theirs.status(name).get("observedGeneration", -1) > 0 for name in names),
            within=90,
            what="all are looked at",
        )
        async with nuisances(theirs, names):
            beside = summary(await followed(ours, good, "beside"))
        print(f"seconds, median and p95: alone {alone}, beside hostile pools {beside}")

        for pool in names[-4:]:
            change, ref = {"status": a_garbled_status()}, pool_ref(PoolKey(hostile, pool))
            await theirs.cluster.patch(ref, change, subresource="status")
            await theirs.give(pool, "after")
        with suppress(AssertionError):
            await theirs.until(lambda: not silent(theirs), within=90, what="all say why")
        unsaid = {pool: theirs.status(pool).get("conditions") for pool in silent(theirs)}
        assert not unsaid, yaml.safe_dump(unsaid)

    assert operator.process is not None
    assert operator.process.poll() is None
    assert operator.log.read_text().count("leads.") == 1
    assert beside[0] <= 2 * alone[0] + NOISE, (alone, beside)


def silent(fleet: Fleet) -> list[str]:
    """The hostile pools that do not say what is wrong with them."""

    def says_why(kind: Hostility, pool: str) -> bool:
        found = fleet.condition(pool, kind.condition)
        is_said = re.search(kind.words, found.get("message", "")) is not None
        return is_said and found.get("reason") in kind.reasons

    return [
        pool
        for kind in HOSTILITIES
        for pool in (f"{kind.name}-{number}" for number in range(kind.count))
        if not says_why(kind, pool)
    ]
