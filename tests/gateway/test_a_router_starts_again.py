"""The router ends, and another one begins: builds and clients that wait do not notice."""

from __future__ import annotations

import grpc.aio
import pytest

from buildpool.buildkit import protobuf
from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, asked, begun, home_of, times_asked
from gateway.lab import BRIDGE, CONTROL, Lab, PoolLab, call


async def test_a_build_outlives_the_router_and_a_client_that_waits_goes_on_waiting(
    lab: Lab,
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE)
        waiting = begun(second, HELLO)
        await lab.queued(pool, 1)
        await lab.stop_router()
        await lab.comes_to("cluster.router.upstream_cx_active", 0)
        builder.release.set()
        assert await running
        await lab.start_router()
        # These daemons name no build: the slot is free once its connection has ended.
        await first.close()
        assert await waiting


async def is_heard(lab: Lab, channel: grpc.aio.Channel, kind: str) -> None:
    """Waits until Envoy has the router's first answer to the one request of this kind.

    Its answers come in their order: with a later one, Envoy has those before it.
    """
    answered = lambda: lab.metric("decision_seconds_count", kind=kind) == 1  # noqa: E731
    await until(answered, f"the router has answered the {kind}")
    await call(channel, f"{CONTROL}Info")


@pytest.mark.parametrize("is_status_first", [True, False])
async def test_a_solve_that_is_being_read_outlives_the_router_and_what_is_its_own_follows(
    lab: Lab, is_status_first: bool
) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        ask = lambda: begun(channel, f"{CONTROL}Status", protobuf.field(1, b"ref"))  # noqa: E731
        if is_status_first:
            status = ask()
            await is_heard(lab, channel, "status")
        solve = channel.stream_unary(SOLVE)(timeout=60)
        await solve.write(a_solve())
        await is_heard(lab, channel, "solve")
        if not is_status_first:
            status = ask()
            await is_heard(lab, channel, "status")
        await lab.stop_router()
        await solve.done_writing()
        home = await home_of(builders)
        assert home.name.encode() in await status
        await lab.start_router()
        session = channel.stream_stream(f"{CONTROL}Session")(timeout=60)
        await asked(home, f"{CONTROL}Session")
        session.cancel()
        home.release.set()
        assert await solve


async def test_what_belongs_to_a_build_finds_it_though_the_router_is_another_one(lab: Lab) -> None:
    """Daemons do not name internal builds, and these name none."""
    pool = PoolLab(slots=4)
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve("the ref"))
        home = await home_of(builders)
        await lab.stop_router()
        await lab.start_router()
        about = {"buildkit-controlapi-buildid": "the ref"}
        assert home.name.encode() in await call(channel, f"{BRIDGE}Return", headers=about)
        linked = begun(channel, SOLVE, a_solve("another ref"))
        await asked(home, SOLVE, 2)
        home.release.set()
        assert await running
        assert await linked


async def test_a_build_that_waits_at_its_session_waits_on_though_the_router_is_another_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``client.Solve`` of BuildKit's library does: its session is on the builder before it."""
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SESSION_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.1)
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.names_builds = True
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve("of the first"))
        await asked(builder, SOLVE)
        session = second.stream_stream(f"{CONTROL}Session")(timeout=60)
        waiting = begun(second, SOLVE, a_solve("of the second"))
        await asked(builder, f"{CONTROL}Session")
        await lab.stop_router()
        await lab.start_router()
        await lab.queued(pool, 1)  # Envoy has asked again
        assert times_asked(builder, SOLVE) == 1
        builder.release.set()
        assert await running
        assert await waiting
        session.cancel()


async def test_a_connection_whose_build_ended_while_no_router_was_there_waits_as_any_other(
    lab: Lab,
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.names_builds = True
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve("of the first"))
        await asked(builder, SOLVE)
        await lab.stop_router()
        builder.release.set()
        assert await running
        builder.release.clear()
        await lab.start_router()
        await call(second, HELLO)
        another = begun(second, SOLVE, a_solve("of the second"))
        await asked(builder, SOLVE, 2)
        waiting = begun(first, SOLVE, a_solve("the next of the first"))
        await lab.queued(pool, 1)
        assert times_asked(builder, SOLVE) == 2
        builder.release.set()
        assert await another
        assert await waiting
