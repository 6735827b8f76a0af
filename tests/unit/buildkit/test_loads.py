from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildpool.buildkit import BuildEvent, BuildEventKind, Daemon, DaemonAccess
from buildpool.buildkit import daemon as daemon_module
from buildpool.buildkit import watcher as module
from buildpool.buildkit.history import RUNNING_BUILDS, read_event
from buildpool.buildkit.loads import Loads
from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import MAX_FIELDS
from buildpool.buildkit.watcher import Connect
from buildpool.controller.wakeups import Wakeups
from buildpool.core.naming import PoolKey
from buildpool.core.observed.load import RunningBuild
from buildpool.core.pauses import SPREAD_SHARE
from daemons import (
    HistoryServer,
    an_access,
    an_authority,
    an_event,
    field,
    serving,
    until,
    wired,
)

CI = PoolKey("builds", "ci")
AUTHORITY = an_authority()
ACCESS = an_access(AUTHORITY)
SOON = 1.0
"""Seconds, on a machine that does other things, too. It is much less."""


class Operator:
    """Loads of one pool, and its wake-up."""

    def __init__(self, connect: Connect) -> None:
        wakeups = Wakeups()
        self.flag = wakeups.open(CI)
        self.loads = Loads(connect, wakeups)
        self.running = asyncio.create_task(self.loads.run())

    def watch(self, access: DaemonAccess = ACCESS, **addresses: str) -> None:
        self.loads.watch(CI, addresses, access)

    def refs(self, uid: str = "a") -> tuple[str, ...] | None:
        """The builds of a builder; None where they are not known."""
        load = self.loads.loads(CI).get(uid)
        return None if load is None else tuple(build.ref for build in load.builds)

    async def woken(self, *refs: str, uid: str = "a", within: float = SOON) -> None:
        """Waits for a wake-up after which these builds are known."""
        async with asyncio.timeout(within):
            while True:
                await self.flag.wait()
                self.flag.clear()
                if self.refs(uid) == refs:
                    return


@asynccontextmanager
async def operating(connect: Connect = Daemon) -> AsyncIterator[Operator]:
    operator = Operator(connect)
    try:
        yield operator
    finally:
        operator.running.cancel()
        with suppress(asyncio.CancelledError):
            await operator.running


async def test_a_pool_is_woken_when_a_build_starts_and_when_it_ends() -> None:
    async with serving(AUTHORITY) as server, operating() as operator:
        operator.watch(a=server.address)
        await operator.woken()
        await until(lambda: server.listeners == 1, "it listens")
        server.start("x")
        await operator.woken("x")
        server.start("b")
        await operator.woken("b", "x")
        server.end("x")
        await operator.woken("b")


async def test_builds_that_ran_before_are_known_from_the_first_answer_on() -> None:
    async with serving(AUTHORITY) as server, operating() as operator:
        server.start("old")
        before = datetime.now(UTC)
        operator.watch(a=server.address)
        assert operator.loads.loads(CI) == {}
        await operator.woken("old")
        load = operator.loads.loads(CI)["a"]
        assert before < load.as_of < datetime.now(UTC)
        assert load.served == 1


async def test_events_that_change_nothing_wake_nobody() -> None:
    async with serving(AUTHORITY) as server, operating() as operator:
        server.start("a")
        operator.watch(a=server.address)
        await operator.woken("a")
        await until(lambda: server.listeners == 1, "it listens")
        asked = server.snapshots
        server.tell(BuildEventKind.COMPLETE, "long ago")
        await until(lambda: server.snapshots > asked, "it asks")
        server.tell(BuildEventKind.NEW, "a")
        await until(lambda: server.snapshots > asked + 1, "it asks again")
        assert not operator.flag.is_set()


async def test_a_burst_of_events_is_one_question() -> None:
    async with serving(AUTHORITY) as server, operating() as operator:
        operator.watch(a=server.address)
        await operator.woken()
        await until(lambda: server.listeners == 1, "it listens")
        asked = server.snapshots
        server.start(*(f"build-{number:03}" for number in range(100)))
        await operator.woken(*(f"build-{number:03}" for number in range(100)))
        await asyncio.sleep(0.2)
        assert server.snapshots - asked < 10


async def test_what_no_event_tells_is_found_by_asking_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.1)
    async with serving(AUTHORITY) as server, operating() as operator:
        server.is_mute = True
        operator.watch(a=server.address)
        await operator.woken()
        server.start("x")
        await operator.woken("x")


async def test_a_flood_of_builds_is_counted_once() -> None:
    refs = [f"build-{number:04}" for number in range(2000)]
    async with serving(AUTHORITY) as server, operating() as operator:
        operator.watch(a=server.address)
        await operator.woken()
        await until(lambda: server.listeners == 1, "it listens")
        server.start(*refs)
        await operator.woken(*refs, within=10)
        server.end(*refs)
        await operator.woken(within=10)
        assert operator.loads.loads(CI)["a"].served == 2000


class Hostile(HistoryServer):
    """Sends what is made to be long to read, until it is made to stop."""

    is_hostile = True
    tries = 0

    async def listen(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        self.tries += request == RUNNING_BUILDS
        while self.is_hostile:
            yield an_event(BuildEventKind.STARTED, "x") + field(2, b"") * MAX_FIELDS
        async for event in super().listen(request, context):
            yield event


async def test_a_daemon_that_sends_what_cannot_be_read_does_not_answer_and_ends_no_watch() -> None:
    server = Hostile()
    async with serving(AUTHORITY, server), serving(AUTHORITY) as other, operating() as operator:
        other.start("y")
        operator.watch(a=server.address, b=other.address)
        await operator.woken("y", uid="b", within=10)
        await until(lambda: server.tries > 1, "it is found out, and asked again")
        assert operator.refs() is None
        server.is_hostile = False
        await operator.woken(within=SOON + module.LAST_RETRY_SECONDS)


class Babbling(HistoryServer):
    """Says what it is made to say, and then behaves."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: list[bytes] = []
        """To the question which builds run."""
        self.told: list[bytes] = []
        """Events of each stream."""
        self.end: grpc.StatusCode | None = None
        self.said = "\x00\n100% \N{SNOWMAN}"
        self.tries = 0
        self.is_hostile = True

    async def listen(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        is_snapshot = request == RUNNING_BUILDS
        self.tries += self.is_hostile and is_snapshot
        if self.is_hostile:
            for message in self.answer if is_snapshot else self.told:
                yield message
            if self.end is not None:
                await context.abort(self.end, self.said)
            return
        async for event in super().listen(request, context):
            yield event


messages = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=20).map(lambda ref: field(2, field(1, ref))),
    st.builds(
        lambda kind, seconds, nanos: (
            field(1, kind)
            + field(2, field(1, b"a") + field(6, field(1, seconds) + field(2, nanos)))
        ),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
    ),
    st.builds(lambda ref: an_event(BuildEventKind.STARTED, ref), st.text(max_size=5)),
)
"""Bytes of a daemon: some are events, all of them of strange builds."""


def readable(answer: list[bytes]) -> set[str] | None:
    """The builds that a daemon says run; None where it says nothing that can be read."""
    try:
        events = [read_event(message) for message in answer]
    except WireError:
        return None
    return {event.build.ref for event in events if event.kind is BuildEventKind.STARTED}


@settings(max_examples=25, deadline=None)
@given(
    answer=st.lists(messages, max_size=3),
    told=st.lists(messages, max_size=3),
    end=st.one_of(st.none(), st.sampled_from(grpc.StatusCode)),
)
def test_nothing_that_a_daemon_says_ends_its_watch(
    answer: list[bytes], told: list[bytes], end: grpc.StatusCode | None
) -> None:
    async def story() -> None:
        server = Babbling()
        server.answer, server.told = answer, told
        server.end = None if end is grpc.StatusCode.OK else end
        async with serving(AUTHORITY, server), operating() as operator:
            operator.watch(a=server.address)
            await until(lambda: server.tries >= 2, "it is asked, and asked again")
            known = readable(answer) if server.end is None else None
            refs = operator.refs()
            assert (None if refs is None else set(refs)) == known
            server.is_hostile = False
            server.start("well")
            await until(lambda: operator.refs() == ("well",), "it is known again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_RETRY_SECONDS", 0.02)
        asyncio.run(story())


@pytest.mark.parametrize("answer", [[], [b"\xff"]], ids=["only its events end", "it says nonsense"])
async def test_a_daemon_with_which_no_connection_lasts_is_tried_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, answer: list[bytes]
) -> None:
    monkeypatch.setattr(module, "EAGER_SECONDS", 0.0)
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.05)
    server = Babbling()
    server.answer = answer
    clock = asyncio.get_running_loop().time
    async with serving(AUTHORITY, server), operating() as operator:
        operator.watch(a=server.address)
        times = []
        for tries in range(1, 6):
            await until(lambda tries=tries: server.tries >= tries, "it is tried again")
            times.append(clock())
        pauses = [after - before for before, after in pairwise(times)]
        slack = 0.01  # of looking
        for number, pause in enumerate(pauses):
            assert pause > 0.05 * 2**number * (1 - SPREAD_SHARE) - slack


async def test_builds_too_short_for_any_answer_are_counted() -> None:
    async with serving(AUTHORITY) as server, operating() as operator:
        operator.watch(a=server.address)
        await operator.woken()
        await until(lambda: server.listeners == 1, "it listens")
        for number in range(3):
            server.start(f"short-{number}")
            server.end(f"short-{number}")
        await until(lambda: operator.loads.loads(CI)["a"].served == 3, "three builds are counted")
        assert operator.refs() == ()


async def test_who_is_asked_wakes_the_pool_with_a_fresh_answer() -> None:
    async with serving(AUTHORITY) as server, operating() as operator:
        operator.watch(a=server.address)
        await operator.woken()
        asked = datetime.now(UTC)
        assert operator.loads.loads(CI)["a"].as_of < asked
        operator.loads.ask(CI, ["a", "unknown"])
        await operator.woken()
        assert operator.loads.loads(CI)["a"].as_of > asked


async def test_a_question_under_way_is_no_answer_to_who_asks_now() -> None:
    async with serving(AUTHORITY) as server, operating(Slow) as operator:
        operator.watch(a=server.address)
        slow = await Slow.asked()
        asked = datetime.now(UTC)
        operator.loads.ask(CI, ["a"])
        slow.may_answer.set()
        await until(lambda: operator.refs() is not None, "the first question is answered")
        assert operator.loads.loads(CI)["a"].as_of < asked
        operator.flag.clear()
        await operator.woken()
        assert operator.loads.loads(CI)["a"].as_of > asked


class Slow(Daemon):
    """Does not pass an answer on before it may."""

    made: Slow

    def __init__(self, address: str, access: DaemonAccess) -> None:
        super().__init__(address, access)
        Slow.made = self
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    @classmethod
    async def asked(cls) -> Slow:
        await until(lambda: hasattr(cls, "made"), "a connection is made")
        await cls.made.is_asked.wait()
        return cls.made

    async def snapshot(self) -> tuple[RunningBuild, ...]:
        answer = await super().snapshot()
        self.is_asked.set()
        await self.may_answer.wait()
        return answer


async def test_one_hung_daemon_among_ten_delays_no_other() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(AUTHORITY)) for _ in range(10)]
        operator = await stack.enter_async_context(operating())
        servers[0].is_hung = True
        operator.watch(**{f"pod-{n}": server.address for n, server in enumerate(servers)})
        for number, server in enumerate(servers[1:], start=1):
            server.start("x")
            await operator.woken("x", uid=f"pod-{number}")
        assert operator.refs("pod-0") is None


async def test_a_daemon_that_starts_late_is_known_within_a_second() -> None:
    async with AsyncExitStack() as stack:
        async with serving(AUTHORITY) as server:
            pass  # to have a port at which nobody listens
        operator = await stack.enter_async_context(operating())
        operator.watch(a=server.address)
        await asyncio.sleep(1.2)
        assert operator.loads.loads(CI) == {}
        await stack.enter_async_context(serving(AUTHORITY, server))
        await operator.woken(within=SOON + module.FIRST_RETRY_SECONDS)


async def test_a_daemon_that_is_gone_becomes_unknown_once_and_is_known_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.05)
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(operating())
        async with serving(AUTHORITY) as server:
            server.start("x")
            operator.watch(a=server.address)
            await operator.woken("x")
            await until(lambda: server.listeners == 1, "it listens")
        assert operator.refs() == ("x",)
        await until(lambda: operator.refs() is None, "it is not known")
        assert operator.flag.is_set()
        operator.flag.clear()
        await asyncio.sleep(0.3)
        assert not operator.flag.is_set()
        (record,) = [record for record in caplog.records if record.levelno >= logging.INFO]
        assert "builds/ci, pod a" in record.message
        assert "Connection refused" in record.message
        assert record.exc_info is None
        server.builds.clear()
        await stack.enter_async_context(serving(AUTHORITY, server))
        await operator.woken()


async def test_a_short_break_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(operating())
        async with serving(AUTHORITY) as server:
            server.start("x")
            operator.watch(a=server.address)
            await operator.woken("x")
        await asyncio.sleep(0.2)
        asked = server.snapshots
        await stack.enter_async_context(serving(AUTHORITY, server))
        await until(lambda: server.snapshots > asked, "it is asked again")
        assert operator.refs() == ("x",)
        assert not operator.flag.is_set()


async def test_a_connection_that_dies_without_a_word_is_noticed_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(daemon_module, "DEADLINE", timedelta(seconds=0.5))
    async with serving(AUTHORITY) as server, wired(server) as wire, operating() as operator:
        operator.watch(a=wire.address)
        await operator.woken()
        wire.is_cut = True
        await until(lambda: operator.refs() is None, "it is not known")
        assert operator.flag.is_set()
        wire.is_cut = False
        await operator.woken(within=5)
        await until(lambda: wire.connections == 1, "the dead connection is closed")


async def test_new_access_takes_over_before_the_old_one_goes() -> None:
    async with serving(AUTHORITY) as server, wired(server) as wire, operating() as operator:
        server.start("x")
        operator.watch(a=wire.address)
        await operator.woken("x")
        operator.watch(a=wire.address)
        assert wire.accepted == 1
        operator.watch(an_access(AUTHORITY), a=wire.address)
        await until(lambda: wire.accepted == 2, "there is a new connection")
        assert operator.refs() == ("x",)
        await until(lambda: wire.connections == 1, "the old one is closed", within=SOON)
        await until(lambda: server.listeners == 1, "it listens")
        operator.flag.clear()
        server.start("y")
        await operator.woken("x", "y")


async def test_until_a_daemon_knows_the_new_authority_the_old_access_counts() -> None:
    new = an_authority()
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(operating())
        async with serving(AUTHORITY) as server:
            operator.watch(a=server.address)
            await operator.woken()
            operator.watch(an_access(new), a=server.address)
            server.start("x")
            await operator.woken("x")
            assert server.listeners == 1
        await stack.enter_async_context(serving(new, server))
        server.start("y")
        await operator.woken("x", "y", within=SOON + module.FIRST_RETRY_SECONDS)


async def test_a_pod_at_another_address_is_asked_there() -> None:
    async with serving(AUTHORITY) as one, serving(AUTHORITY) as two, operating() as operator:
        one.start("x")
        two.start("y")
        operator.watch(a=one.address)
        await operator.woken("x")
        operator.watch(a=two.address)
        await operator.woken("y")


async def test_who_is_no_longer_watched_is_left_at_once() -> None:
    async with serving(AUTHORITY) as server, wired(server) as wire, operating() as operator:
        operator.watch(a=wire.address, b=wire.address)
        await until(lambda: len(operator.loads.loads(CI)) == 2, "both are known")
        operator.watch(b=wire.address)
        assert set(operator.loads.loads(CI)) == {"b"}
        await until(lambda: wire.connections == 1, "one has hung up", within=SOON)
        operator.loads.forget(CI)
        assert operator.loads.loads(CI) == {}
        await until(lambda: wire.connections == 0, "both have hung up", within=SOON)


@pytest.mark.parametrize("is_known", [True, False])
async def test_one_that_hangs_is_left_at_once_too(is_known: bool) -> None:
    async with serving(AUTHORITY) as server, wired(server) as wire, operating() as operator:
        server.is_hung = not is_known
        operator.watch(a=wire.address)
        await until(lambda: server.snapshots > 0, "it is asked")
        if is_known:
            await operator.woken()
            server.is_hung = True
            asked = server.snapshots
            operator.loads.ask(CI, ["a"])
            await until(lambda: server.snapshots > asked, "it is asked again")
        operator.watch()
        await until(lambda: wire.connections == 0, "it has hung up", within=SOON)


async def test_when_the_operator_ends_nothing_stays_open() -> None:
    async with serving(AUTHORITY) as server, wired(server) as wire:
        async with operating() as operator:
            operator.watch(a=wire.address)
            await operator.woken()
        operator.watch(b=wire.address)
        await until(lambda: wire.connections == 0, "it has hung up", within=SOON)
        assert (operator.loads.loads(CI), wire.accepted) == ({}, 1)


async def test_an_access_that_opens_nothing_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "EAGER_SECONDS", 0.2)
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(module, "LAST_RETRY_SECONDS", 0.02)
    caplog.set_level(logging.INFO)
    async with serving(AUTHORITY) as server, operating() as operator:
        operator.watch(an_access(AUTHORITY, trust=an_authority().certificate), a=server.address)
        await until(lambda: bool(caplog.records), "it is told")
        await asyncio.sleep(0.3)
        (record,) = caplog.records
        assert "CERTIFICATE_VERIFY_FAILED" in record.message
        assert operator.loads.loads(CI) == {}
        assert not operator.flag.is_set()


class Broken:
    """Fails in ways that nobody has thought of."""

    error: BaseException = ZeroDivisionError()

    def __init__(self, address: str, access: DaemonAccess) -> None:
        pass

    async def snapshot(self) -> tuple[RunningBuild, ...]:
        raise self.error

    async def events(self) -> AsyncGenerator[BuildEvent, None]:
        await asyncio.Event().wait()
        yield BuildEvent(BuildEventKind.NEW, RunningBuild("x", None))

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()])
async def test_a_defect_ends_no_watch(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.02)
    defects = [error]

    def connect(address: str, access: DaemonAccess) -> module.Daemon:
        if not defects:
            return Daemon(address, access)
        Broken.error = defects.pop()
        return Broken(address, access)

    async with serving(AUTHORITY) as server, operating(connect) as operator:
        operator.watch(a=server.address)
        await operator.woken()
        assert not defects


async def test_a_pool_nobody_watches_has_no_loads() -> None:
    async with operating() as operator:
        other = PoolKey("builds", "other")
        operator.loads.ask(other, ["a"])
        operator.loads.forget(other)
        assert operator.loads.loads(other) == {}
