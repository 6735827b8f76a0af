"""When Envoy is configured, and with which pools."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.config.listener.v3.listener_components_pb2 import FilterChain

from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.xds import publisher as publishing
from buildpool.gateway.xds import resources
from buildpool.gateway.xds.limits import LIMITS, Limits
from buildpool.gateway.xds.publisher import Publisher
from buildpool.gateway.xds.subscriptions import CLUSTER, LISTENER, SECRET, Snapshot
from samples import NOW
from unit.gateway.xds.configs import a_config, by_key

LONG = timedelta(hours=1)
SHARED = "build.example.com"


class Recorder:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Snapshot] = []
        self._more = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        self.published.append(snapshot)
        self._more.set()

    async def has(self, number: int) -> None:
        """Waits until so many were."""
        async with asyncio.timeout(5):
            while len(self.published) < number:
                self._more.clear()
                await self._more.wait()


class PublisherLab:
    """A publisher, and what came of it."""

    def __init__(self, drain_time: timedelta = LONG) -> None:
        self.recorder = Recorder()
        self.refused: list[tuple[PoolKey, str | None]] = []
        self.publisher = Publisher(
            self.recorder.publish,
            port=1234,
            drain_time=drain_time,
            on_refused=lambda *why: self.refused.append(why),
        )

    async def becomes(self, *configs: PoolConfig) -> None:
        """These are the pools now; waits until that is published."""
        number = len(self.recorder.published)
        self.publisher.update(by_key(*configs))
        await self.recorder.has(number + 1)

    @property
    def served(self) -> set[str]:
        """The pools that a connection can reach."""
        return _served(self.recorder.published[-1])

    @property
    def names(self) -> dict[str, str]:
        """Which pool a connection reaches by names that are not a pool's own."""
        content = self.recorder.published[-1][LISTENER]["gateway"].content
        listener = listener_pb2.Listener()
        content.Unpack(listener)
        return {
            name: chain.name
            for chain in listener.filter_chains
            for name in chain.filter_chain_match.server_names
            if not re.match(rf"{'.'.join(reversed(chain.name.split('/')))}\b", name)
        }

    def kept(self, kind: str) -> set[str]:
        """Names of what Envoy has of a type."""
        return set(self.recorder.published[-1][kind])


def _served(snapshot: Snapshot) -> set[str]:
    content = snapshot[LISTENER]["gateway"].content.value
    return {name for name in snapshot[CLUSTER] if f"{name}/server".encode() in content}


@asynccontextmanager
async def a_publisher(drain_time: timedelta = LONG) -> AsyncIterator[PublisherLab]:
    lab = PublisherLab(drain_time)
    running = asyncio.create_task(lab.publisher.run())
    try:
        yield lab
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PublisherLab]:
    """One that is quick to publish."""
    monkeypatch.setattr(publishing, "QUIET_SECONDS", 0.01)
    async with a_publisher() as lab:
        yield lab


def pools(names: Iterable[str], **how: tuple[str, ...]) -> list[PoolConfig]:
    return [a_config(name, hostnames=how.get(name, ())) for name in names]


async def test_the_first_pools_are_published_at_once_all_of_them() -> None:
    lab = PublisherLab()
    lab.publisher.update(by_key(*pools("ab")))
    assert lab.served == {"builds/a", "builds/b"}
    assert lab.kept(SECRET) == {
        f"builds/{name}/{what}" for name in "ab" for what in ("server", "upstream", "trust")
    }


async def test_a_burst_of_changes_is_one_update() -> None:
    async with a_publisher() as lab:
        lab.publisher.update({})
        for number in range(20):
            lab.publisher.update(by_key(*(a_config(f"p{n}") for n in range(number + 1))))
            await asyncio.sleep(0)
        await lab.recorder.has(2)
    assert len(lab.served) == 20
    assert len(lab.recorder.published) == 2


async def test_changes_without_end_are_published_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(publishing, "LATEST_SECONDS", 0.9)
    async with a_publisher() as lab:
        lab.publisher.update({})
        issue = 0
        while len(lab.recorder.published) < 3:
            issue += 1
            lab.publisher.update(by_key(a_config(issue=str(issue))))
            await asyncio.sleep(0.01)
    assert issue > 20, "many changes were gathered"


async def test_what_has_not_changed_is_not_published(lab: PublisherLab) -> None:
    """What is known of a pool's builders changes with each of its builds."""
    await lab.becomes(*pools("ab"))
    lab.publisher.update(by_key(*pools("ab")))
    await lab.becomes(*pools("a"))
    assert len(lab.recorder.published) == 2


async def test_what_is_published_does_not_depend_on_the_order_of_pools() -> None:
    one, other = PublisherLab(), PublisherLab()
    one.publisher.update(by_key(*pools("abc")))
    other.publisher.update(by_key(*pools("cba")))
    assert one.recorder.published == other.recorder.published


async def test_a_pool_that_goes_is_not_reached_any_more_and_its_builds_go_on(
    lab: PublisherLab,
) -> None:
    await lab.becomes(*pools("ab"))
    await lab.becomes(*pools("b"))
    assert lab.served == {"builds/b"}
    assert lab.kept(CLUSTER) == {"builds/a", "builds/b"}
    assert "builds/a/upstream" in lab.kept(SECRET)


async def test_what_is_left_of_a_pool_goes_by_itself_once_its_connections_are_gone() -> None:
    async with a_publisher(timedelta(seconds=0.1)) as lab:
        await lab.becomes(*pools("ab"))
        await lab.becomes(*pools("b"))
        assert lab.kept(CLUSTER) == {"builds/a", "builds/b"}
        await lab.recorder.has(3)
        assert lab.kept(CLUSTER) == {"builds/b"}
        assert not any(name.startswith("builds/a/") for name in lab.kept(SECRET))


async def test_a_pool_that_comes_back_is_not_forgotten_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "QUIET_SECONDS", 0.01)
    async with a_publisher(timedelta(seconds=0.2)) as lab:
        for names in ("ab", "b", "ab", "a"):
            await lab.becomes(*pools(names))
        await lab.recorder.has(5)
    assert lab.kept(CLUSTER) == {"builds/a"}, "that of b, which went last, is gone"


async def test_a_name_stays_with_the_pool_that_had_it_first(lab: PublisherLab) -> None:
    await lab.becomes(*pools("b", b=(SHARED,)))
    await lab.becomes(*pools("ab", a=(SHARED,), b=(SHARED,)))
    assert lab.names == {SHARED: "builds/b"}
    assert lab.served == {"builds/a", "builds/b"}, "by its own names each is reached"
    ((pool, why),) = lab.refused
    assert pool == PoolKey("builds", "a")
    assert why == (
        f"gateway.hostnames: {SHARED} is a name of pool builds/b already, to which it leads; "
        "remove it from one of the two"
    )


async def test_a_pool_that_is_served_already_cannot_take_the_name_of_another(
    lab: PublisherLab,
) -> None:
    await lab.becomes(*pools("ab", b=(SHARED,)))
    await lab.becomes(*pools("ab", a=(SHARED,), b=(SHARED,)))
    assert lab.names == {SHARED: "builds/b"}


async def test_a_pool_that_is_refused_one_name_has_its_others(lab: PublisherLab) -> None:
    await lab.becomes(*pools("b", b=(SHARED,)))
    await lab.becomes(*pools("ab", a=("a.example", SHARED), b=(SHARED,)))
    assert lab.names == {SHARED: "builds/b", "a.example": "builds/a"}


@pytest.mark.parametrize(
    ("created", "holder"),
    [
        ({"a": NOW, "b": NOW - LONG}, "b"),
        ({"a": NOW, "b": None}, "a"),
        ({"a": NOW, "b": NOW}, "a"),
        ({"a": None, "b": None}, "a"),
    ],
)
async def test_after_a_restart_the_oldest_pool_has_the_name(
    created: dict[str, datetime | None], holder: str
) -> None:
    """Every pod of the gateway comes to that, and nobody can make a pool that is older."""
    lab = PublisherLab()
    configs = [a_config(n, hostnames=(SHARED,), created=when) for n, when in created.items()]
    lab.publisher.update(by_key(*configs))
    assert lab.names == {SHARED: f"builds/{holder}"}


async def test_a_name_that_a_pool_gave_up_is_not_its_own_when_it_comes_back(
    lab: PublisherLab,
) -> None:
    await lab.becomes(*pools("a", a=(SHARED,)))
    await lab.becomes(*pools("b", b=(SHARED,)))
    await lab.becomes(*pools("ab", a=(SHARED,), b=(SHARED,)))
    assert lab.names == {SHARED: "builds/b"}


@pytest.mark.parametrize("suffix", ["", ".k8s.test"])
async def test_no_pool_takes_the_names_by_which_another_is_known(
    lab: PublisherLab, suffix: str
) -> None:
    """Not even the pool that came first: such a name says which pool it means."""
    name = f"ci.builds.svc{suffix}"
    usurper = a_config("a", namespace="other", hostnames=(name,))
    await lab.becomes(usurper)
    assert lab.names == {name: "other/a"}
    await lab.becomes(usurper, a_config("ci", domain="k8s.test"))
    assert lab.names == {}
    assert lab.served == {"builds/ci", "other/a"}
    assert [pool for pool, _ in lab.refused] == [usurper.key]


async def test_a_refused_pool_is_reported_once_and_has_the_name_when_it_is_free(
    lab: PublisherLab,
) -> None:
    both = pools("ab", a=(SHARED,), b=(SHARED,))
    await lab.becomes(*both)
    await lab.becomes(*both, a_config("c"))
    assert [pool for pool, _ in lab.refused] == [PoolKey("builds", "b")]
    await lab.becomes(*pools("ab", b=(SHARED,)))
    assert lab.names == {SHARED: "builds/b"}
    await lab.becomes(*both)
    assert lab.names == {SHARED: "builds/b"}
    refusals = [(pool.name, why is not None) for pool, why in lab.refused]
    assert refusals == [("b", True), ("b", False), ("a", True)]


async def test_of_a_refused_pool_that_goes_nothing_is_left(lab: PublisherLab) -> None:
    await lab.becomes(*pools("ab", a=(SHARED,), b=(SHARED,)))
    await lab.becomes(*pools("a", a=(SHARED,)))
    assert lab.refused[1:] == [(PoolKey("builds", "b"), None)]


async def test_a_pool_whose_certificates_change_keeps_its_chain(lab: PublisherLab) -> None:
    await lab.becomes(a_config(issue="first"))
    await lab.becomes(a_config(issue="second"))
    before, after = lab.recorder.published
    assert before[LISTENER] == after[LISTENER]
    assert before[CLUSTER] == after[CLUSTER]
    assert before[SECRET].keys() == after[SECRET].keys()
    assert before[SECRET] != after[SECRET]


async def test_a_change_costs_what_has_changed_and_not_all_pools(
    lab: PublisherLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain takes milliseconds, in which nothing else is answered."""
    made: list[str] = []
    make = resources.chain

    def chain(config: PoolConfig, limits: Limits) -> FilterChain:
        made.append(config.key.name)
        return make(config, limits)

    monkeypatch.setattr(resources, "chain", chain)
    await lab.becomes(*pools("abc"))
    await lab.becomes(*pools("abcd"))
    assert made == ["a", "b", "c", "d"]
    await lab.becomes(a_config("a", issue="second"), *pools("bcd"))
    before, after = (snapshot[LISTENER]["gateway"] for snapshot in lab.recorder.published[-2:])
    assert after is before, "other certificates are no other listener"
    await lab.becomes(*pools("abcd", b=(SHARED,)))
    assert made == ["a", "b", "c", "d", "b"]
    assert lab.names == {SHARED: "builds/b"}


async def test_the_listener_is_put_together_as_it_would_be_made(lab: PublisherLab) -> None:
    """To make it of all chains takes long where there are many pools."""
    for names in ("", "b", "abc", "ac"):
        await lab.becomes(*pools(names))
        content = lab.recorder.published[-1][LISTENER]["gateway"].content
        found = listener_pb2.Listener.FromString(content.value)
        chains = [resources.chain(config, LIMITS) for config in pools(names)]
        assert found == resources.listener(chains, port=1234)


def taken(lab: PublisherLab, *missing: str) -> list[str]:
    """The pools of which it is news that Envoy has all by now; it lacks these resources."""
    has = lambda found: not {n for names in found.values() for n in names} & {*missing}  # noqa: E731
    return [key.name for key in lab.publisher.take(has)]


async def test_a_pool_is_served_once_envoy_has_its_listener_and_all_its_own(
    lab: PublisherLab,
) -> None:
    a, b = (a_config(name, acknowledgement=f"{name} as it is") for name in "ab")
    await lab.becomes(a, b)
    assert taken(lab, "gateway") == []
    assert lab.publisher.served_with(a.key) is None
    assert taken(lab, "builds/a/server") == ["b"]
    assert taken(lab) == ["a"]
    assert taken(lab) == [], "it is no news any more"
    assert lab.publisher.served_with(a.key) == "a as it is"


async def test_a_pool_is_served_as_before_until_envoy_has_it_otherwise(lab: PublisherLab) -> None:
    before = a_config(acknowledgement="before")
    await lab.becomes(before)
    assert taken(lab) == ["ci"]
    await lab.becomes(a_config(acknowledgement="after", issue="second"))
    assert taken(lab, "builds/ci/server") == []
    assert lab.publisher.served_with(before.key) == "before"
    assert taken(lab) == ["ci"]
    assert lab.publisher.served_with(before.key) == "after"
    await lab.becomes()
    assert lab.publisher.served_with(before.key) is None
