"""Clients that do not belong here are refused, and those that take too much are bounded."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from buildpool.buildkit import protobuf
from buildpool.core.pki import Bundle
from buildpool.gateway.ext_proc import bodies
from buildpool.gateway.slots.store import ConnectionStore
from buildpool.process import utc_now
from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, asked, begun
from gateway.lab import CONTROL, Lab, PoolLab, call
from limits import patience

A_SOLVE = protobuf.field(1, b"ref")


async def refused(channel: grpc.aio.Channel, method: str = HELLO) -> grpc.aio.AioRpcError:
    """How a request failed."""
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(channel, method)
    return error.value


async def refusals(lab: Lab, reason: str, *, pool: str = "ci") -> float:
    """How often a pool refused strangers for this reason; waits until it did."""
    count = lambda: lab.metric("refused_total", pool=pool, client="", reason=reason)  # noqa: E731
    await until(lambda: count() > 0, f"{reason} is counted", within=5)
    return count()


async def serves_on(lab: Lab, pool: PoolLab) -> None:
    """Others are not affected."""
    async with lab.connect(pool) as channel:
        assert await call(channel, HELLO)


@pytest.fixture
async def pool(lab: Lab) -> PoolLab:
    """A pool with one builder."""
    pool = PoolLab(slots=10)
    await lab.add_pool(pool, "ci-builder-0")
    return pool


async def test_a_certificate_of_another_pool_opens_nothing(lab: Lab, pool: PoolLab) -> None:
    other = PoolLab(name="other")
    await lab.add_pool(other, "other-builder-0")
    stolen = Bundle(other.client().pair, trust=pool.authority.certificate)
    error = await refused(lab.connect(pool, stolen))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert await refusals(lab, "TLS")
    await serves_on(lab, pool)


async def test_an_expired_certificate_opens_nothing(lab: Lab, pool: PoolLab) -> None:
    expired = pool.client(lifetime=timedelta(hours=1), ago=timedelta(hours=2))
    error = await refused(lab.connect(pool, expired))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert await refusals(lab, "TLS")


async def test_without_a_certificate_nothing_opens(lab: Lab, pool: PoolLab) -> None:
    credentials = grpc.ssl_channel_credentials(pool.authority.certificate)
    name = f"{pool.name}.{pool.namespace}.svc"
    channel = grpc.aio.secure_channel(
        f"127.0.0.1:{lab.port}",
        credentials,
        options=[("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0)],
    )
    error = await refused(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert await refusals(lab, "TLS")


async def test_a_certificate_that_belongs_to_no_client_builds_nothing(
    lab: Lab, pool: PoolLab
) -> None:
    error = await refused(lab.connect(pool, pool.client("mallory")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "mallory is not among access.clients of pool builds/ci" in (error.details() or "")
    assert await refusals(lab, "PERMISSION_DENIED") == 1


async def test_a_builders_or_the_gateways_own_certificate_builds_nothing(
    lab: Lab, pool: PoolLab
) -> None:
    config = lab.source.configs[pool.key]
    own = Bundle(config.upstream, trust=pool.authority.certificate)
    error = await refused(lab.connect(pool, own))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_client_that_is_removed_builds_what_it_builds_and_nothing_more(
    lab: Lab, pool: PoolLab
) -> None:
    (builder,) = lab.fakes
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, A_SOLVE)
        await asked(builder, SOLVE)
        brief = lab.source.configs[pool.key].brief
        left = tuple(client for client in brief.clients if client.name != "ann")
        await lab.becomes(pool, pool.config(clients=left))
        linked = begun(channel, SOLVE, A_SOLVE)
        await asked(builder, SOLVE, 2)
        builder.release.set()
        assert await running
        assert await linked, "what belongs to a build that runs"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(channel, HELLO)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    denied = await refused(lab.connect(pool))
    assert denied.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_name_that_no_pool_has_is_hung_up_on(lab: Lab, pool: PoolLab) -> None:
    error = await refused(lab.connect(pool, name="nobody.example.com"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert await refusals(lab, "NO_POOL", pool="")
    await serves_on(lab, pool)


@pytest.mark.parametrize(
    "header", ["x-envoy-original-dst-host", "builder", ":authority", "host", "x-forwarded-for"]
)
async def test_no_header_of_a_client_names_the_builder(
    lab: Lab, pool: PoolLab, header: str
) -> None:
    other = PoolLab(name="other")
    (theirs,) = await lab.add_pool(other, "other-builder-0")
    async with lab.connect(pool) as channel:
        name = header.lstrip(":") if header.startswith(":") else header
        answer = await call(channel, HELLO, headers={name: f"127.0.0.1:{theirs.port}"})
    assert b"ci-builder-0" in answer
    assert theirs.asked == []


async def test_a_client_does_not_say_which_connection_its_own_is(lab: Lab, pool: PoolLab) -> None:
    """Else each request could be a connection of its own, whose end is never logged."""
    connections = lab.router.pools.each()[0].scheduler.connections
    async with lab.connect(pool) as channel:
        for number in range(3):
            await call(channel, HELLO, headers={"x-forwarded-for": f"192.0.2.{number}"})
        assert connections.has_connections
    await until(lambda: not connections.has_connections, "the router knows that it has ended")


async def test_what_is_no_method_of_buildkit_reaches_no_builder(lab: Lab, pool: PoolLab) -> None:
    error = await refused(lab.connect(pool), "/grpc.reflection.v1.ServerReflection/Any")
    assert error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN)


async def test_garbage_is_hung_up_on(lab: Lab, pool: PoolLab) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"\x16\x03\x01\xff\xff"):
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        writer.write(garbage)
        async with asyncio.timeout(patience(15)):
            with suppress(OSError):
                await reader.read()
        writer.close()
    await serves_on(lab, pool)


async def test_garbage_within_a_connection_ends_that_one_alone(
    lab: Lab, pool: PoolLab, tmp_path: Path
) -> None:
    client = pool.client()
    for name, content in (("c", client.pair.certificate), ("k", client.pair.key)):
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(cadata=pool.authority.certificate.decode())
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", lab.port, ssl=context, server_hostname=f"{pool.name}.{pool.namespace}.svc"
    )
    writer.write(b"this is no HTTP/2 " * 100)
    async with asyncio.timeout(patience(10)):
        with suppress(OSError):
            await reader.read()
    writer.close()
    await serves_on(lab, pool)


async def test_five_hundred_connections_of_one_client_cost_another_nothing_but_its_turn(
    lab: Lab,
) -> None:
    pool = PoolLab(slots=1)
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    active, theirs = "http.gateway.downstream_cx_http2_active", pool.client("ann")
    crowd = [lab.connect(pool, theirs) for _ in range(500)]
    holder, *eager = crowd[:100]
    waiting: list[asyncio.Task[bytes]] = []
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in crowd))
        await lab.comes_to(active, 500)
        await call(holder, HELLO)
        running = begun(holder, SOLVE, A_SOLVE)
        await asked(builder, SOLVE)
        waiting += (begun(channel, HELLO) for channel in eager)
        await lab.queued(pool, 99)
        async with lab.connect(pool, pool.client("bob")) as channel:
            mine = begun(channel, HELLO)
            await lab.queued(pool, 100)
            builder.release.set()
            assert await running
            assert await asyncio.wait_for(mine, timeout=patience(2))
            assert not any(task.done() for task in waiting)
            assert await call(channel, SOLVE, a_solve("of bob"), within=patience(2))
    finally:
        await asyncio.gather(*(channel.close() for channel in crowd))
        await asyncio.gather(*waiting, return_exceptions=True)
        waiting.clear()  # gRPC hangs up once nothing refers to a call any more
    await until(
        lambda: not lab.connections(pool).has_connections, "the router knows that all ended"
    )
    assert lab.metric("waiting", pool=pool.name) == 0
    assert ConnectionStore(lab.folder / "router.db", now=utc_now()).recall(pool.key) == []
    await lab.comes_to(active, 0)
    await serves_on(lab, pool)


async def test_a_client_that_never_reads_holds_up_nobody_else(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.1)
    pool = PoolLab(slots=10)
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.floods = True
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        session = channel.stream_stream(f"{CONTROL}Session")(timeout=60)
        sent = -1
        async with asyncio.timeout(30):
            while sent != builder.sent or not sent:
                sent = builder.sent
                await asyncio.sleep(0.4)
        assert sent < 128 << 20, "what lies between them is bounded"
        await serves_on(lab, pool)
        session.cancel()


async def test_a_message_that_never_ends_is_refused(
    lab: Lab, pool: PoolLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.0)
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        solve = channel.stream_unary(SOLVE)(timeout=20)
        await solve.write(A_SOLVE)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await solve
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "did not come within 1 s" in (error.value.details() or "")
    await serves_on(lab, pool)


async def test_an_address_in_a_brief_is_no_way_to_another_pools_builder(
    lab: Lab, pool: PoolLab
) -> None:
    other = PoolLab(name="other")
    await lab.add_pool(other, "other-builder-0")
    lab.source.known[pool.key] = lab.source.known[other.key]
    lab.source.changed(pool.key)
    error = await refused(lab.connect(pool))
    assert error.code() is grpc.StatusCode.UNAVAILABLE, "its certificate is of another authority"
