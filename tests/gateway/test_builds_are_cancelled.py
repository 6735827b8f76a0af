"""Builds that somebody who may change the pool wants to end, with a real Envoy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import grpc

from buildpool.core.api.cancellation import request_for
from buildpool.gateway.ext_proc.running import CANCELLED_WORDS
from buildpool.process import utc_now
from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, begun, home_of, refusal
from gateway.lab import Lab, PoolLab, call

CANCELLED = (grpc.StatusCode.CANCELLED, CANCELLED_WORDS)


def ask(lab: Lab, pool: PoolLab, *refs: str, ago: timedelta = timedelta(0)) -> None:
    """Somebody asks for the end of builds, and the operator hands it on."""
    asked = request_for(refs, utc_now() + timedelta(minutes=2) - ago)
    lab.source.configs[pool.key] = replace(lab.source.configs[pool.key], cancel=asked)
    lab.source.changed(pool.key)


async def test_a_build_that_is_cancelled_ends_at_its_client_and_at_its_builder(lab: Lab) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        ended, goes_on = (begun(channel, SOLVE, a_solve(ref)) for ref in ("one", "other"))
        home = await home_of(builders, 2)
        await until(lambda: sorted(home.running) == ["one", "other"], "both run")
        ask(lab, pool, "one")
        assert await refusal(ended) == CANCELLED
        await until(lambda: home.running == ["other"], "its builder has ended it")
        # Asked for again, or beside another one, it harms nobody.
        ask(lab, pool, "one", "none")
        home.release.set()
        await goes_on
    lines = {line["build"]: line["result"] for line in await lab.build_log(2)}
    assert lines == {"one": "cancelled", "other": "succeeded"}


async def test_the_next_one_gets_its_slot(lab: Lab) -> None:
    pool = PoolLab(slots=1)
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as second:
        async with lab.connect(pool) as first:
            await call(first, HELLO)
            solve = begun(first, SOLVE, a_solve("one"))
            await until(lambda: builder.running == ["one"], "it runs")
            waits = begun(second, HELLO)
            await lab.queued(pool, 1)
            ask(lab, pool, "one")
            assert await refusal(solve) == CANCELLED
        await waits


async def test_a_build_that_was_asked_to_end_just_before_it_began_ends(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool, "ci-builder-0")
    ask(lab, pool, "one")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        assert await refusal(begun(channel, SOLVE, a_solve("one"))) == CANCELLED


async def test_an_old_request_ends_no_build(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    ask(lab, pool, "one", ago=timedelta(minutes=3))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        await call(channel, SOLVE, a_solve("one"))


async def test_another_pools_build_of_the_same_ref_goes_on(lab: Lab) -> None:
    pools = (PoolLab("ci"), PoolLab("web"))
    homes = [(await lab.add_pool(pool, f"{pool.key.name}-builder-0"))[0] for pool in pools]
    async with lab.connect(pools[0]) as first, lab.connect(pools[1]) as second:
        solves = []
        for channel in (first, second):
            await call(channel, HELLO)
            solves.append(begun(channel, SOLVE, a_solve("one")))
        await until(lambda: all(home.running for home in homes), "both run")
        ask(lab, pools[0], "one")
        assert await refusal(solves[0]) == CANCELLED
        homes[1].release.set()
        await solves[1]
