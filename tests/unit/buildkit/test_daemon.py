from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from buildpool.buildkit import (
    BuildEvent,
    BuildEventKind,
    Daemon,
    DaemonError,
    DaemonLateError,
    DaemonRefusedError,
    Room,
)
from buildpool.buildkit import daemon as module
from buildpool.buildkit.history_requests import digest_in
from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import MAX_FIELDS
from buildpool.core.observed.load import RunningBuild
from buildpool.core.pki import KeyPair, Use
from daemons import (
    STARTED,
    HistoryServer,
    a_server,
    an_access,
    an_authority,
    an_event,
    field,
    grpc_server,
    serving,
    until,
    wired,
)

AUTHORITY = an_authority()
ACCESS = an_access(AUTHORITY)


async def test_a_snapshot_lists_the_running_builds_by_ref() -> None:
    async with serving(AUTHORITY) as server:
        server.start("b", "a")
        daemon = Daemon(server.address, ACCESS)
        assert await daemon.snapshot() == (RunningBuild("a", STARTED), RunningBuild("b", STARTED))
        server.end("a", "b")
        assert await daemon.snapshot() == ()
        await daemon.close()


async def test_events_tell_what_runs_and_then_what_happens() -> None:
    async with serving(AUTHORITY) as server:
        server.start("a")
        daemon = Daemon(server.address, ACCESS)
        async with aclosing(daemon.events()) as events:
            assert await anext(events) == BuildEvent(
                BuildEventKind.STARTED, RunningBuild("a", STARTED)
            )
            server.end("a")
            assert await anext(events) == BuildEvent(
                BuildEventKind.COMPLETE, RunningBuild("a", STARTED)
            )
        await until(lambda: server.listeners == 0, "the server knows that nobody listens")
        await daemon.close()


async def test_question_and_events_share_one_connection_which_closing_ends_at_once() -> None:
    async with serving(AUTHORITY) as server, wired(server) as wire:
        daemon = Daemon(wire.address, ACCESS)
        events = daemon.events()
        listening = asyncio.ensure_future(anext(events))
        await daemon.snapshot()
        await until(lambda: server.listeners == 1, "it listens")
        assert (wire.accepted, wire.connections) == (1, 1)
        listening.cancel()
        await asyncio.wait([listening])
        await daemon.close()
        await until(lambda: wire.connections == 0, "it has hung up", within=1)


async def first_event(daemon: Daemon) -> BuildEvent:
    async with aclosing(daemon.events()) as events:
        return await anext(events)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["deadline", "cancelled", "garbage", "events given up"])
async def test_however_a_question_ended_closing_hangs_up(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(module, "DEADLINE", timedelta(seconds=0.1 if end == "deadline" else 5))
    async with serving(AUTHORITY) as server, wired(server) as wire:
        server.is_hung = end in {"deadline", "cancelled"}
        server.start("" if end == "garbage" else "a")
        daemon = Daemon(wire.address, ACCESS)
        question = first_event(daemon) if end == "events given up" else daemon.snapshot()
        task: asyncio.Task[object] = asyncio.create_task(question)
        await until(lambda: task.done() or server.snapshots + server.listeners > 0, "it was asked")
        if end == "cancelled":
            task.cancel()
        await asyncio.wait([task])  # which keeps what it has ended with
        await daemon.close()
        await until(lambda: wire.connections == 0, "it has hung up", within=1)


async def test_two_daemons_of_one_address_share_no_connection() -> None:
    async with serving(AUTHORITY) as server, wired(server) as wire:
        daemons = [Daemon(wire.address, ACCESS) for _ in range(2)]
        for daemon in daemons:
            await daemon.snapshot()
        assert wire.accepted == 2
        for daemon in daemons:
            await daemon.close()


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (an_access(AUTHORITY, trust=an_authority().certificate), "CERTIFICATE_VERIFY_FAILED"),
        (an_access(an_authority(), trust=AUTHORITY.certificate), "UNAVAILABLE"),
        (an_access(AUTHORITY, use=Use.SERVER), "UNAVAILABLE"),
        (module.DaemonAccess(b"garbage", KeyPair(b"garbage", b"garbage")), "UNAVAILABLE"),
        (module.DaemonAccess(b"", ACCESS.pair), "no authority"),
    ],
    ids=["another authority", "a stranger", "a server as client", "garbage", "no authority"],
)
async def test_without_the_right_certificates_nothing_is_learned(
    access: module.DaemonAccess, message: str
) -> None:
    async with serving(AUTHORITY) as server:
        server.start("a")
        with pytest.raises(DaemonError, match=message):
            await Daemon(server.address, access).snapshot()
        assert server.snapshots == 0


async def test_a_hung_daemon_fails_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", timedelta(seconds=0.1))
    async with serving(AUTHORITY) as server:
        server.is_hung = True
        daemon = Daemon(server.address, ACCESS)
        with pytest.raises(DaemonLateError, match=r"does not answer within 0\.1 s"):
            await daemon.snapshot()
        await daemon.close()


@pytest.mark.parametrize("question", ["snapshot", "records", "events"])
async def test_a_connection_that_is_closed_under_a_question_is_a_daemon_that_cannot_be_asked(
    question: str,
) -> None:
    """gRPC says then that the task is cancelled, which nobody did: its caller would end so, too."""
    async with serving(AUTHORITY) as server:
        server.is_hung = question != "events"
        daemon = Daemon(server.address, ACCESS)
        ask = {
            "snapshot": daemon.snapshot,
            "records": lambda: daemon.records(bytes(LISTED), Room(MUCH)),
            "events": lambda: anext(daemon.events()),
        }
        task = asyncio.create_task(ask[question]())
        await until(lambda: server.asked > 0, "it was asked")
        await daemon.close()
        with pytest.raises(DaemonError, match="closed under the question"):
            await task


async def test_a_daemon_that_dies_ends_its_events() -> None:
    async with serving(AUTHORITY) as server:
        server.start("a")
        daemon = Daemon(server.address, ACCESS)
        events = daemon.events()
        await anext(events)
    with pytest.raises(DaemonError, match="UNAVAILABLE"):
        await anext(events)
    with pytest.raises(DaemonError, match="refused"):
        await daemon.snapshot()
    await daemon.close()


async def test_an_answer_that_is_garbage_is_a_daemon_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(AUTHORITY) as server:
        server.start("")
        daemon = Daemon(server.address, ACCESS)
        with pytest.raises(DaemonError, match="cannot be read: an event names no build"):
            await daemon.snapshot()
        with pytest.raises(DaemonError, match="cannot be read"):
            await anext(daemon.events())
        await daemon.close()


async def test_an_answer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_EVENTS", 3)
    async with serving(AUTHORITY) as server:
        server.start("a", "b", "c")
        daemon = Daemon(server.address, ACCESS)
        assert len(await daemon.snapshot()) == 3
        server.start("d")
        with pytest.raises(DaemonError, match="cannot be read: it has more than 3 events"):
            await daemon.snapshot()
        async with aclosing(daemon.events()) as events:
            assert len([await anext(events) for _ in range(4)]) == 4
        await daemon.close()


LISTED = (3 << 3, 1)
"""A question that has an end."""
MUCH = 1 << 20
"""More than all records have."""


class Keeper(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A daemon with records and content, that refuses what it is told to."""

    def __init__(self) -> None:
        self.refs = ["a", "b", "c"]
        self.content = {"sha256:1"}
        self.status: grpc.StatusCode | None = None
        self.padding: dict[str, bytes] = {}
        """What makes records long."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == "/containerd.services.content.v1.Content/Info":
            return grpc.unary_unary_rpc_method_handler(self._info)
        return grpc.unary_stream_rpc_method_handler(self._listen)

    async def _info(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if digest_in(request) not in self.content:
            await context.abort(self.status or grpc.StatusCode.NOT_FOUND, "not found")
        return field(1, b"info")

    async def _listen(
        self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        if self.status is not None:
            await context.abort(self.status, "invalid limit -1")
        for ref in self.refs:
            yield an_event(BuildEventKind.COMPLETE, ref) + self.padding.get(ref, b"")


@asynccontextmanager
async def keeping(keeper: Keeper) -> AsyncIterator[Daemon]:
    """What asks this daemon."""
    _, credentials = grpc_server(HistoryServer().listen, a_server(AUTHORITY))
    running = grpc.aio.server(handlers=(keeper,))
    port = running.add_secure_port("127.0.0.1:0", credentials)
    await running.start()
    daemon = Daemon(f"127.0.0.1:{port}", ACCESS)
    try:
        yield daemon
    finally:
        await daemon.close()
        await running.stop(grace=None)


async def test_records_are_listed_as_they_stand() -> None:
    async with keeping(Keeper()) as daemon:
        found = await daemon.records(bytes(LISTED), Room(MUCH))
    assert [event.build.ref for event in found] == ["a", "b", "c"]
    assert found[1].message == an_event(BuildEventKind.COMPLETE, "b")
    assert b"hunter2" not in repr(found).encode()


async def test_records_that_are_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(an_event(BuildEventKind.COMPLETE, "a"))
    monkeypatch.setattr(module, "MAX_RECORDS_BYTES", 2 * size)
    async with keeping(Keeper()) as daemon:
        found = await daemon.records(bytes(LISTED), Room(MUCH))
    assert [event.build.ref for event in found] == ["a", "b"]


async def test_a_record_that_is_too_long_hides_no_other() -> None:
    keeper, size = Keeper(), len(an_event(BuildEventKind.COMPLETE, "a"))
    keeper.padding["a"] = field(15, bytes(module.MAX_RECORDS_BYTES))
    async with keeping(keeper) as daemon:
        room = Room(MUCH)
        found = await daemon.records(bytes(LISTED), room)
        assert [event.build.ref for event in found] == ["b", "c"]
        assert room.left == MUCH - 2 * size
        (found_by_ref,) = await daemon.records(bytes(LISTED), Room(0), ref="a")
        assert len(found_by_ref.message) > module.MAX_RECORDS_BYTES


async def test_the_answers_of_several_daemons_share_one_room() -> None:
    keeper, size = Keeper(), len(an_event(BuildEventKind.COMPLETE, "a"))
    room = Room(4 * size)
    async with keeping(keeper) as one, keeping(Keeper()) as two:
        found = [await daemon.records(bytes(LISTED), room) for daemon in (one, two)]
        assert [len(events) for events in found] == [3, 1]
        room = Room(4 * size)
        keeper.refs.append("")
        with pytest.raises(DaemonError, match="cannot be read"):
            await one.records(bytes(LISTED), room)
        assert room.left == 4 * size, "what came to nothing takes no room"


async def test_what_a_daemon_refuses_is_told_from_one_that_does_not_answer() -> None:
    keeper = Keeper()
    async with keeping(keeper) as daemon:
        keeper.status = grpc.StatusCode.UNKNOWN
        with pytest.raises(DaemonRefusedError, match=r"^invalid limit -1$"):
            await daemon.records(bytes(LISTED), Room(MUCH))
        keeper.status = grpc.StatusCode.UNAVAILABLE
        with pytest.raises(DaemonError, match="UNAVAILABLE") as error:
            await daemon.records(bytes(LISTED), Room(MUCH))
        assert not isinstance(error.value, DaemonRefusedError)


async def test_a_daemon_says_which_content_it_has() -> None:
    keeper = Keeper()
    async with keeping(keeper) as daemon:
        assert await daemon.has_content("sha256:1")
        assert not await daemon.has_content("sha256:2")
        keeper.status = grpc.StatusCode.UNAVAILABLE
        with pytest.raises(DaemonError, match="UNAVAILABLE"):
            await daemon.has_content("sha256:2")


class Hostile(HistoryServer):
    """Sends one event over and over."""

    event = an_event(BuildEventKind.STARTED, "a")

    async def listen(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        while True:
            yield self.event


async def test_an_event_of_too_many_fields_is_a_daemon_that_cannot_be_asked() -> None:
    server = Hostile()
    server.event += field(2, field(9, b"")) * MAX_FIELDS
    async with serving(AUTHORITY, server):
        daemon = Daemon(server.address, ACCESS)
        with pytest.raises(DaemonError, match=f"cannot be read: .* more than {MAX_FIELDS} fields"):
            await daemon.snapshot()
        with pytest.raises(DaemonError, match="fields"):
            await anext(daemon.events())
        await daemon.close()


async def test_a_daemon_whose_events_take_long_to_read_is_not_heard_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REST_FACTOR", 1000)
    server = Hostile()
    async with serving(AUTHORITY, server):
        daemon = Daemon(server.address, ACCESS)
        async with aclosing(daemon.events()) as events:
            assert len([await anext(events) for _ in range(30)]) == 30
        server.event += field(9, b"") * (MAX_FIELDS // 2)
        async with aclosing(daemon.events()) as events:
            await anext(events)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), timeout=0.5)
        await daemon.close()


async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with serving(AUTHORITY) as server:
        daemon = Daemon(server.address, ACCESS)
        assert await daemon.snapshot() == ()
        await daemon.close()


class Rude(HistoryServer):
    async def listen(self, request: bytes, context: object):  # type: ignore[no-untyped-def]
        from daemons import grpc

        await context.abort(grpc.StatusCode.INTERNAL, "x\n\x1b[31m" + "y" * 5000)  # type: ignore[attr-defined]
        yield b""


async def test_words_of_the_other_side_are_short_and_printable() -> None:
    async with serving(AUTHORITY, Rude()) as server:
        daemon = Daemon(server.address, ACCESS)
        with pytest.raises(DaemonError) as caught:
            await daemon.snapshot()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
        await daemon.close()


def test_an_access_shows_nothing_of_itself() -> None:
    shown = repr(ACCESS) + str(ACCESS)
    assert not re.search("BEGIN|PRIVATE|CERTIFICATE", shown)


def test_an_error_of_the_wire_is_one_of_this_package() -> None:
    assert issubclass(WireError, module.BuildpoolError)
    assert issubclass(DaemonError, module.BuildpoolError)
