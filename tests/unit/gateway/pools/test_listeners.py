"""Who listens to a pool hears of its builds, and nobody costs more than is allowed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from buildpool.buildkit import BuildEvent, BuildEventKind, Room
from buildpool.core.observed.load import RunningBuild
from buildpool.gateway.pools import listeners as module
from buildpool.gateway.pools.listeners import Listeners
from buildpool.gateway.slots.refusals import Denied, Exhausted

STARTED, COMPLETE = BuildEventKind.STARTED, BuildEventKind.COMPLETE


def an_event(ref: str, kind: BuildEventKind = COMPLETE, size: int = 10) -> BuildEvent:
    return BuildEvent(kind, RunningBuild(ref, None), message=bytes(size))


async def test_events_of_all_daemons_come_in_their_order() -> None:
    listeners = Listeners()
    with listeners.listen("ann", "") as ann, listeners.listen("bob", "") as bob:
        waiting = asyncio.create_task(ann.next())
        await asyncio.sleep(0)
        for uid, ref in (("a", "one"), ("b", "two")):
            listeners.tell(uid, an_event(ref))
        assert (await waiting).build.ref == "one"
        assert (await ann.next()).build.ref == "two"
        assert (await bob.next()).build.ref == "one"


async def test_a_start_is_told_once_though_daemons_repeat_it() -> None:
    listeners = Listeners()
    with listeners.listen("ann", "") as ann:
        assert ann.is_news(an_event("one", STARTED))
        for event in (
            an_event("one", STARTED),
            an_event("two", STARTED),
            an_event("two", STARTED),
            an_event("one"),
            an_event("one"),
        ):
            listeners.tell("a", event)
        told = [(await ann.next()) for _ in range(3)]
        assert [(e.build.ref, e.kind) for e in told] == [
            ("two", STARTED),
            ("one", COMPLETE),
            ("one", COMPLETE),
        ]


async def test_a_listener_to_one_build_hears_of_no_other_and_from_no_other() -> None:
    listeners = Listeners()
    with listeners.listen("ann", "mine") as ann:
        ann.teller = "a"
        listeners.tell("a", an_event("other"))
        listeners.tell("liar", an_event("mine", size=1))
        listeners.tell("a", an_event("mine", size=2))
        assert len((await ann.next()).message) == 2


@pytest.mark.parametrize("limit", ["MAX_UNHEARD_BYTES", "MAX_UNHEARD_EVENTS"])
async def test_a_daemon_that_floods_costs_its_own_events_only(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, {"MAX_UNHEARD_BYTES": 50, "MAX_UNHEARD_EVENTS": 5}[limit])
    listeners = Listeners()
    with listeners.listen("ann", "") as ann:
        for number in range(1_000):
            listeners.tell("loud", an_event(f"loud{number}"))
        listeners.tell("quiet", an_event("quiet"))
        told = [(await ann.next()).build.ref for _ in range(6)]
        assert told == [*(f"loud{number}" for number in range(5)), "quiet"]
        listeners.tell("loud", an_event("later"))
        assert (await ann.next()).build.ref == "later"


async def test_an_event_that_is_longer_than_the_room_is_heard_alone() -> None:
    listeners = Listeners(Room(0))
    with listeners.listen("ann", "") as ann:
        listeners.tell("a", an_event("long", size=module.MAX_EVENT_BYTES))
        listeners.tell("a", an_event("lost"))
        assert (await ann.next()).build.ref == "long"


async def test_an_event_that_is_longer_than_any_record_is_heard_by_nobody() -> None:
    """A client can build with an argument of megabytes, and read none of what it listens to."""
    listeners = Listeners()
    with listeners.listen("ann", "") as ann:
        listeners.tell("a", an_event("long", size=module.MAX_EVENT_BYTES + 1))
        listeners.tell("a", an_event("usual"))
        assert (await ann.next()).build.ref == "usual"


async def test_so_many_listen_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTENERS", 2)
    monkeypatch.setattr(module, "MAX_LISTENERS_OF_CLIENT", 1)
    listeners = Listeners()
    with listeners.listen("ann", ""):
        with pytest.raises(Exhausted), listeners.listen("ann", ""):
            pass
        with listeners.listen("bob", ""), pytest.raises(Exhausted), listeners.listen("carl", ""):
            pass
        with listeners.listen("carl", ""):
            pass


async def test_what_is_remembered_of_starts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STARTED", 1)
    with Listeners().listen("ann", "") as ann:
        one, two = an_event("one", STARTED), an_event("two", STARTED)
        assert [ann.is_news(each) for each in (one, two, two, one)] == [True, True, True, False]
        ann.is_news(replace(one, kind=COMPLETE))
        assert [ann.is_news(each) for each in (two, two)] == [True, False]


async def test_the_listeners_of_all_pools_share_one_room_and_who_reads_at_once_misses_nothing() -> (
    None
):
    room = Room(20)
    one, other = Listeners(room), Listeners(room)
    with one.listen("ann", "") as slow, other.listen("bob", "") as quick:
        for number in range(5):
            one.tell("a", an_event(f"ref{number}"))
        assert room.left == 0
        for number in range(5):
            other.tell("a", an_event(f"ref{number}"))
            assert (await quick.next()).build.ref == f"ref{number}"
        assert [(await slow.next()).build.ref for _ in range(2)] == ["ref0", "ref1"]
        assert room.left == 20
        one.tell("a", an_event("left"))
    assert room.left == 20


async def test_those_who_may_not_listen_any_more_hear_why() -> None:
    listeners, why = Listeners(), Denied("this client was removed")
    with listeners.listen("ann", "") as ann, listeners.listen("bob", "") as bob:
        waiting = asyncio.create_task(ann.next())
        await asyncio.sleep(0)
        listeners.tell("a", an_event("one"))
        listeners.end(why, but={"bob"})
        listeners.tell("a", an_event("two"))
        with pytest.raises(Denied, match="this client was removed"):
            await waiting
        with pytest.raises(Denied):
            await ann.next()
        assert [(await bob.next()).build.ref for _ in range(2)] == ["one", "two"]


def test_no_client_has_half_of_the_places() -> None:
    assert module.MAX_LISTENERS_OF_CLIENT * 8 <= module.MAX_LISTENERS
