"""Where the records of builds are found, whatever the daemons of a pool say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from buildpool.buildkit import (
    BuildEvent,
    BuildEventKind,
    DaemonAccess,
    DaemonError,
    DaemonLateError,
    DaemonRefusedError,
    Room,
)
from buildpool.buildkit.history import read_event
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.buildkit.watcher import Target
from buildpool.core.naming import PoolKey
from buildpool.core.pki import KeyPair
from buildpool.gateway.pools import fleet, leaving
from buildpool.gateway.pools import records as module
from buildpool.gateway.pools.fleet import Fleet
from buildpool.gateway.pools.records import BuildRecords, NoAnswer
from daemons import an_event
from unit.gateway.keepers import Keeper, ended, named

CI = PoolKey("builds", "ci")
EVERYTHING = HistoryRequest()


def records_of(**keepers: Keeper | None) -> BuildRecords:
    """Those of a pool with these daemons."""
    return records_among(keepers)


def records_among(watched: Mapping[str, Keeper | None]) -> BuildRecords:
    """The same of daemons that come and go."""
    return BuildRecords(Fleet(CI, lambda: watched, no_other))


def no_other(*_: object) -> Keeper:
    raise AssertionError("nobody drains")


def refs(events: list[BuildEvent]) -> list[str]:
    return [event.build.ref for event in events]


async def test_a_record_is_where_a_daemon_tells_of_it() -> None:
    """BuildKit tells of builds that run beside it, whatever the filter."""
    other = read_event(an_event(BuildEventKind.STARTED, "other"))
    a, b = Keeper(other), Keeper(other, ended("mine"))
    found = records_of(a=a, b=b)
    assert await found.find("mine") == "b"
    assert await found.find("mine") == "b", "it is remembered"
    assert b.asked == [HistoryRequest(ref="mine").for_daemon()]
    assert await found.find("nobodys") == ""
    assert await found.find("") == ""


async def test_the_records_of_all_are_listed_as_those_of_one() -> None:
    a = Keeper(ended("b", after=2), ended("d", after=4))
    b = Keeper(ended("a", after=1), ended("c", after=3))
    found = records_of(a=a, b=b, c=Keeper())
    assert refs(await found.listed(EVERYTHING)) == ["a", "b", "c", "d"]
    assert refs(await found.listed(HistoryRequest(limit=3))) == ["d", "c", "b"]
    assert refs(await records_of(a=Keeper()).listed(EVERYTHING)) == []


async def test_one_that_does_not_answer_costs_its_own_records_only() -> None:
    broken = Keeper()
    broken.trouble = DaemonError("it is broken")
    found = records_of(a=Keeper(ended("a")), b=broken, c=None)
    assert refs(await found.listed(EVERYTHING)) == ["a"]
    with pytest.raises(NoAnswer):
        await records_of(b=broken, c=None).listed(EVERYTHING)
    with pytest.raises(NoAnswer):
        await records_of().listed(EVERYTHING)


LATE = DaemonLateError("it does not answer within 3 s")


async def test_a_daemon_that_was_late_is_not_waited_for_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = Keeper(ended("b"))
    late.trouble = LATE
    found = records_of(a=Keeper(ended("a")), b=late)
    for _ in range(3):
        assert refs(await found.listed(EVERYTHING)) == ["a"]
    assert len(late.asked) == 1
    alone = records_of(b=late)
    for _ in range(2):
        with pytest.raises(NoAnswer):
            await alone.listed(EVERYTHING)
    assert len(late.asked) == 3, "nobody else can answer"
    monkeypatch.setattr(fleet, "SILENT_SECONDS", 0.0)
    await found.listed(HistoryRequest(ref="b"), runs_on="b")
    late.trouble = None
    assert refs(await found.listed(EVERYTHING)) == ["a", "b"], "it was asked, and answers"


async def test_one_that_fails_at_once_is_asked_again() -> None:
    broken = Keeper(ended("b"))
    broken.trouble = DaemonError("UNAVAILABLE: connection refused")
    found = records_of(a=Keeper(ended("a")), b=broken)
    assert refs(await found.listed(EVERYTHING)) == ["a"]
    broken.trouble = None
    assert refs(await found.listed(EVERYTHING)) == ["a", "b"]


@pytest.mark.parametrize("question", ["list", "find", "content"])
async def test_what_no_other_has_is_looked_for_at_one_that_was_late(question: str) -> None:
    """It is nobody's, else, for as long as that one is left out."""
    busy = Keeper(ended("mine"), content=(named(5),))
    busy.trouble = LATE
    found = records_of(good=Keeper(ended("other")), busy=busy)
    await found.listed(EVERYTHING)
    busy.trouble = None
    match question:
        case "list":
            assert refs(await found.listed(HistoryRequest(ref="mine"))) == ["mine"]
        case "find":
            assert await found.find("mine") == "busy"
        case "content":
            assert await found.holder_of(named(5)) == "busy"
    assert refs(await found.listed(EVERYTHING)) == ["mine", "other"], "it is late no more"


async def test_nobody_waits_for_one_that_was_late_to_hear_that_a_build_does_not_run() -> None:
    late = Keeper()
    late.trouble = LATE
    found = records_of(a=Keeper(), b=late)
    await found.listed(EVERYTHING)
    assert await found.listed(HistoryRequest(ref="probe", is_active_only=True)) == []
    assert len(late.asked) == 1


async def test_a_list_waits_for_daemons_that_the_router_has_not_heard_yet() -> None:
    """It has just started: of two builders, it has heard one."""
    watched: dict[str, Keeper | None] = {"a": Keeper(ended("one"), content=()), "b": None}
    is_heard = asyncio.Event()

    async def heard() -> None:
        await is_heard.wait()

    found = BuildRecords(Fleet(CI, lambda: watched, no_other, heard=heard))
    listing = asyncio.create_task(found.listed(EVERYTHING))
    looking = asyncio.create_task(found.find("two"))
    known = await found.find("one")
    assert known == "a", "what is found needs no waiting"
    assert not listing.done()
    watched["b"] = Keeper(ended("two"))
    is_heard.set()
    assert refs(await listing) == ["one", "two"]
    assert await looking == "b"


async def test_what_a_daemon_refuses_is_refused() -> None:
    keeper = Keeper()
    keeper.trouble = DaemonRefusedError("invalid limit -1")
    with pytest.raises(DaemonRefusedError, match="invalid limit"):
        await records_of(a=keeper).listed(EVERYTHING)


async def test_nobody_waits_for_the_others_once_a_record_is_found() -> None:
    hung = Keeper()
    hung.is_hung = True
    found = records_of(a=hung, b=Keeper(ended("mine", named(1)), content=(named(2),)))
    assert await found.find("mine") == "b"
    assert refs(await found.listed(HistoryRequest(ref="mine"))) == ["mine"]
    assert await found.holder_of(named(2)) == "b"


async def test_the_builder_of_a_build_is_asked_alone() -> None:
    a, b = Keeper(), Keeper(ended("mine"))
    found = records_of(a=a, b=b)
    assert refs(await found.listed(HistoryRequest(ref="mine"), runs_on="b")) == ["mine"]
    assert a.asked == []
    assert refs(await found.listed(HistoryRequest(ref="mine"), runs_on="a")) == ["mine"]
    assert refs(await found.listed(HistoryRequest(ref="mine"), runs_on="gone")) == ["mine"]


async def test_no_daemon_speaks_for_the_builds_of_another() -> None:
    """A step that breaks out of its sandbox speaks for its daemon."""
    watched = {"liar": Keeper(ended("mine", named(1))), "b": Keeper(ended("mine", named(2)))}
    found = records_of(**watched)
    found.built("mine", "b")
    assert [e.message for e in await found.listed(EVERYTHING)] == [watched["b"].kept[0].message]
    with found.listeners.listen("ann", "") as listener:
        found.tell("liar", ended("mine"))
        found.tell("b", ended("mine", named(9)))
        assert named(9).encode() in (await listener.next()).message
    assert await found.find("mine") == "b"


async def test_records_on_a_volume_are_those_of_the_pod_that_has_it_now() -> None:
    found = records_of(new=Keeper(ended("mine")))
    found.built("mine", "old")
    assert await found.find("mine") == "new"
    assert refs(await found.listed(EVERYTHING)) == ["mine"]


ACCESS = DaemonAccess(b"", KeyPair(b"", b""))


def leaving_records(keeper: Keeper) -> BuildRecords:
    """Those of a pool with one builder, which drains."""
    found = BuildRecords(Fleet(CI, dict, lambda *_: keeper))
    found.fleet.leave({"a": Target("10.0.0.1:1234", ACCESS)})
    return found


async def test_builders_that_drain_are_asked_and_no_connection_to_them_is_left() -> None:
    keeper = Keeper(ended("mine"), content=(named(1),))
    found = leaving_records(keeper)
    assert refs(await found.listed(EVERYTHING)) == ["mine"]
    assert keeper.is_closed
    assert await found.find("mine") == "a"
    assert await found.holder_of(named(1)) == "a"


async def test_who_asks_over_and_over_keeps_no_builder_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits until nobody is connected."""
    keeper = Keeper(ended("mine"), ended("other"))
    found = leaving_records(keeper)
    for _ in range(3):
        assert refs(await found.listed(EVERYTHING)) == ["mine", "other"]
        assert refs(await found.listed(HistoryRequest(ref="mine"))) == ["mine"]
        assert await found.holder_of(named(7)) == ""
    assert len(keeper.asked) == 3
    found.fleet.leave({"a": Target("10.0.0.1:1234", ACCESS)})
    await found.listed(EVERYTHING)
    assert len(keeper.asked) == 3, "it is the same one"
    found.fleet.changes("a")
    keeper.kept.pop()
    assert refs(await found.listed(EVERYTHING)) == ["mine"], "a client has removed a record"
    monkeypatch.setattr(leaving, "KEPT_SECONDS", 0.0)
    found.fleet.leave({"a": Target("10.0.0.2:1234", ACCESS)})
    for number in (5, 6):
        await found.listed(EVERYTHING)
        assert len(keeper.asked) == number, "what was said long ago counts no more"


async def test_what_is_kept_of_the_answers_of_one_that_drains_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = Keeper(ended("mine"))
    found = leaving_records(keeper)
    monkeypatch.setattr(leaving, "MAX_KEPT_BYTES", 2 * leaving.ANSWER_BYTES)
    for _ in range(2):
        for number in range(3):
            await found.holder_of(named(number))
    assert len(keeper.asked) == 6, "the oldest were dropped"
    await found.holder_of(named(2))
    assert len(keeper.asked) == 6


async def test_questions_to_one_that_drains_count_like_its_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = Keeper(ended("mine"))
    found = leaving_records(keeper)
    monkeypatch.setattr(leaving, "MAX_KEPT_BYTES", 100_000)
    for _ in range(2):
        for number in range(3):
            await found.listed(HistoryRequest(rest=bytes([number]) * 60_000))
    assert len(keeper.asked) == 6, "one of them has room"


async def test_another_build_by_the_ref_of_one_does_not_take_its_record() -> None:
    """Clients choose refs: who may only import could hide the builds of others so."""
    watched = {"x": Keeper(ended("victim", named(1))), "y": Keeper()}
    found = records_of(**watched)
    found.built("victim", "x")
    found.built("victim", "y")
    watched["y"].kept.append(ended("victim", named(2)))
    (event,) = await found.listed(EVERYTHING)
    assert event.message == watched["x"].kept[0].message
    assert await found.find("victim") == "x"


async def test_no_list_is_longer_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = ended("one"), ended("two")
    monkeypatch.setattr(module, "MAX_LISTED_BYTES", len(one.message))
    assert refs(await records_of(a=Keeper(two), b=Keeper(one)).listed(EVERYTHING)) == ["one"]


async def test_content_is_read_where_it_is() -> None:
    a = Keeper(ended("one", named(1)), content=(named(1),))
    b = Keeper(ended("three", named(3)), content=(named(3), named(4)))
    found = records_of(a=a, b=b)
    await found.listed(EVERYTHING)
    assert await found.holder_of(named(3)) == "b"
    assert await found.holder_of(named(1)) == "a"
    assert b.asked == [EVERYTHING.for_daemon()], "it is known from the records"
    assert await found.holder_of(named(4)) == "b", "it lies within other content"
    assert await found.holder_of(named(9)) == ""
    assert b.asked.count(named(4).encode()) == 1


@pytest.mark.parametrize("digest", ["", "sha256:x", named(1)[:-1], "../etc"])
async def test_nobody_is_asked_for_what_is_no_digest(digest: str) -> None:
    a = Keeper(content=(digest,))
    assert await records_of(a=a).holder_of(digest) == ""
    assert a.asked == []


@pytest.mark.parametrize("liar_is_first", [False, True])
async def test_content_stays_where_it_was_found_whatever_another_daemon_says(
    liar_is_first: bool,
) -> None:
    """A record of its own can name anything. What went there from here counts more."""
    good, liar = Keeper(ended("mine", named(1))), Keeper(ended("liars-own", named(1)))
    watched = {"liar": liar, "good": good} if liar_is_first else {"good": good, "liar": liar}
    found = records_among(watched)
    found.built("mine", "good")
    for _ in range(2):
        await found.listed(EVERYTHING)
        assert await found.holder_of(named(1)) == "good"
    del watched["good"]
    await found.listed(EVERYTHING)
    assert await found.holder_of(named(1)) == "liar", "the other is gone"


async def test_content_that_was_found_before_stays_where_it_is() -> None:
    watched = {"good": Keeper(ended("mine", named(1)))}
    found = records_among(watched)
    await found.listed(EVERYTHING)
    watched["liar"] = Keeper(ended("liars-own", named(1)))
    found.built("liars-own", "good")
    await found.listed(EVERYTHING)
    assert await found.holder_of(named(1)) == "good"


async def test_a_daemon_that_says_much_has_nothing_forgotten_that_others_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_REFS", 2)
    monkeypatch.setattr(module, "MAX_DIGESTS", 3)
    many = [ended(f"x{n}", named(1000 + n), named(2000 + n)) for n in range(20)]
    good, liar = Keeper(ended("mine", named(1)), content=(named(1),)), Keeper(*many)
    found = records_of(good=good, liar=liar)
    await found.find("mine")
    await found.listed(EVERYTHING)
    assert found.holder_known("mine") == "good"
    assert await found.holder_of(named(1)) == "good"
    assert named(1).encode() not in (*good.asked, *liar.asked), "it is known"
    assert [found.holder_known(f"x{n}") for n in (0, 17, 18, 19)] == ["", "", "liar", "liar"]
    for number in (2019, 1019, 2018, 1018):
        await found.holder_of(named(number))
    assert [len(each) for each in liar.asked if each.startswith(b"sha")] == [71], "one was dropped"


async def test_of_a_build_of_which_two_daemons_tell_the_first_speaks() -> None:
    """Its record was copied, or the router has started again, and one of them lies."""
    found = records_of(a=Keeper(ended("mine")), b=Keeper(ended("mine", named(7))))
    for _ in range(2):
        (event,) = await found.listed(EVERYTHING)
        assert named(7).encode() not in event.message
    assert await found.find("mine") == "a"


async def test_a_record_that_is_gone_is_looked_for_elsewhere() -> None:
    a, b = Keeper(ended("mine")), Keeper()
    found = records_of(a=a, b=b)
    assert await found.find("mine") == "a"
    a.kept, b.kept = b.kept, a.kept
    assert refs(await found.listed(HistoryRequest(ref="mine"))) == ["mine"]
    assert await found.find("mine") == "b"


async def test_the_one_that_has_a_record_is_waited_for_once() -> None:
    late = Keeper()
    found = records_of(a=Keeper(), b=late)
    found.built("mine", "b")
    late.trouble = LATE
    assert await found.listed(HistoryRequest(ref="mine")) == []
    assert len(late.asked) == 1


async def test_what_comes_of_all_daemons_has_so_much_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is part of the list makes room for what comes."""
    rooms: list[int] = []

    class Counting(Keeper):
        async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
            rooms.append(room.left)
            return await super().records(request, room, ref=ref)

    keepers = {f"k{n}": Counting(ended(f"r{n}")) for n in range(40)}
    monkeypatch.setattr(fleet, "ASKED_AT_ONCE", 1)
    assert len(await records_of(**keepers).listed(EVERYTHING)) == 40
    assert set(rooms) == {module.MAX_COMING_BYTES}


async def test_records_that_are_long_are_looked_through_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NOTED_BYTES", 1)
    monkeypatch.setattr(module, "MAX_DIGESTS_OF_BUILD", 2)
    found = records_of(a=Keeper(*(ended(f"r{n}", *map(named, range(9))) for n in range(100))))
    turns = 0
    listing = asyncio.create_task(found.listed(EVERYTHING))
    while not listing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100
    assert [await found.holder_of(named(n)) for n in (0, 1, 2)] == ["a", "a", ""]


@pytest.mark.parametrize("kind", ["lists", "searches"])
async def test_few_questions_go_to_all_daemons_at_once(kind: str) -> None:
    keeper = Keeper()
    found = records_of(a=keeper)
    if kind == "lists":
        await asyncio.gather(*(found.listed(EVERYTHING) for _ in range(20)))
    else:
        await asyncio.gather(*(found.find(f"ref{n}") for n in range(20)))
    most = {"lists": module.LISTS_AT_ONCE, "searches": module.SEARCHES_AT_ONCE}
    assert (len(keeper.asked), keeper.most_at_once) == (20, most[kind])
