"""Where the connections of one pool wait."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import pytest

import virtual_time
from buildpool.core.api import PoolSpec
from buildpool.core.naming import PoolKey
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.states import GRACE, PATIENCE
from buildpool.core.routing.values import Backlog, Target
from buildpool.core.scaling import SETTLE, Builder, Calm, Decision, LastDecision, decide
from buildpool.gateway.slots.arrivals import Arrivals
from buildpool.gateway.slots.locator import COMING_SECONDS
from buildpool.gateway.slots.refusals import Exhausted, NotServed, Unavailable
from buildpool.gateway.slots.scheduler import SlotScheduler
from buildpool.gateway.slots.store import ConnectionStore
from samples import NOW

POOL = PoolKey("builds", "ci")
LONG = timedelta(hours=1)
T = TypeVar("T")


def a_builder(number: int = 0) -> Target:
    return Target(f"ci-builder-{number}", f"uid-{number}", f"10.0.0.{number}:1234")


class Place:
    """A desk whose world and clock a test sets."""

    def __init__(self, *builders: Target, slots: int = 1) -> None:
        self.state = PoolState(builders, {}, slots)
        self.now: datetime = NOW
        self.is_closed = False
        self.told = 0
        self.memory = ConnectionStore(None, now=NOW)
        self.scheduler = self.another_desk()

    def another_desk(self) -> SlotScheduler:
        """The desk of the next process."""
        return SlotScheduler(
            POOL,
            self._known,
            clock=lambda: self.now,
            memory=self.memory,
            told=self._tell,
        )

    def _known(self) -> PoolState:
        if self.is_closed:
            raise NotServed(POOL)
        return self.state

    def _tell(self) -> None:
        self.told += 1

    def becomes(self, *builders: Target) -> None:
        """Other builders are there now."""
        self.state = PoolState(builders, {}, self.state.slots)
        self.scheduler.dispatch()

    def heard(self) -> Place:
        """All daemons say that they run nothing."""
        nothing = {builder.uid: frozenset[str]() for builder in self.state.builders}
        self.state = replace(self.state, builds=nothing)
        return self

    async def wait_for_slot(self, connection: str, *, max_wait: timedelta = LONG) -> timedelta:
        return await self.scheduler.wait_for_slot(connection, "ann", max_wait=max_wait)

    def admit(self, connection: str, *, max_wait: timedelta = LONG) -> asyncio.Task[timedelta]:
        return begun(self.scheduler.admit(connection, "ann", max_wait=max_wait))


def begun(work: Coroutine[None, None, T]) -> asyncio.Task[T]:
    """Work that goes on beside the test."""
    return asyncio.create_task(work)


async def nowhere() -> None:
    """No builder has a record."""
    return


async def settled() -> None:
    """Until everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_finds_a_free_slot_does_not_wait() -> None:
    place = Place(a_builder())
    assert await place.admit("a") == timedelta(0)
    assert place.scheduler.backlog == Backlog()


async def test_who_finds_none_waits_until_a_build_has_ended() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref")
    waiting = place.admit("b")
    await settled()
    assert not waiting.done()
    assert place.scheduler.backlog == Backlog(1, NOW)
    place.now += timedelta(seconds=7)
    place.scheduler.end("a")
    assert await waiting == timedelta(seconds=7)
    assert place.scheduler.backlog == Backlog()


async def test_a_slot_is_given_once_though_its_builder_is_chosen_later() -> None:
    place = Place(a_builder())
    await place.admit("a")
    tasks = [place.admit("b"), place.admit("c")]
    await settled()
    place.scheduler.leave("a")
    await tasks[0]
    await place.scheduler.begin("b", "ann", None, "ref")
    await settled()
    assert not tasks[1].done()
    tasks[1].cancel()


async def test_who_waits_for_too_long_is_told_how_long_and_for_what() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None)
    with pytest.raises(
        Exhausted, match=r"pool builds/ci: waited 0s for a slot, 1 of 1 builders busy"
    ):
        await place.admit("b", max_wait=timedelta(0))
    assert place.scheduler.backlog == Backlog()


async def test_without_any_builder_the_words_are_others() -> None:
    with pytest.raises(Exhausted, match="no builder ready"):
        await Place().admit("a", max_wait=timedelta(0))


async def test_who_gives_up_makes_room_for_the_next() -> None:
    place = Place(a_builder())
    await place.admit("a")
    first, second = place.admit("b"), place.admit("c")
    await settled()
    first.cancel()
    place.scheduler.leave("a")
    await second
    assert place.scheduler.backlog == Backlog()


async def test_a_reservation_that_nobody_used_goes_to_the_next() -> None:
    place = Place(a_builder())
    await place.admit("a")
    waiting = place.admit("b")
    await settled()
    place.now += PATIENCE
    place.scheduler.dispatch()
    assert await waiting == PATIENCE


async def test_a_builder_that_comes_is_given_at_once() -> None:
    place = Place()
    waiting = place.admit("a")
    await settled()
    place.becomes(a_builder())
    await waiting


async def test_a_builder_that_retires_under_a_slot_which_nobody_used_yet_is_restored() -> None:
    """The operator is not told of such slots: it knows in time of a build that misses its own."""
    place = Place(a_builder())
    await place.admit("a")
    spec = PoolSpec.model_validate(
        {"routing": "Gateway", "scaling": {"min": 0, "max": 1, "idleAfter": "1s"}}
    )
    idle = Builder(0, NOW, is_ready=True, builds=0, as_of=NOW)
    memory = LastDecision(1, Calm(NOW - LONG, 0))

    def decided(builder: Builder) -> Decision:
        waiting = place.scheduler.backlog.waiting
        return decide(
            spec, [builder], taken=frozenset(), memory=memory, waiting=waiting, now=place.now
        )

    assert [each.index for each in decided(idle).retire] == [0]
    place.becomes(replace(a_builder(), is_serving=False))
    told = place.told
    session = begun(place.scheduler.follow("a", "ann", None))
    solve = begun(place.scheduler.begin("a", "ann", None, "ref"))
    await settled()
    assert place.told > told
    place.now += SETTLE / 2
    assert decided(replace(idle, retired=NOW)).restore == (0,)
    place.becomes(a_builder())
    assert (await session).builder == (await solve).builder == a_builder()


async def test_a_queue_moves_as_long_as_somebody_gets_a_slot() -> None:
    place = Place(a_builder())
    await place.admit("a")
    tasks = [place.admit("b"), place.admit("c")]
    await settled()
    place.now += timedelta(minutes=3)
    place.scheduler.leave("a")
    await tasks[0]
    assert place.scheduler.backlog == Backlog(1, NOW + timedelta(minutes=3))
    tasks[1].cancel()


async def test_a_session_goes_where_its_solve_goes() -> None:
    place = Place(a_builder(0), a_builder(1), a_builder(2))
    await place.admit("a")
    session = begun(place.scheduler.follow("a", "ann", "what the session knows"))
    await settled()
    assert not session.done()
    solve = await place.scheduler.begin("a", "ann", "what is built")
    assert (await session).builder == solve.builder


async def test_what_is_asked_about_a_build_waits_for_its_builder() -> None:
    place = Place(a_builder())
    await place.admit("a")
    asked = begun(place.scheduler.locator.home_of("a", "ref"))
    await settled()
    assert not asked.done()
    await place.scheduler.begin("a", "ann", None)
    assert await asked == a_builder()


async def test_a_build_is_found_on_another_connection_by_its_ref() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref")
    assert await place.scheduler.locator.home_of("another connection", "ref") == a_builder()


@pytest.mark.parametrize("has_said_hello", [False, True])
@pytest.mark.parametrize("ref", ["unheard-of", ""])
async def test_of_a_build_that_nobody_runs_a_builder_says_so(
    ref: str, has_said_hello: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of BuildKit, and not after all the time that a build could take to come."""
    monkeypatch.setattr("buildpool.gateway.slots.locator.DAEMON_SECONDS", 0.01 if ref else 60.0)
    place = Place(a_builder()).heard()
    leaving = replace(a_builder(1), is_serving=False, is_leaving=True)  # it is not asked any more
    place.state = replace(place.state, builders=(*place.state.builders, leaving))
    if has_said_hello:
        await place.admit("a")
    async with asyncio.timeout(5):
        assert await place.scheduler.locator.home_of("a", ref) == a_builder()
        assert await place.scheduler.locator.owner_of("a", ref) is None
    with pytest.raises(Unavailable, match="has no builder now; a build wakes it"):
        await Place().scheduler.locator.home_of("a", ref)


@pytest.mark.parametrize("is_complete", [False, True])
async def test_what_is_asked_about_a_build_waits_until_all_builders_have_said_what_they_run(
    is_complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router may have just started, and the build have come through another one."""
    monkeypatch.setattr("buildpool.gateway.slots.locator.DAEMON_SECONDS", 0.01)
    place = Place(a_builder(0), a_builder(1))
    heard = {"uid-0": frozenset[str](), "uid-1": frozenset[str]()}
    place.state = replace(place.state, builds=heard, is_complete=is_complete)
    if is_complete:
        place.state = replace(place.state, builds={"uid-0": frozenset()})
    asked = begun(place.scheduler.locator.home_of("another connection", "ref"))
    await asyncio.sleep(0.05)
    assert not asked.done()
    place.state = replace(place.state, builds=heard | {"uid-1": frozenset({"ref"})})
    place.scheduler.dispatch()
    assert await asked == a_builder(1)


@pytest.mark.parametrize("question", ["home_of", "owner_of"])
@pytest.mark.parametrize("late", [0, 4.5])
def test_what_comes_before_its_build_waits_until_that_is_read_however_long_it_takes(
    question: str, late: float
) -> None:
    """``late``: the router may be busy, or new, and Envoy sends the solve once more."""

    async def story() -> None:
        place = Place(a_builder(0), a_builder(1)).heard()
        await place.admit("a")
        asked = begun(getattr(place.scheduler.locator, question)("a", "ref"))
        await asyncio.sleep(late)
        with place.scheduler.locator.solving("a"):
            await asyncio.sleep(COMING_SECONDS - 1)
            assert not asked.done()
            home = (await place.scheduler.begin("a", "ann", "another key", "ref")).builder
        assert await asked == ("ann" if question == "owner_of" else home)

    virtual_time.run(story())


@pytest.mark.parametrize("has_said_hello", [False, True])
async def test_a_connection_that_builds_nothing_does_not_wait_to_be_told_of_a_build(
    has_said_hello: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build has ended, as far as anybody knows: a builder says what its history has."""
    monkeypatch.setattr("buildpool.gateway.slots.locator.TOGETHER_SECONDS", 0.01)
    place = Place(a_builder())
    if has_said_hello:
        await place.admit("a")
    async with asyncio.timeout(5):
        assert await place.scheduler.locator.teller_of("a", "ref", nowhere) == a_builder()
    with pytest.raises(Unavailable, match="has no builder now; a build wakes it"):
        await Place().scheduler.locator.teller_of("a", "ref", nowhere)


async def test_nothing_is_kept_of_a_message_whose_build_was_refused() -> None:
    """A refusal that was raised would keep all that was there, for as long as its connection."""

    class Message:
        """Of which it can be seen whether it is there."""

    place, seen = Place(a_builder()), []

    async def solve() -> None:
        message = Message()
        seen.append(weakref.ref(message))
        with place.scheduler.locator.solving("a"):
            raise Exhausted("it is too long")

    await place.admit("a")
    with pytest.raises(Exhausted):
        await solve()
    gc.collect()
    assert [message() for message in seen] == [None]
    refusal = place.scheduler.locator.refusal("a")
    assert (type(refusal), str(refusal)) == (Exhausted, "it is too long")
    assert str(NotServed(POOL).again()) == str(NotServed(POOL))


async def test_the_refusal_of_one_solve_is_not_that_of_another() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref")
    waiting = begun(place.scheduler.wait_for_slot("b", "bob", max_wait=LONG))
    await settled()
    with pytest.raises(Exhausted), place.scheduler.locator.solving("b"):
        raise Exhausted("another one of this connection")
    await settled()
    assert not waiting.done()
    place.scheduler.end("a", "ref")
    await waiting


async def test_who_waits_for_a_solve_and_gives_up_leaves_nothing_behind() -> None:
    arrivals = Arrivals()
    arrivals.come("a")
    waiting = [begun(arrivals.begins("a", "x" * 200 + f"{number % 2}")) for number in range(10)]
    await settled()
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert arrivals._waiting == {"a": {}}
    assert not arrivals._waiters
    following = begun(arrivals.begins("a", "ref"))
    await settled()
    arrivals.begun("a", "ref")
    await following


async def test_who_asks_about_a_build_that_has_ended_is_told_where_its_record_is() -> None:
    place = Place(a_builder(0), a_builder(1))

    async def find() -> Target:
        return a_builder(1)

    async with asyncio.timeout(1):  # it does not wait for a build that may come
        assert await place.scheduler.locator.teller_of("a", "ref", find) == a_builder(1)


async def test_a_build_and_the_question_about_it_may_come_together_in_any_order() -> None:
    place = Place(a_builder())
    asked = begun(place.scheduler.locator.teller_of("a", "ref", nowhere))
    await asyncio.sleep(0)
    placement = await place.scheduler.begin("a", "ann", None, "ref")
    assert await asked == placement.builder


async def test_a_connection_that_has_built_does_not_wait_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("buildpool.gateway.slots.locator.TOGETHER_SECONDS", 0.01)
    place = Place(a_builder())
    await place.scheduler.begin("a", "ann", None, "built")
    place.scheduler.end("a", "built")
    async with asyncio.timeout(5):
        for ref in ("built", "another"):
            assert await place.scheduler.locator.teller_of("a", ref, nowhere) == a_builder()


async def test_what_is_asked_about_a_solve_that_has_come_waits_until_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have to wait for a slot, and its message may be large."""
    monkeypatch.setattr("buildpool.gateway.slots.locator.TOGETHER_SECONDS", 0.01)
    place = Place(a_builder(0), a_builder(1))
    locator = place.scheduler.locator
    with locator.solving("a"), locator.solving("a"):
        asked = begun(locator.teller_of("a", "ref", nowhere))
        await asyncio.sleep(0.1)
        assert not asked.done()
        placement = await place.scheduler.begin("a", "ann", None, "ref")
    assert await asked == placement.builder


async def test_a_question_wakes_a_pool_without_builders_and_takes_no_slot() -> None:
    place = Place()
    asked = begun(place.scheduler.any_builder("a", "ann", max_wait=LONG))
    await settled()
    assert place.scheduler.backlog == Backlog(1, NOW)
    place.becomes(a_builder())
    assert await asked == a_builder()
    assert place.scheduler.backlog == Backlog()
    await place.admit("b")


async def test_every_change_of_the_backlog_is_told() -> None:
    place = Place()
    waiting = place.admit("a")
    await settled()
    told = place.told
    assert told
    waiting.cancel()
    await settled()
    assert place.told > told


async def test_it_is_told_how_many_builds_share_a_slot() -> None:
    place = Place(a_builder())
    await place.admit("a")
    for ref in ("one", "two", "three"):
        await place.scheduler.begin("a", "ann", None, ref)
    told = place.told
    place.state = replace(place.state, builds={"uid-0": frozenset({"one", "two", "three"})})
    place.scheduler.dispatch()
    assert place.scheduler.backlog == Backlog(shared=2)
    assert place.told == told + 1
    place.is_closed = True
    assert place.scheduler.backlog == Backlog()


async def test_the_next_process_knows_which_connection_builds_where() -> None:
    place = Place(a_builder(0), a_builder(1), slots=2)
    await place.admit("a")
    home = (await place.scheduler.begin("a", "ann", None, "an internal build")).builder
    await place.admit("gone")
    await place.scheduler.begin("gone", "ann", None, "ref")
    place.scheduler.leave("gone")
    following = place.another_desk()
    assert await following.locator.home_of("a", "") == home
    assert await following.locator.home_of("another", "an internal build") == home
    assert not following.connections.is_known("gone")
    assert following.is_busy, "it may still build"
    retired = [replace(b, is_serving=b.uid != home.uid) for b in place.state.builders]
    place.becomes(*retired)
    assert (await following.begin("a", "ann", None, "linked")).builder.uid == home.uid


async def test_who_waits_for_a_pool_that_goes_is_told_and_what_builds_goes_on() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref")
    waiting = place.admit("b")
    await settled()
    place.becomes()
    asking = begun(place.scheduler.any_builder("c", "ann", max_wait=LONG))
    beginning = begun(place.scheduler.begin("d", "ann", None, "another ref"))
    await settled()
    place.scheduler.dismiss()
    await settled()
    assert beginning.done(), "it does not wait until it would be told something else"
    for work in (waiting, asking, beginning):
        with pytest.raises(Unavailable, match="pool builds/ci is not served here any more"):
            await work
    assert place.scheduler.backlog == Backlog()
    assert place.scheduler.is_busy


async def test_what_ends_after_its_pool_has_closed_ends_quietly() -> None:
    """Others clean up after it."""
    place = Place(a_builder())
    await place.scheduler.begin("a", "ann", None, "ref")
    place.is_closed = True
    place.scheduler.end("a", "ref")
    place.scheduler.leave("a")
    assert not place.scheduler.connections.is_known("a")


async def test_a_slot_that_was_given_is_known_to_the_next_process_though_nothing_has_begun() -> (
    None
):
    place = Place(a_builder())
    await place.admit("a")
    following = place.another_desk()
    waiting = begun(following.admit("b", "bob", max_wait=LONG))
    await settled()
    assert not waiting.done()
    await following.begin("a", "ann", None, "ref")
    waiting.cancel()


async def test_who_gave_its_slot_back_and_then_builds_is_the_next() -> None:
    """As a build on two pools does, one of which answers long before the other."""
    place = Place(a_builder())
    await place.admit("late")
    place.now += PATIENCE
    waiting = [place.admit("running"), place.admit("b"), place.admit("c")]
    await waiting[0]
    await place.scheduler.begin("running", "ann", None, "ref")
    beginning = begun(place.scheduler.begin("late", "ann", None, "its ref"))
    await settled()
    assert not beginning.done()
    place.scheduler.leave("running")
    await beginning
    assert not waiting[1].done()
    for task in waiting[1:]:
        task.cancel()


async def test_who_never_waited_does_not_pass_those_who_do_by_building_at_once() -> None:
    place = Place(a_builder())
    await place.admit("running")
    await place.scheduler.begin("running", "ann", None, "ref")
    waiting = place.admit("b")
    await settled()
    beginning = begun(place.scheduler.begin("bold", "ann", None, "its ref"))
    await settled()
    place.scheduler.leave("running")
    await waiting
    assert not beginning.done()
    beginning.cancel()


async def test_a_request_that_is_cancelled_takes_no_other_of_its_connection_along() -> None:
    place = Place(a_builder())
    await place.admit("running")
    first, second = place.admit("b"), place.admit("b")
    await settled()
    first.cancel()
    await settled()
    place.scheduler.leave("running")
    await second


async def test_a_request_of_a_connection_that_has_ended_is_answered() -> None:
    place = Place(a_builder())
    await place.admit("running")
    waiting = place.admit("b")
    await settled()
    place.scheduler.leave("b")
    with pytest.raises(Unavailable, match="the connection has ended"):
        await waiting


# --- internal builds: buildx asks so what a builder can, on the connection that then builds -------


async def test_a_builder_is_chosen_for_the_build_not_for_the_question_before_it() -> None:
    builders = [a_builder(number) for number in range(4)]
    place = Place(*builders)
    await place.admit("other")
    favourite = (await place.scheduler.begin("other", "ann", "the key", "ref")).builder
    place.scheduler.leave("other")
    others = [f"another key {number}" for number in range(8)]
    homes = set()
    for key in others:
        await place.admit(key)
        homes.add((await place.scheduler.begin(key, "ann", key, "probe", is_internal=True)).builder)
        place.scheduler.end(key)
        assert (
            await place.scheduler.begin(key, "ann", "the key", f"ref {key}")
        ).builder == favourite
        place.scheduler.leave(key)
    assert len(homes) > 1


async def test_who_was_only_asking_keeps_its_slot_for_a_while() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "probe", is_internal=True)
    waiting = place.admit("b")
    await settled()
    place.scheduler.end("a")
    await settled()
    assert not waiting.done()
    await place.scheduler.begin("a", "ann", None, "ref")
    await settled()
    assert not waiting.done()
    place.scheduler.end("a")
    await waiting


async def test_who_was_only_asking_gives_its_slot_back_like_all_who_build_nothing() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "probe", is_internal=True)
    place.scheduler.end("a")
    waiting = place.admit("b")
    place.now += PATIENCE
    place.scheduler.dispatch()
    await waiting


async def test_the_next_process_knows_that_somebody_was_only_asking() -> None:
    place = Place(a_builder(0), a_builder(1))
    await place.admit("a")
    asked = (await place.scheduler.begin("a", "ann", "x", "probe", is_internal=True)).builder
    place.scheduler.end("a")
    place.becomes(*(b for b in place.state.builders if b != asked))
    following = place.another_desk()
    assert following.connections.is_admitted("a")
    assert (await following.begin("a", "ann", "x", "ref")).builder != asked


async def test_what_is_asked_about_a_build_does_not_go_where_the_last_one_was() -> None:
    """The builder may be going, so that the build that begins just now goes elsewhere."""
    place = Place(a_builder(0), a_builder(1))
    await place.admit("a")
    last = (await place.scheduler.begin("a", "ann", None, "the last")).builder
    place.scheduler.end("a")
    asked = begun(place.scheduler.locator.home_of("a", "ref"))
    await settled()
    assert not asked.done()
    place.becomes(*(replace(b, is_serving=b != last) for b in place.state.builders))
    home = (await place.scheduler.begin("a", "ann", None, "ref")).builder
    assert await asked == home != last


async def test_a_session_waits_for_its_own_solve_not_for_the_last_one() -> None:
    place = Place(*(a_builder(number) for number in range(4)))
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "probe", is_internal=True)
    place.scheduler.end("a")
    session = begun(place.scheduler.follow("a", "ann", "what the session knows"))
    await settled()
    assert not session.done()
    solve = await place.scheduler.begin("a", "ann", "what is built", "ref")
    assert (await session).builder == solve.builder


async def test_solve_and_status_go_to_one_builder_should_the_process_end_now() -> None:
    place = Place(*(a_builder(number) for number in range(4)))
    await place.admit("a")
    provisional = place.scheduler.locator.provisional("a", "ann")
    assert provisional is not None
    await place.admit("b")
    await place.scheduler.begin("b", "bob", None, "ref")
    assert place.scheduler.locator.provisional("a", "ann") == provisional
    assert place.scheduler.locator.known_home("a", "") == provisional


async def test_the_session_that_targets_share_begins_though_the_slot_was_given_away() -> None:
    """Nobody says hello for it, and without it the targets fail that get their slots later."""
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "probe", is_internal=True)
    place.scheduler.end("a")
    place.now += PATIENCE
    waiting = place.admit("b")
    await waiting
    await place.scheduler.begin("b", "bob", None, "ref")
    session = await place.scheduler.begin("a", "ann", None)
    assert session.builder == a_builder()
    target = begun(place.scheduler.begin("a", "ann", None, "target"))
    assert (await target).builder == a_builder()


async def test_who_says_hello_again_has_its_slot_for_as_long_again() -> None:
    place = Place(a_builder())
    await place.admit("a")
    place.now += PATIENCE / 2
    await place.admit("a")
    waiting = place.admit("b")
    place.now += PATIENCE / 2
    place.scheduler.dispatch()
    await settled()
    assert not waiting.done()
    place.now += PATIENCE / 2
    place.scheduler.dispatch()
    await waiting


async def test_whose_a_build_is_is_known_once_it_begins_and_at_once_where_it_runs_elsewhere() -> (
    None
):
    place = Place(a_builder())
    await place.admit("a")
    asked = begun(place.scheduler.locator.owner_of("a", "ref"))
    await settled()
    assert not asked.done()
    await place.scheduler.begin("a", "ann", None, "ref")
    assert await asked == "ann"
    place.state = PoolState(place.state.builders, {a_builder().uid: frozenset({"foreign"})}, 1)
    assert await place.scheduler.locator.owner_of("a", "foreign") is None


# --- whoever is told no ---------------------------------------------------------------------------


async def test_who_waited_in_vain_is_told_so_at_once_when_it_asks_again() -> None:
    """buildx takes the first refusal for a daemon that is down, and asks in another way."""
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref")
    with pytest.raises(Exhausted) as first:
        await place.admit("b", max_wait=timedelta(0))
    for again in (
        place.admit("b"),
        begun(place.scheduler.any_builder("b", "ann", max_wait=LONG)),
    ):
        with pytest.raises(Exhausted) as later:
            await again
        assert str(later.value) == str(first.value)
    place.scheduler.leave("a")
    place.now += timedelta(minutes=1)
    await place.admit("b")


async def test_who_comes_back_after_its_slot_was_taken_back_is_the_next_once() -> None:
    """As buildx does that builds on two pools, and says hello again."""
    place = Place(a_builder())
    await place.admit("late")
    place.now += PATIENCE
    waiting = [place.admit("running"), place.admit("b")]
    await waiting[0]
    await place.scheduler.begin("running", "ann", None, "ref")
    late = place.admit("late")
    await settled()
    place.scheduler.leave("running")
    await late
    assert not waiting[1].done()
    place.now += PATIENCE
    place.scheduler.dispatch()
    await waiting[1]
    await place.scheduler.begin("b", "ann", None, "ref b")
    third, late = place.admit("third"), place.admit("late")
    await settled()
    place.scheduler.leave("b")
    await third
    assert not late.done(), "not for ever"
    late.cancel()


async def test_a_solve_is_read_only_once_it_can_begin() -> None:
    place = Place(a_builder())
    await place.admit("a")
    assert await place.wait_for_slot("a") == timedelta(0)
    asked = begun(place.wait_for_slot("b"))
    await asyncio.sleep(0)
    assert not asked.done(), "a has the only slot"
    place.scheduler.leave("a")
    await asked
    assert place.scheduler.connections.is_admitted("b")


async def test_a_solve_for_which_there_is_no_slot_waits_as_long_as_any_build() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")
    with pytest.raises(Exhausted, match="for a slot, 1 of 1 builders busy"):
        await place.wait_for_slot("b", max_wait=timedelta(milliseconds=50))
    assert not any(place.scheduler.connections.waiting())


# --- builds that ask for nothing before they begin ------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that find no slot wait for moments only."""
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SESSION_PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr("buildpool.gateway.slots.locator.PATIENCE_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_session_without_a_slot_goes_to_a_builder_where_its_solve_waits() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")
    solve = begun(place.wait_for_slot("b"))
    assert (await place.scheduler.follow("b", "ann", None)).builder == a_builder()
    assert place.scheduler.backlog.waiting == 1
    assert not place.scheduler.connections.is_building("b")
    assert not solve.done()
    place.scheduler.end("a", "ref a")
    await solve
    placement = await place.scheduler.begin("b", "ann", None, "ref b")
    assert placement.builder == a_builder()
    assert place.scheduler.connections.used(a_builder(), place.state) == 1
    assert place.scheduler.backlog.waiting == 0


@pytest.mark.usefixtures("impatient")
async def test_what_is_asked_about_a_build_waits_as_long_as_that_waits_for_its_slot() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")

    async def solve() -> None:
        with place.scheduler.locator.solving("b"):
            await place.wait_for_slot("b")
            await place.scheduler.begin("b", "ann", None, "ref b")

    solving = begun(solve())
    await settled()
    status = begun(place.scheduler.locator.teller_of("b", "ref b", nowhere))
    await place.scheduler.follow("b", "ann", None)
    with pytest.raises(Exhausted, match="gave its slot back"):
        await place.scheduler.locator.home_of("b", "ref b")  # a frontend at the client cannot wait
    assert not status.done()
    place.scheduler.end("a", "ref a")
    await solving
    assert await status == a_builder()


@pytest.mark.parametrize("question", ["teller_of", "home_of", "owner_of"])
async def test_what_is_asked_about_a_target_waits_for_its_own_solve_though_others_run(
    question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bake with very many targets, however long the last one takes to be read."""
    monkeypatch.setattr("buildpool.gateway.slots.locator.PATIENCE_SECONDS", 0.01)
    place = Place(a_builder())
    locator = place.scheduler.locator
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "first")
    with locator.solving("a"), locator.solving("a"):
        last = (nowhere,) if question == "teller_of" else ()
        asked = begun(getattr(locator, question)("a", "second", *last))
        await asyncio.sleep(0.05)
        assert not asked.done()
        await place.scheduler.begin("a", "ann", None, "second")
        assert await asked == ("ann" if question == "owner_of" else a_builder())


async def test_what_is_asked_about_a_build_that_does_not_come_is_answered_all_the_same() -> None:
    place = Place(a_builder())
    locator = place.scheduler.locator
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "first")
    with locator.solving("a"):
        asked = begun(locator.teller_of("a", "another", nowhere))
        await settled()
        assert not asked.done()
    assert await asked == a_builder()
    with locator.solving("a"):
        assert await locator.home_of("a", "") == a_builder(), "it names no build"


@pytest.mark.usefixtures("impatient")
async def test_a_build_that_waits_in_vain_is_told_so_by_whatever_it_has_asked() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")

    async def solve() -> None:
        with place.scheduler.locator.solving("b"):
            await place.wait_for_slot("b", max_wait=timedelta(milliseconds=100))

    solving = begun(solve())
    await settled()
    status = begun(place.scheduler.locator.teller_of("b", "ref b", nowhere))
    await place.scheduler.follow("b", "ann", None)
    for each in (solving, status):
        with pytest.raises(Exhausted, match="for a slot, 1 of 1 builders busy"):
            await each


@pytest.mark.usefixtures("impatient")
async def test_a_solve_whose_session_finds_no_builder_is_told_at_once_what_would_wait() -> None:
    place = Place()
    solve = begun(place.wait_for_slot("a"))
    await settled()
    assert place.scheduler.backlog.waiting == 1, "it wakes the pool"
    with pytest.raises(Exhausted, match="no builder is ready yet"):
        await place.scheduler.follow("a", "ann", None)
    with pytest.raises(Exhausted, match="call ListWorkers just before"):
        await solve
    again = begun(place.wait_for_slot("a"))
    await settled()
    assert not again.done(), "the next one is not refused for what was before"
    place.becomes(a_builder())
    await again


@pytest.mark.usefixtures("impatient")
async def test_a_solve_whose_session_ends_while_it_waits_does_not_wait_on() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")
    solve = begun(place.wait_for_slot("b"))
    await place.scheduler.follow("b", "ann", None)
    place.scheduler.end("b")
    with pytest.raises(Unavailable, match="the session of this build has ended"):
        await solve
    assert place.scheduler.backlog.waiting == 0


@pytest.mark.usefixtures("impatient")
async def test_a_solve_whose_session_is_on_a_builder_that_drains_does_not_wait_on() -> None:
    """Its session is where no slot becomes free for it: it would wait for ever."""
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")
    solve = begun(place.wait_for_slot("b"))
    await place.scheduler.follow("b", "ann", None)
    place.becomes(replace(a_builder(), is_serving=False, is_leaving=True), a_builder(1))
    with pytest.raises(Unavailable, match="the session of this build has ended"):
        await solve
    assert place.scheduler.backlog.waiting == 0


@pytest.mark.usefixtures("impatient")
async def test_a_hello_that_is_taken_back_leaves_the_session_of_its_connection_where_it_is() -> (
    None
):
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref a")
    solve = begun(place.wait_for_slot("b"))
    await place.scheduler.follow("b", "ann", None)
    hello = place.admit("b")
    await settled()
    hello.cancel()
    await settled()
    place.scheduler.end("a", "ref a")
    await solve


@pytest.mark.usefixtures("impatient")
async def test_the_next_process_knows_where_the_session_of_a_solve_that_waits_is() -> None:
    place = Place(a_builder(), a_builder(1))
    for name in ("a", "b"):
        await place.admit(name)
        await place.scheduler.begin(name, "ann", None, f"ref {name}")
    begun(place.wait_for_slot("c"))
    there = (await place.scheduler.follow("c", "ann", None)).builder
    following = place.another_desk()
    waiting = begun(following.wait_for_slot("c", "ann", max_wait=LONG))
    await settled()
    assert not waiting.done(), "it had no slot, and there is none"
    (here,) = (n for n in ("a", "b") if following.connections.home_of(n, place.state) == there)
    (elsewhere,) = {"a", "b"} - {here}
    following.leave(elsewhere)
    await settled()
    assert not waiting.done(), "its session is not there"
    following.leave(here)
    await waiting
    assert (await following.begin("c", "ann", None, "ref c")).builder == there


# --- what must not last ---------------------------------------------------------------------------


async def test_a_connection_that_says_hello_and_builds_nothing_lets_the_next_one_in() -> None:
    """As a monitor does, or an agent that looks after its connection."""
    place = Place(a_builder())
    await place.admit("monitor")
    waiting = place.admit("b")
    for _ in range(2):
        place.now += PATIENCE - timedelta(seconds=1)
        begun(place.scheduler.admit("monitor", "ann", max_wait=LONG))
        await settled()
        assert not waiting.done()
    place.now += timedelta(seconds=2)
    place.scheduler.dispatch()
    await waiting
    place.scheduler.leave("monitor")


async def test_a_connection_that_the_next_process_resumes_waits_like_others_once_nothing_runs() -> (
    None
):
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.follow("a", "ann", None)
    await place.scheduler.begin("a", "ann", None, "ref")
    following = place.another_desk()
    idle = replace(place.state, builds={a_builder().uid: frozenset()})
    place.state = replace(idle, builds={a_builder().uid: frozenset({"ref"})})
    place.now += 2 * GRACE
    following.dispatch()
    assert following.connections.is_building("a"), "its daemon still runs its build"
    place.state = idle
    following.dispatch()
    assert not following.connections.is_building("a")
    assert not following.is_busy
    assert place.memory.recall(POOL) == []


async def test_a_slot_that_was_taken_back_is_not_given_by_the_next_process() -> None:
    place = Place(a_builder())
    await place.admit("a")
    place.now += PATIENCE
    place.scheduler.dispatch()
    assert not place.scheduler.connections.is_admitted("a")
    following = place.another_desk()
    assert not following.connections.is_admitted("a")


async def test_what_has_ended_the_next_process_need_not_know() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None)
    for ref in ("one", "two"):
        await place.scheduler.begin("a", "ann", None, ref)
    place.scheduler.end("a", "one")
    assert {home.ref for home in place.memory.recall(POOL)} == {"", "two"}
    place.scheduler.end("a", "two")
    place.scheduler.end("a")
    await place.scheduler.begin("a", "ann", None, "it comes back once")
    place.scheduler.end("a", "it comes back once")
    assert place.memory.recall(POOL) == []
    assert not place.scheduler.connections.is_admitted("a")


async def test_what_ends_with_the_process_the_next_one_knows() -> None:
    """Conversations end with it; builds go on, internal ones and those that came back, too."""
    place = Place(a_builder(), slots=3)
    for name in "asking", "building", "returned":
        await place.admit(name)
        await place.scheduler.begin(name, "ann", None)
        await place.scheduler.begin(name, "ann", None, name, is_internal=name == "asking")
        if name == "returned":
            place.scheduler.end(name, name)
            place.scheduler.end(name)
            await place.scheduler.begin(name, "ann", None, name)
    place.memory.retain()
    for name in "asking", "building", "returned":
        place.scheduler.end(name, name)
        place.scheduler.end(name)
    following = place.another_desk()
    for name in "asking", "building", "returned":
        assert following.connections.is_building(name)
        assert await following.locator.home_of("another connection", name) == a_builder()


async def test_questions_do_not_go_to_a_builder_that_does_not_answer_while_another_one_does() -> (
    None
):
    place = Place(a_builder(0), a_builder(1))
    busy = frozenset({"ref", "another", "a third"})
    place.state = replace(place.state, builds={a_builder(1).uid: busy})
    assert place.scheduler.locator.present("a") == a_builder(1)
    place.state = replace(place.state, builds={})
    assert place.scheduler.locator.present("a") == a_builder(0)


async def test_a_session_that_ends_with_the_process_is_where_it_was_for_the_next_one() -> None:
    """Its solve comes to that one: it has to go to the builder of its session."""
    place = Place(a_builder(), a_builder(1))
    await place.admit("a")
    placement = await place.scheduler.begin("a", "ann", None)
    place.memory.retain()
    place.scheduler.end("a")
    following = place.another_desk()
    assert following.connections.home_of("a", place.state) == placement.builder


async def test_nothing_is_kept_of_a_stream_that_ends_after_its_connection() -> None:
    place = Place(a_builder())
    await place.admit("a")
    await place.scheduler.begin("a", "ann", None, "ref")
    place.scheduler.leave("a")
    place.scheduler.end("a", "ref")
    assert place.scheduler._settled == {}
