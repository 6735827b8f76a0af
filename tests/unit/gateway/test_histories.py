"""What clients are sent of the history of a pool, over real gRPC: also those that do not read."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from buildpool.buildkit import BuildEvent, BuildEventKind, DaemonRefusedError, Room
from buildpool.buildkit.history import METHOD, read_event
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.api.brief import ClientBrief
from buildpool.gateway import histories as module
from buildpool.gateway.histories import Histories
from buildpool.gateway.pools import bounds, listeners
from buildpool.gateway.pools.fleet import Fleet
from buildpool.gateway.pools.records import BuildRecords
from buildpool.gateway.pools.served import ServedPool
from buildpool.gateway.pools.tickets import HEADER, Admitted, Tickets
from daemons import an_event, field, until
from limits import patience
from samples import NOW
from unit.gateway.keepers import Keeper, ended
from unit.gateway.pools_lab import ANN, BOB, CLIENTS, PoolsLab
from unit.gateway.xds.configs import a_config

WITHOUT_END = HistoryRequest(has_end=False)
POOL = a_config(clients=CLIENTS)
SLOW = (
    # Its window is as small as can be, and does not grow.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65_535),
    ("grpc.use_local_subchannel_pool", 1),
)
_Answer = grpc.aio.UnaryStreamCall[bytes, bytes]


def a_long_event(ref: str, kind: BuildEventKind = BuildEventKind.COMPLETE) -> BuildEvent:
    return read_event(an_event(kind, ref) + field(15, bytes(250_000)))


class Prolific(Keeper):
    """A daemon with long records, each time others."""

    async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
        self.kept = [a_long_event(f"ref{number}") for number in range(20)]
        found = await super().records(request, room, ref=ref)
        self.kept = []
        return found


class HistoriesLab:
    """A server of histories, and who asks it."""

    def __init__(self, channel: grpc.aio.Channel, tickets: Tickets) -> None:
        self.cluster = PoolsLab(POOL)
        self.cluster.has_builder = True
        self.cluster.pools.refresh(POOL.key)
        self.tickets = tickets
        self._listen = channel.unary_stream(METHOD)

    @property
    def served(self) -> ServedPool:
        found = self.cluster.pools.find(POOL.key)
        assert found is not None
        return found

    def keeps(self, **keepers: Keeper) -> None:
        """These are the daemons of the pool."""
        fleet = Fleet(POOL.key, lambda: keepers, lambda *_: Keeper())
        self.served.records = BuildRecords(fleet, unheard=self.served.of_all.unheard)

    def asks(self, identity: str, request: HistoryRequest | None = None) -> _Answer:
        """A client that was let in."""
        ticket = self.tickets.issue(Admitted(POOL.key, identity, request or HistoryRequest()))
        return self._listen(b"", metadata=((HEADER, ticket),))

    async def lists(self, identity: str, request: HistoryRequest | None = None) -> int:
        """How many events it is sent, once it has read them all."""
        async with asyncio.timeout(patience(10)):
            return len([event async for event in self.asks(identity, request)])


@asynccontextmanager
async def a_lab() -> AsyncIterator[HistoriesLab]:
    """It serves on loopback."""
    tickets, server = Tickets(), grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=SLOW) as channel:
        lab = HistoriesLab(channel, tickets)
        histories = Histories(lab.cluster.pools, tickets, clock=lambda: NOW)
        server.add_generic_rpc_handlers((histories,))
        await server.start()
        try:
            yield lab
        finally:
            await server.stop(None)


def events_alive() -> int:
    """Events that somebody refers to."""
    gc.collect()
    return sum(isinstance(each, BuildEvent) for each in gc.get_objects())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is read within it, also on a busy machine."""
    monkeypatch.setattr(module, "READ_SECONDS", 1.0)


async def begun(answers: list[_Answer]) -> None:
    """Waits until each has its first event."""
    for answer in answers:
        await answer.read()


async def to_its_end(answer: _Answer) -> None:
    """Reads what is left of an answer."""
    async with asyncio.timeout(patience(10)):
        while await answer.read() is not grpc.aio.EOF:
            pass


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_kept_of_a_list_that_nobody_reads() -> None:
    """To say so waits until it is read, or its client leaves: what is left is dropped before."""
    async with a_lab() as lab:
        lab.keeps(a=Prolific())
        before = events_alive()
        answers = [lab.asks(ANN) for _ in range(bounds.MAX_LISTS)]
        await begun(answers)
        await until(lambda: lab.served.of_all.unsent.size == 0, "they are given up")
        await until(lambda: events_alive() == before, "no event is kept")
        for answer in answers:
            answer.cancel()


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_reads_none_of_its_lists_gets_no_more_of_them_and_others_do() -> None:
    async with a_lab() as lab:
        lab.keeps(a=Prolific())
        answers = [lab.asks(ANN) for _ in range(bounds.MAX_LISTS)]
        await begun(answers)
        await until(lambda: lab.served.of_all.unsent.size == 0, "they are given up")
        more = asyncio.create_task(lab.lists(ANN))
        assert await lab.lists(BOB) == 20
        assert not more.done()
        answers[0].cancel()
        assert await more == 20, "one of its places is free"
        for answer in answers[1:]:
            answer.cancel()


async def test_a_client_waits_for_so_many_lists_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "MAX_LISTS_WAITING", 3)
    hung = Keeper()
    hung.is_hung = True
    async with a_lab() as lab:
        lab.keeps(a=hung)
        answers = [lab.asks(ANN) for _ in range(bounds.MAX_LISTS + 3)]
        for answer in answers:
            await answer.initial_metadata()
        assert await lab.asks(ANN).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for answer in answers:
            answer.cancel()
        hung.is_hung = False

        async def listed() -> bool:
            return await lab.asks(ANN).code() is grpc.StatusCode.OK

        async with asyncio.timeout(patience(10)):
            while not await listed():
                pass


async def test_nothing_is_kept_for_who_listens_and_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_lab() as lab:
        lab.keeps(a=Keeper(ended("first")))
        answer = lab.asks(ANN, WITHOUT_END)
        await begun([answer])
        monkeypatch.setattr(module, "READ_SECONDS", 0.1)  # of what follows
        before = events_alive()
        told = lab.served.records.listeners
        for number in range(20):
            lab.served.records.tell("a", a_long_event(f"ref{number}"))
        unheard = lab.served.of_all.unheard
        assert unheard.left < listeners.MAX_UNHEARD_OF_ALL_BYTES
        await until(lambda: unheard.left == listeners.MAX_UNHEARD_OF_ALL_BYTES, "it hears no more")
        lab.served.records.tell("a", a_long_event("later"))
        assert unheard.left == listeners.MAX_UNHEARD_OF_ALL_BYTES
        await until(lambda: events_alive() == before, "no event is kept")
        assert told.count == 1, "it has its place until it leaves"
        answer.cancel()
        await until(lambda: told.count == 0, "its place is free")


async def test_who_listens_hears_when_the_pool_is_gone() -> None:
    async with a_lab() as lab:
        lab.keeps(a=Keeper(ended("first")))
        answer = lab.asks(ANN, WITHOUT_END)
        await begun([answer])
        lab.cluster.misses(POOL.key)
        assert not answer.done(), "somebody may have deleted its Secret"
        lab.cluster.loses(POOL.key)
        async with asyncio.timeout(patience(10)):
            assert await answer.code() is grpc.StatusCode.UNAVAILABLE
        assert "is not served here any more" in await answer.details()


async def test_who_listens_and_is_removed_hears_so_at_once() -> None:
    async with a_lab() as lab:
        lab.keeps(a=Keeper(ended("first")))
        answers = {identity: lab.asks(identity, WITHOUT_END) for identity in (ANN, BOB)}
        await begun(list(answers.values()))
        bob = ClientBrief(identity=BOB, name="bob")
        lab.cluster.configs = {POOL.key: a_config(clients=(bob,))}
        lab.cluster.pools.refresh(POOL.key)
        async with asyncio.timeout(patience(10)):
            assert await answers[ANN].code() is grpc.StatusCode.PERMISSION_DENIED
        lab.served.records.tell("a", ended("secret"))
        assert read_event(await answers[BOB].read()).build.ref == "secret"
        answers[BOB].cancel()


async def test_who_is_removed_while_a_list_waits_is_not_listed_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "MAX_LISTS", 1)
    keeper = Keeper(ended("first"))
    keeper.is_hung = True
    async with a_lab() as lab:
        lab.keeps(a=keeper)
        first = lab.asks(ANN)
        await until(lambda: len(keeper.asked) == 1, "it has the only place")
        second = lab.asks(ANN)
        await second.initial_metadata()
        assert lab.served.bounds.waiting == 2, "lists are requests that wait, too"
        bob = ClientBrief(identity=BOB, name="bob")
        lab.cluster.configs = {POOL.key: a_config(clients=(bob,))}
        lab.cluster.pools.refresh(POOL.key)
        first.cancel()
        async with asyncio.timeout(patience(10)):
            assert await second.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_who_is_removed_before_listening_hears_nothing() -> None:
    async with a_lab() as lab:
        lab.keeps(a=Keeper(ended("first")))
        ticketed = lab.asks(ANN, WITHOUT_END)  # its ticket is issued before anything else happens
        bob = ClientBrief(identity=BOB, name="bob")
        lab.cluster.configs = {POOL.key: a_config(clients=(bob,))}
        lab.cluster.pools.refresh(POOL.key)
        async with asyncio.timeout(patience(10)):
            assert await ticketed.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_whether_a_build_runs_is_asked_where_a_daemon_has_not_said_what_it_runs() -> None:
    """The router knows of no build, as it has just started, or the builder drains."""
    running = read_event(an_event(BuildEventKind.STARTED, "mine"))
    async with a_lab() as lab:
        lab.keeps(a=Keeper(running))
        assert not lab.served.scheduler.locator.hears_all
        request = HistoryRequest(ref="mine", is_active_only=True)
        assert await lab.lists(ANN, request) == 1


async def test_what_the_daemons_refuse_is_said_in_their_words() -> None:
    keeper = Keeper()
    keeper.trouble = DaemonRefusedError("invalid limit -1")
    async with a_lab() as lab:
        lab.keeps(a=keeper)
        answer = lab.asks(ANN)
        assert await answer.code() is grpc.StatusCode.UNKNOWN
        assert await answer.details() == "invalid limit -1"


async def test_a_list_that_is_given_up_for_others_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buildpool.gateway.pools.unsent.MAX_UNSENT_BYTES", 7_000_000)
    async with a_lab() as lab:
        lab.keeps(a=Prolific())
        slow = lab.asks(ANN)
        await begun([slow])
        assert await lab.lists(BOB) == 20
        with pytest.raises(grpc.aio.AioRpcError, match="read too slowly") as error:
            await to_its_end(slow)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
