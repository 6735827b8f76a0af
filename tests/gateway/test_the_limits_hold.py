"""Each limit of the gateway, hit by a client of one pool while those of another are served.

The numbers are lower than those of the product, which unit tests of what Envoy is given hold.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from buildpool.gateway.pools import bounds
from buildpool.gateway.xds.limits import Limits, Rate
from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, asked, begun, refusal, times_asked
from gateway.lab import CONTROL, FakeBuilder, Lab, PoolLab, a_gateway, call
from limits import patience

INFO = f"{CONTROL}Info"
POOL, OTHER = PoolLab(slots=20), PoolLab("other", slots=20)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 begins with."""


class TwoPools:
    """A gateway with limits, and two pools of one builder each."""

    def __init__(self, lab: Lab, builder: FakeBuilder) -> None:
        self.lab = lab
        self.builder = builder
        """Of the pool whose clients ask for too much."""

    async def others_are_served(self) -> None:
        """A client of the other pool gets its answer, and soon."""
        async with self.lab.connect(OTHER) as channel:
            assert await call(channel, HELLO, within=patience(5))

    async def there_is_room(self, pool: PoolLab) -> None:
        """A client gets its answer: what has ended makes room for it, but a moment later."""
        async with asyncio.timeout(patience(10)):
            while True:
                async with self.lab.connect(pool) as channel:
                    with suppress(grpc.aio.AioRpcError):
                        assert await call(channel, INFO)
                        return


@asynccontextmanager
async def two_pools(
    folder: Path, limits: Limits | None = None, **more: int
) -> AsyncIterator[TwoPools]:
    async with a_gateway(folder, limits or Limits(), **more) as lab:
        (builder,) = await lab.add_pool(POOL, "ci-builder-0")
        await lab.add_pool(OTHER, "other-builder-0")
        yield TwoPools(lab, builder)


async def connected(lab: Lab, stack: AsyncExitStack, number: int) -> list[grpc.aio.Channel]:
    """So many connections to the pool, which all have got an answer."""
    channels = [await stack.enter_async_context(lab.connect(POOL)) for _ in range(number)]
    await asyncio.gather(*(call(channel, INFO) for channel in channels))
    return channels


async def is_hung_up_on(lab: Lab, pool: PoolLab = POOL) -> None:
    async with lab.connect(pool) as channel:
        code, _ = await refusal(begun(channel, INFO))
        assert code is grpc.StatusCode.UNAVAILABLE


async def a_silent_client_is_hung_up_on(lab: Lab, folder: Path) -> None:
    """It begins with HTTP/2 and says no word more, not even that it is there."""
    client = POOL.client()
    for name, content in (("c", client.pair.certificate), ("k", client.pair.key)):
        (folder / name).write_bytes(content)
    context = ssl.create_default_context(cadata=POOL.authority.certificate.decode())
    context.load_cert_chain(folder / "c", folder / "k")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", lab.port, ssl=context, server_hostname=f"{POOL.name}.{POOL.namespace}.svc"
    )
    writer.write(PREFACE)
    async with asyncio.timeout(patience(10)):
        with suppress(OSError):
            await reader.read()
    writer.close()


async def test_a_pool_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with two_pools(tmp_path, Limits(connections=3)) as pools, AsyncExitStack() as stack:
        (first, *_) = await connected(pools.lab, stack, 3)
        await is_hung_up_on(pools.lab)
        await pools.others_are_served()
        assert await call(first, INFO), "those that are there stay"
        await first.close()
        await pools.there_is_room(POOL)


async def test_all_pools_have_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with two_pools(tmp_path, connections=3) as pools, AsyncExitStack() as stack:
        (first, *_) = await connected(pools.lab, stack, 3)
        await is_hung_up_on(pools.lab)
        await is_hung_up_on(pools.lab, OTHER)
        assert await call(first, INFO), "those that are there stay"
        await first.close()
        await pools.there_is_room(OTHER)


async def test_a_connection_has_so_many_requests_and_the_next_one_waits_for_their_end(
    tmp_path: Path,
) -> None:
    async with two_pools(tmp_path, Limits(streams=4)) as pools:
        builder = pools.builder
        async with pools.lab.connect(POOL) as channel:
            await call(channel, HELLO)
            running = [begun(channel, SOLVE, a_solve(f"ref {number}")) for number in range(4)]
            await asked(builder, SOLVE, 4)
            fifth = begun(channel, SOLVE, a_solve("the fifth"))
            await pools.others_are_served()
            async with pools.lab.connect(POOL) as another:
                assert await call(another, HELLO), (
                    "another connection of the same client has its own"
                )
            assert times_asked(builder, SOLVE) == 4
            running.pop().cancel()
            await asked(builder, SOLVE, 5)
            builder.release.set()
            assert all(await asyncio.gather(fifth, *running))


@pytest.mark.parametrize(
    ("limits", "is_shared"),
    [
        (Limits(connection_rate=Rate(1, 5)), False),
        (Limits(pool_rate=Rate(1, 5)), True),
    ],
    ids=["connection", "pool"],
)
async def test_who_asks_too_often_is_refused_for_a_while(
    tmp_path: Path, limits: Limits, is_shared: bool
) -> None:
    async with two_pools(tmp_path, limits) as pools:
        async with pools.lab.connect(POOL) as channel:
            asks = [begun(channel, INFO) for _ in range(10)]
            answers = await asyncio.gather(*asks, return_exceptions=True)
            refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
            assert 1 <= len(refused) <= 5
            for each in refused:
                assert each.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert each.details() == "local_rate_limited"
            async with pools.lab.connect(POOL) as neighbour:
                again = await asyncio.gather(
                    *(call(neighbour, INFO) for _ in range(5)), return_exceptions=True
                )
            assert any(isinstance(each, grpc.aio.AioRpcError) for each in again) == is_shared
            await pools.others_are_served()
            async with asyncio.timeout(patience(10)):
                while True:
                    with suppress(grpc.aio.AioRpcError):
                        assert await call(channel, INFO)
                        break
        assert times_asked(pools.builder, INFO) < 20


async def test_who_asks_without_end_costs_only_itself_and_no_build_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_REQUESTS_OF_CLIENT", 3)
    monkeypatch.setattr(bounds, "MAX_REQUESTS", 4)
    full = PoolLab()
    async with a_gateway(tmp_path) as lab, lab.connect(full) as first, lab.connect(full) as second:
        (builder,) = await lab.add_pool(full, "ci-builder-0")
        await lab.add_pool(OTHER, "other-builder-0")
        await call(first, HELLO)
        running = [begun(first, SOLVE, a_solve())]
        await asked(builder, SOLVE)
        held = [begun(second, HELLO) for _ in range(3)]
        await until(lambda: lab.held(full) == 3, "three requests are held")
        code, why = await refusal(begun(second, HELLO))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert why == (
            "pool builds/ci: 3 requests of this client wait already; "
            "end some, or wait for their end"
        )
        assert await call(first, INFO), "what its build needs"
        running += [begun(first, SOLVE, a_solve(f"linked {number}")) for number in range(2)]
        await asked(builder, SOLVE, 3)
        code, why = await refusal(begun(first, SOLVE, a_solve("one too many")))
        assert "3 requests of this client go on already" in why
        async with lab.connect(OTHER) as neighbour:
            assert await call(neighbour, HELLO)
        held.pop().cancel()
        await until(lambda: lab.held(full) == 2, "one has given up")
        held.append(begun(second, HELLO))
        await until(lambda: lab.held(full) == 3, "another one is held")
        builder.release.set()
        assert all(await asyncio.gather(*running, *held))


async def test_a_client_that_is_gone_without_a_word_is_hung_up_on(tmp_path: Path) -> None:
    # On a busy machine a client that is there may take a second or two to say so.
    soon = Limits(ping_interval=timedelta(seconds=0.2), ping_patience=timedelta(seconds=5))
    async with two_pools(tmp_path, soon) as pools, pools.lab.connect(POOL) as alive:
        await call(alive, HELLO)
        running = begun(alive, SOLVE, a_solve())
        await asked(pools.builder, SOLVE)
        await a_silent_client_is_hung_up_on(pools.lab, tmp_path)
        await pools.others_are_served()
        pools.builder.release.set()
        assert await running, "a client that answers stays, whatever it asks"


async def test_a_connection_without_any_request_is_closed_and_one_with_a_build_is_not(
    tmp_path: Path,
) -> None:
    soon = Limits(idle=timedelta(seconds=0.5))
    async with two_pools(tmp_path, soon) as pools, AsyncExitStack() as stack:
        (building,) = await connected(pools.lab, stack, 1)
        running = begun(building, SOLVE, a_solve())
        await asked(pools.builder, SOLVE)
        await connected(pools.lab, stack, 3)
        await pools.lab.comes_to("http.gateway.downstream_cx_http2_active", 1)
        await pools.others_are_served()
        pools.builder.release.set()
        assert await running


async def test_a_connection_that_is_too_old_takes_nothing_new_and_its_build_goes_on(
    tmp_path: Path,
) -> None:
    soon = Limits(oldest=timedelta(seconds=3))
    async with two_pools(tmp_path, soon) as pools, pools.lab.connect(POOL) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(pools.builder, SOLVE)
        await pools.lab.comes_to("http.gateway.downstream_cx_max_duration_reached", 1)
        assert await call(channel, INFO), "by another connection"
        assert await pools.lab.counted("http.gateway.downstream_cx_http2_total") == 2
        await pools.others_are_served()
        assert not running.done()
        pools.builder.release.set()
        assert await running
