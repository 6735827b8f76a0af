"""The history of a pool behind a real Envoy: that of all its builders, as if they were one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from buildpool.buildkit import BuildEventKind, daemon, protobuf
from buildpool.buildkit.history import METHOD as LISTEN
from buildpool.buildkit.history import read_event
from buildpool.buildkit.methods import CONTENT
from buildpool.gateway import histories
from buildpool.gateway.histories import TIMESTAMP
from buildpool.gateway.pools import served
from buildpool.gateway.pools.bounds import MAX_LISTS
from buildpool.gateway.pools.listeners import MAX_LISTENERS_OF_CLIENT
from buildpool.gateway.pools.tickets import HEADER
from buildpool.gateway.xds.bootstrap import ROUTER_SOCKET
from daemons import until
from gateway.asking import HELLO, SOLVE, a_full_client, a_solve, asked, begun, times_asked
from gateway.builders import FakeBuilder
from gateway.lab import CONTROL, Lab, PoolLab, call
from limits import patience

END = protobuf.number_field(3, 1)
"""A request for what there is, and for no more."""
TRACE = ("traceparent", "00-a7ef407337275e9c68174b98a1630036-3870fdab9e18b99f-01")
"""What buildx and buildctl send with each request of a build."""


def listen(
    channel: grpc.aio.Channel, request: bytes = b"", **headers: str
) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
    """Asks for the history."""
    return channel.unary_stream(LISTEN)(request, metadata=tuple(headers.items()))


async def listed(channel: grpc.aio.Channel, request: bytes = END, **headers: str) -> list[str]:
    """The refs of the builds that are listed."""
    answer = listen(channel, request, **headers)
    return [read_event(event).build.ref async for event in answer]


async def heard(answer: grpc.aio.UnaryStreamCall[bytes, bytes]) -> tuple[BuildEventKind, str]:
    """The next event."""
    async with asyncio.timeout(patience(10)):
        event = read_event(await answer.read())
    return event.kind, event.build.ref


async def two_builders(lab: Lab, pool: PoolLab) -> list[FakeBuilder]:
    """Builders with records, that say what they run."""
    builders = await lab.add_pool(pool, "ci-builder-0", "ci-builder-1")
    for builder, refs in zip(builders, (["a1", "a3"], ["b2", "b4"]), strict=True):
        builder.history, builder.names_builds = refs, True
    return builders


def drains(lab: Lab, pool: PoolLab, builder: FakeBuilder) -> None:
    """A builder is on its way out."""
    lab.source.known[pool.key] = tuple(
        replace(each, is_serving=False, is_leaving=True) if each.name == builder.name else each
        for each in lab.source.known[pool.key]
    )
    lab.source.changed(pool.key)


async def test_a_client_is_told_what_time_it_is_as_a_daemon_does(lab: Lab) -> None:
    pool = PoolLab()
    await two_builders(lab, pool)
    async with lab.connect(pool) as channel:
        answer = listen(channel, END)
        headers = dict(await answer.initial_metadata())
        assert str(headers[TIMESTAMP]).endswith("Z")
        assert len([event async for event in answer]) == 4


async def test_what_has_an_end_ends_and_what_has_none_goes_on_with_all_builders(lab: Lab) -> None:
    pool = PoolLab()
    builders = await two_builders(lab, pool)
    async with lab.connect(pool) as channel, lab.connect(pool, pool.client("bob")) as other:
        assert await listed(channel) == ["a1", "a3", "b2", "b4"]
        answer = listen(channel)
        found = [(await heard(answer))[1] for _ in range(4)]
        assert found == ["a1", "a3", "b2", "b4"]
        works = []
        for number, client in enumerate((channel, other)):
            await call(client, HELLO)
            works.append(begun(client, SOLVE, a_solve(f"new{number}")))
            assert await heard(answer) == (BuildEventKind.STARTED, f"new{number}")
        assert [times_asked(builder, SOLVE) for builder in builders] == [1, 1]
        for builder in builders:
            builder.release.set()
        ends = {await heard(answer), await heard(answer)}
        assert ends == {(BuildEventKind.COMPLETE, f"new{number}") for number in range(2)}
        answer.cancel()
        await asyncio.gather(*works)
        found = lab.router.pools.find(pool.key)
        assert found is not None
        records = found.records
        await until(lambda: not records.listeners.count, "nobody listens")


async def test_a_builder_that_comes_later_is_heard_too(lab: Lab) -> None:
    pool = PoolLab()
    await two_builders(lab, pool)
    late = FakeBuilder("ci-builder-2")
    lab.fakes.append(late)
    late.names_builds = True
    late.running.append("late")
    async with lab.connect(pool) as channel:
        answer = listen(channel, protobuf.number_field(1, 1))
        await answer.initial_metadata()
        found = lab.router.pools.find(pool.key)
        assert found is not None
        records = found.records
        await until(lambda: records.listeners.count == 1, "it listens")
        lab.source.known[pool.key] += (await late.start(pool),)
        lab.source.changed(pool.key)
        await until(lambda: bool(late.listeners), "the router listens to it")
        late.tell(BuildEventKind.STARTED, "late")
        assert await heard(answer) == (BuildEventKind.STARTED, "late")
        answer.cancel()


async def test_a_listener_to_one_build_hears_its_end(lab: Lab) -> None:
    pool = PoolLab()
    await two_builders(lab, pool)
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        work = begun(channel, SOLVE, a_solve("mine"))
        await until(lambda: any("mine" in b.running for b in lab.fakes), "it runs")
        answer = listen(channel, protobuf.field(2, b"mine"))
        assert await heard(answer) == (BuildEventKind.STARTED, "mine")
        for builder in lab.fakes:
            builder.release.set()
        assert await heard(answer) == (BuildEventKind.COMPLETE, "mine")
        answer.cancel()
        await work


async def test_who_finds_a_record_waits_for_no_builder_that_hangs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "DEADLINE", timedelta(hours=1))
    pool = PoolLab()
    _, second = await two_builders(lab, pool)
    second.forgets = True
    async with lab.connect(pool) as channel, asyncio.timeout(patience(20)):
        assert await listed(channel, END + protobuf.field(2, b"a1")) == ["a1"]


async def test_one_builder_that_hangs_costs_its_own_records_only(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "DEADLINE", timedelta(seconds=0.5))
    pool = PoolLab()
    _, second = await two_builders(lab, pool)
    async with lab.connect(pool) as channel:
        second.forgets = True
        assert await listed(channel) == ["a1", "a3"]
        second.forgets = False
        assert await listed(channel, END + protobuf.field(2, b"b2")) == ["b2"], "it has it alone"
        assert await listed(channel) == ["a1", "a3", "b2", "b4"]


@pytest.mark.parametrize("question", ["list", "Status", "UpdateBuildHistory", "Read"])
async def test_a_builder_that_is_gone_under_a_question_costs_its_own_records_only(
    lab: Lab, question: str
) -> None:
    """gRPC then says that the question was cancelled, and its client waited for ever."""
    pool = PoolLab()
    first, second = await two_builders(lab, pool)
    second.forgets = True
    async with lab.connect(pool) as channel:
        digest = protobuf.field(1, f"sha256:{7:064x}".encode())
        nobodys = protobuf.field(1, b"nobody")
        ask = {
            "list": lambda: listed(channel),
            "Status": lambda: call(channel, f"{CONTROL}Status", nobodys),
            "UpdateBuildHistory": lambda: call(channel, f"{CONTROL}UpdateBuildHistory", nobodys),
            "Read": lambda: call(channel, f"{CONTENT}Read", digest),
        }
        answer = asyncio.ensure_future(ask[question]())
        await until(lambda: second.hung > 0, "it is asked")
        lab.source.known[pool.key] = lab.source.known[pool.key][:1]
        lab.source.changed(pool.key)
        async with asyncio.timeout(patience(20)):
            found = await answer
        assert found == ["a1", "a3"] if question == "list" else first.name.encode() in found


async def test_who_listens_to_a_pool_that_is_deleted_hears_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RESTORED", timedelta(0))
    pool = PoolLab()
    await two_builders(lab, pool)
    async with lab.connect(pool) as channel:
        answer = listen(channel)
        for _ in range(4):
            await heard(answer)
        del lab.source.configs[pool.key]
        lab.source.changed(pool.key)
        async with asyncio.timeout(patience(20)):
            assert await answer.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_request_with_long_headers_is_answered_as_any(lab: Lab) -> None:
    """The router takes what Envoy takes: else it would be let in, and never come."""
    pool = PoolLab()
    await two_builders(lab, pool)
    async with lab.connect(pool) as channel:
        assert await listed(channel, END, **{"x-long": "y" * 50_000}) == ["a1", "a3", "b2", "b4"]


async def test_a_record_that_is_removed_from_a_builder_that_drains_is_listed_no_more(
    lab: Lab,
) -> None:
    """It is asked once for a while. So the router has to know that its answer has changed."""
    pool = PoolLab()
    _, second = await two_builders(lab, pool)
    drains(lab, pool, second)
    async with lab.connect(pool) as channel:
        for _ in range(3):
            assert await listed(channel) == ["a1", "a3", "b2", "b4"]
        assert times_asked(second, LISTEN) == 1
        second.history.remove("b4")
        await call(channel, f"{CONTROL}UpdateBuildHistory", protobuf.field(1, b"b4"))
        assert await listed(channel) == ["a1", "a3", "b2"]


async def test_whether_there_is_a_history_at_all_costs_no_daemon_a_question(lab: Lab) -> None:
    """As buildx asks after each of its builds."""
    pool = PoolLab()
    builders = await two_builders(lab, pool)
    active = protobuf.number_field(1, 1)
    async with lab.connect(pool) as channel:
        probe = active + protobuf.field(2, b"buildx-test-history-api-feature") + END
        assert await listed(channel, probe) == []
        await call(channel, HELLO)
        work = begun(channel, SOLVE, a_solve("mine"))
        await until(lambda: any("mine" in b.running for b in builders), "it runs")
        assert all(times_asked(builder, LISTEN) == 0 for builder in builders)
        assert await listed(channel, active + protobuf.field(2, b"mine") + END) == ["mine"]
        for builder in builders:
            builder.release.set()
        await work


async def test_a_builder_that_drains_is_listed_and_read(lab: Lab) -> None:
    pool = PoolLab()
    _, second = await two_builders(lab, pool)
    second.content.add(f"sha256:{7:064x}")
    drains(lab, pool, second)
    async with lab.connect(pool) as channel:
        assert await listed(channel) == ["a1", "a3", "b2", "b4"]
        assert await listed(channel, END + protobuf.field(2, b"b2")) == ["b2"]
        for method, request in (
            (f"{CONTENT}Read", protobuf.field(1, f"sha256:{7:064x}".encode())),
            (f"{CONTROL}UpdateBuildHistory", protobuf.field(1, b"b4")),
            (f"{CONTROL}Status", protobuf.field(1, b"b4")),
        ):
            assert second.name.encode() in await call(channel, method, request)
    await until(lambda: second.connections == 0, "nobody is connected to it")


async def test_content_is_read_where_it_is_though_nothing_was_listed(lab: Lab) -> None:
    pool = PoolLab()
    builders = await two_builders(lab, pool)
    for number, builder in enumerate(builders):
        builder.content.add(f"sha256:{number:064x}")
    async with lab.connect(pool) as channel:
        for number, builder in enumerate(builders):
            request = protobuf.field(1, f"sha256:{number:064x}".encode())
            for _ in range(2):
                answer = await call(channel, f"{CONTENT}Read", request)
                assert builder.name.encode() in answer


async def test_what_the_daemons_refuse_is_refused_in_their_words(lab: Lab) -> None:
    pool = PoolLab()
    builders = await two_builders(lab, pool)
    for builder in builders:
        builder.refuses = "invalid limit -1"
    async with lab.connect(pool) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="invalid limit -1") as error:
            await listed(channel, END + protobuf.number_field(5, 2**64 - 1))
    assert error.value.code() is grpc.StatusCode.UNKNOWN


async def test_a_pool_that_sleeps_says_so_and_is_not_woken(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="a build wakes it") as error:
            await listed(channel)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not list(lab.connections(pool).waiting())


async def test_a_pool_whose_builders_are_silent_is_not_said_to_sleep(lab: Lab) -> None:
    pool = PoolLab()
    for builder in await two_builders(lab, pool):
        await builder.stop()
    async with lab.connect(pool) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="no builder answers now") as error:
            await listed(channel)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_only_who_was_let_in_is_answered(lab: Lab) -> None:
    pool = PoolLab(clients=(a_full_client(),))
    await two_builders(lab, pool)
    removed = lab.connect(pool, pool.client("bob"))
    past = grpc.aio.insecure_channel(f"unix:{lab.folder / ROUTER_SOCKET}")
    async with removed, past, lab.connect(pool) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await listed(removed)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        for headers in ({}, {HEADER: "guessed"}):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await listed(past, **headers)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await listed(channel, **{HEADER: "guessed"}) == ["a1", "a3", "b2", "b4"]


async def test_a_client_that_is_removed_hears_no_more(lab: Lab) -> None:
    pool = PoolLab(clients=(a_full_client(), a_full_client("bob")))
    first, _ = await two_builders(lab, pool)
    async with lab.connect(pool, pool.client("bob")) as theirs:
        answer = listen(theirs)
        assert len([await heard(answer) for _ in range(4)]) == 4
        pool.clients = (a_full_client(),)
        await lab.becomes(pool)
        first.tell(BuildEventKind.STARTED, "secret")
        assert await answer.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_client_can_listen_so_often_and_no_more(lab: Lab) -> None:
    pool = PoolLab()
    await two_builders(lab, pool)
    async with lab.connect(pool) as channel, lab.connect(pool, pool.client("bob")) as other:
        answers = [listen(channel) for _ in range(MAX_LISTENERS_OF_CLIENT)]
        for answer in answers:
            await heard(answer)
        assert await listen(channel).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await listed(channel), "what has an end is listed all the same"
        more = listen(other)
        await heard(more)
        for answer in (*answers, more):
            answer.cancel()


async def test_a_client_that_does_not_read_its_lists_holds_up_nobody(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = PoolLab(slots=9)
    builders = await lab.add_pool(pool, *(f"ci-builder-{number}" for number in range(4)))
    for builder in builders:
        builder.history = [f"{builder.name}-{number}" for number in range(18)]
        builder.padding = protobuf.field(9, bytes(100_000))
    narrow = lab.connect(pool, is_narrow=True)
    async with narrow, lab.connect(pool, pool.client("bob")) as channel:
        answers = [listen(narrow, END) for _ in range(2 * MAX_LISTS)]
        await asyncio.gather(*(answer.initial_metadata() for answer in answers))
        pools = lab.router.pools.find(pool.key)
        assert pools is not None
        unsent = pools.of_all.unsent
        await until(lambda: len(unsent) == MAX_LISTS and unsent.size > 1 << 20, "it does not read")
        for client in (narrow, channel):
            assert await call(client, HELLO)
            request = protobuf.field(1, builders[0].history[0].encode())
            assert await call(client, f"{CONTROL}UpdateBuildHistory", request)
        assert len(await listed(channel)) == 4 * 18
        assert len(unsent) == MAX_LISTS, "it does still not read"
        monkeypatch.setattr(histories, "READ_SECONDS", 0.1)
        for answer in answers[:MAX_LISTS]:
            answer.cancel()
        await until(lambda: unsent.size == 0, "the others are given up")
        for answer in answers:
            answer.cancel()
        await until(lambda: len(unsent) == 0, "they are over")


@asynccontextmanager
async def a_buildx(lab: Lab, pool: PoolLab, folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A connection as buildx makes it: TLS is not its library's matter, but its own."""
    bundle = pool.client()
    files = {"ca": bundle.trust, "cert": bundle.pair.certificate, "key": bundle.pair.key}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    context = ssl.create_default_context(cafile=str(folder / "ca"))
    context.load_cert_chain(folder / "cert", folder / "key")
    name = f"{pool.name}.{pool.namespace}.svc"

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(
            "127.0.0.1", lab.port, ssl=context, server_hostname=name
        )
        await asyncio.gather(_pump(reader, onward[1]), _pump(onward[0], writer))

    relay = await asyncio.start_server(carry, "127.0.0.1", 0)
    port = relay.sockets[0].getsockname()[1]
    options = (("grpc.default_authority", name), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel
    relay.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_who_looks_at_what_was_built_waits_for_no_slot(lab: Lab, tmp_path: Path) -> None:
    """``buildx history``: its first requests are those of a build, but that it traces nothing."""
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.history = ["old"]
    async with lab.connect(pool) as holder, a_buildx(lab, pool, tmp_path) as history:
        await call(holder, HELLO)
        running = begun(holder, SOLVE, a_solve("running"))
        await asked(builder, SOLVE)
        for method in (HELLO, HELLO, f"{CONTROL}Info"):
            assert await call(history, method)
        assert await listed(history) == ["old"]
        assert builder.running == ["running"], "the slot is taken all the time"
        async with a_buildx(lab, pool, tmp_path) as build:
            waits = asyncio.create_task(call(build, HELLO, headers=dict([TRACE])))
            await lab.queued(pool, 1)
            # It says hello no more, and has no slot: as one that never says hello, it waits.
            solve = begun(history, SOLVE, a_solve("late"))
            await lab.queued(pool, 2)
            assert builder.running == ["running"]
            builder.release.set()
            await asyncio.gather(running, waits, solve)


async def test_who_looks_at_a_pool_that_sleeps_waits_as_a_build_does(
    lab: Lab, tmp_path: Path
) -> None:
    """It might be one."""
    pool = PoolLab()
    await lab.add_pool(pool)
    async with a_buildx(lab, pool, tmp_path) as history:
        hello = begun(history, HELLO)
        await lab.queued(pool, 1)
        fake = FakeBuilder("ci-builder-0")
        lab.fakes.append(fake)
        lab.source.known[pool.key] = (await fake.start(pool),)
        lab.source.changed(pool.key)
        assert await hello
