"""The metrics of the gateway after builds of which all is known."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from buildpool.core.api import Inject
from buildpool.gateway.pools import served
from daemons import until
from gateway.asking import (
    CACHE,
    HELLO,
    SOLVE,
    a_full_client,
    a_solve,
    about,
    asked,
    begun,
    home_of,
    refusal,
)
from gateway.lab import BRIDGE, CONTROL, FakeBuilder, Lab, PoolLab, call


async def build(lab: Lab, pool: PoolLab, client: str = "ann", source: str = "") -> None:
    """A build from its first word to its end, on a connection of its own."""
    async with lab.connect(pool, pool.client(client)) as channel:
        await call(channel, HELLO)
        await call(channel, SOLVE, a_solve(f"{client} {source}", source=source))


async def test_builds_that_wait_are_counted_by_client_for_as_long_as_they_wait(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    channels = [lab.connect(pool, pool.client(name)) for name in ("ann", "ann", "ann", "bob")]
    first, *others = channels
    await call(first, HELLO)
    running = begun(first, SOLVE, a_solve())
    await asked(builder, SOLVE)
    waiting = [begun(channel, HELLO) for channel in others]
    await lab.queued(pool, 3)
    count = lambda name: lab.metric("waiting", namespace="builds", pool="ci", client=name)  # noqa: E731
    assert (count("ann"), count("bob")) == (2, 1)
    builder.release.set()
    await running
    await until(lambda: (count("ann"), count("bob")) == (2, 0), "one of bob has its turn")
    for task in waiting:
        task.cancel()
    await until(lambda: count("ann") == 0, "nobody waits any more")
    for channel in channels:
        await channel.close()


async def test_how_long_builds_waited_is_measured_by_client(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as first, lab.connect(pool, pool.client("bob")) as second:
        began = time.monotonic()
        waiting = begun(first, HELLO)
        await lab.queued(pool, 1)
        await asyncio.sleep(0.6)
        (builder,) = await lab.add_pool(pool, "ci-builder-0")
        builder.release.set()
        await waiting
        waited = time.monotonic() - began
        await call(first, SOLVE, a_solve("one"))
        await call(first, SOLVE, a_solve("linked"))
        began = time.monotonic()
        await call(second, HELLO)
        waited_hardly = time.monotonic() - began
        await call(second, SOLVE, a_solve("two"))
    seconds = lambda part, **labels: lab.metric(f"wait_seconds_{part}", **labels)  # noqa: E731
    assert 0.6 <= seconds("sum", client="ann") <= waited
    assert seconds("bucket", client="ann", le="0.5") == 0
    assert seconds("count", client="ann") == 1, "a connection waits once, however much it builds"
    assert seconds("sum", client="bob") <= waited_hardly
    assert seconds("count", client="bob") == 1


async def test_builds_are_counted_by_client_and_by_how_they_ended(lab: Lab) -> None:
    pool = PoolLab(slots=9)
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    await build(lab, pool)
    await build(lab, pool)
    await build(lab, pool, "bob")
    builder.failure = "exit code 1"
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        await refusal(begun(channel, SOLVE, a_solve("it fails")))
    builder.release.clear()
    async with lab.connect(pool) as left, lab.connect(pool) as lost:
        await call(left, HELLO)
        abandoned = begun(left, SOLVE, a_solve("its client leaves"))
        await call(lost, HELLO)
        doomed = begun(lost, SOLVE, a_solve("its builder goes"))
        await asked(builder, SOLVE, 6)
        abandoned.cancel()
        await until(lambda: lab.metric("builds_total", result="abandoned") == 1, "it is counted")
        builder.vanish()
        await refusal(doomed)
    await until(lambda: lab.metric("builds_total") == 6, "all are counted")
    count = lambda client, result: lab.metric("builds_total", client=client, result=result)  # noqa: E731
    results = ("succeeded", "failed", "abandoned", "lost")
    assert [count("ann", result) for result in results] == [2, 1, 1, 1]
    assert [count("bob", result) for result in results] == [1, 0, 0, 0]


def placements(lab: Lab) -> list[float]:
    """How often builders were favourites, were none, and were chosen by an earlier build."""
    choices = ("favourite", "spilled", "kept")
    return [lab.metric("placements_total", pool="ci", choice=choice) for choice in choices]


async def test_placements_say_why_a_build_got_its_builder(lab: Lab) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, "ci-builder-0", "ci-builder-1")
    source = "github.com/acme/app"
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve("one", source=source))
        home = await home_of(builders)
        assert placements(lab) == [1, 0, 0]
        linked = begun(first, SOLVE, a_solve("two", source="github.com/acme/lib"))
        await asked(home, SOLVE, 2)
        assert placements(lab) == [1, 0, 1]
        (other,) = (builder for builder in builders if builder is not home)
        other.release.set()
        await call(second, HELLO)
        await call(second, SOLVE, a_solve("three", source=source))
        assert placements(lab) == [1, 1, 1]
        home.release.set()
        assert await running
        assert await linked


async def test_caches_that_were_added_are_counted_by_what_they_are_for(lab: Lab) -> None:
    ann, bob = a_full_client(), a_full_client("bob", inject=Inject.IMPORT, may_export=False)
    pool = PoolLab(cache=CACHE, clients=(ann, bob, a_full_client("cid", inject=Inject.NONE)))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    for client in ("ann", "bob", "cid"):
        await build(lab, pool, client, source="github.com/acme/app")
    assert lab.metric("cache_added_total", pool="ci", what="import") == 2
    assert lab.metric("cache_added_total", pool="ci", what="export") == 1


async def test_decisions_are_measured_by_what_was_asked(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        began = time.monotonic()
        await call(channel, f"{BRIDGE}Return", headers=about("ref"))
        await call(channel, f"{BRIDGE}Ping", headers=about("ref"))
        took = time.monotonic() - began
        await call(channel, f"{CONTROL}Info")
        builder.release.set()
        await running
    times = lambda kind: lab.metric("decision_seconds_count", kind=kind)  # noqa: E731
    assert {kind: times(kind) for kind in ("hello", "solve", "bridge", "question", "session")} == {
        "hello": 1,
        "solve": 1,
        "bridge": 2,
        "question": 1,
        "session": 0,
    }
    assert 0 < lab.metric("decision_seconds_sum", kind="bridge") < took


async def test_refusals_are_counted_by_client_and_reason(lab: Lab) -> None:
    pool = PoolLab(max_wait=timedelta(seconds=0.3))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool, pool.client("bob")) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE)
        await refusal(begun(second, HELLO))
        builder.release.set()
        await running
    async with lab.connect(pool, pool.client("mallory")) as stranger:
        await refusal(begun(stranger, HELLO))
    count = lambda client, reason: lab.metric(  # noqa: E731
        "refused_total", namespace="builds", pool="ci", client=client, reason=reason
    )
    assert count("bob", "RESOURCE_EXHAUSTED") == 1
    assert count("", "PERMISSION_DENIED") == 1, "what a stranger calls itself is no label"
    assert lab.metric("refused_total", pool="ci") == 2


async def test_of_a_pool_that_is_gone_nothing_is_shown(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RESTORED", timedelta(seconds=0.5))
    pool, other = PoolLab(), PoolLab(name="other")
    builders: list[FakeBuilder] = []
    for each in (pool, other):
        builders += await lab.add_pool(each, f"{each.name}-builder-0")
    for builder in builders:
        builder.release.set()
    await build(lab, pool)
    await build(lab, other)
    await until(lambda: lab.metric("builds_total") == 2, "both are counted")
    del lab.source.configs[pool.key]
    lab.source.changed(pool.key)
    await until(lambda: lab.metric("builds_total") == 1, "it is forgotten")
    shown = {
        sample.labels["pool"]
        for metric in lab.metrics.registry.collect()
        for sample in metric.samples
        if "pool" in sample.labels
    }
    assert shown == {"other"}
