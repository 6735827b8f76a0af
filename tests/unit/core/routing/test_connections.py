"""Who waits, who holds a slot, and who runs where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from buildpool.core.routing.connection import MAX_REFS, Connection
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.index import ConnectionIndex
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.states import FORGOTTEN, GRACE, PATIENCE, State
from buildpool.core.routing.values import Target
from samples import NOW

SECOND = timedelta(seconds=1)


def a_builder(number: int = 0, *, is_serving: bool = True) -> Target:
    return Target(
        f"ci-builder-{number}", f"uid-{number}", f"10.0.0.{number}:1234", is_serving=is_serving
    )


def a_world(
    *builders: Target, slots: int = 2, builds: Mapping[str, frozenset[str]] | None = None
) -> PoolState:
    return PoolState(builders or (a_builder(),), builds or {}, slots)


def admitted(connections: Connections, state: PoolState, *names: str, client: str = "ann") -> None:
    """These connections get slots."""
    for connection in names:
        connections.arrive(connection, client, now=NOW)
    assert connections.admit(state, now=NOW) == names


def taken_back(connections: Connections, state: PoolState, *, now: datetime) -> tuple[str, ...]:
    """Those of which the next process need not know any more, from this moment on."""
    connections.take_moved()
    connections.reclaim(state, now=now)
    return tuple(each for each in connections.take_moved() if connections.to_note(each) is None)


def building(connections: Connections, state: PoolState, connection: str, ref: str = "") -> Target:
    """A connection that has its slot starts a build."""
    ref = ref or f"ref of {connection}"
    placement = connections.begin(connection, "ann", None, state, ref=ref, now=NOW)
    assert placement is not None
    return placement.builder


class CountingIndex(ConnectionIndex):
    """Counts the connections that are looked at."""

    looks = 0

    def of_states(self, states: Iterable[State]) -> Iterator[tuple[str, Connection]]:
        for found in super().of_states(states):
            self.looks += 1
            yield found

    def of_builder(self, uid: str) -> Mapping[str, Connection]:
        found = super().of_builder(uid)
        self.looks += len(found)
        return found


def looks_of_a_turn(*, waiting: int, builders: int, slots: int) -> int:
    """The connections that a turn looks at which gives nobody a slot, as all are taken."""
    connections, index = Connections(), CountingIndex()
    connections._index = index
    pool = tuple(a_builder(number) for number in range(builders))
    state = PoolState(pool, {}, slots)
    for number in range(builders * slots):
        name = f"builds-{number}"
        admitted(connections, state, name)
        building(connections, state, name)
    for number in range(waiting):
        connections.arrive(f"waits-{number}", f"client-{number % 7}", now=NOW)
    index.looks = 0
    connections.reclaim(state, now=NOW)
    assert connections.admit(state, now=NOW) == ()
    return index.looks


def test_a_turn_in_which_nobody_gets_a_slot_looks_once_at_those_that_build_and_at_no_other() -> (
    None
):
    """Each end of anything is a turn: their cost is what bounds the builds of a router."""
    held = 20 * 4
    assert looks_of_a_turn(waiting=10, builders=20, slots=4) == held
    assert looks_of_a_turn(waiting=300, builders=20, slots=4) == held
    assert looks_of_a_turn(waiting=10, builders=40, slots=4) == 2 * held


def test_who_comes_first_gets_the_slots_there_are_and_the_others_wait() -> None:
    connections = Connections()
    for connection in ("a", "b", "c"):
        connections.arrive(connection, "ann", now=NOW)
    assert connections.admit(a_world(), now=NOW) == ("a", "b")
    assert [waiting.connection for waiting in connections.waiting()] == ["c"]


def test_without_a_builder_all_wait() -> None:
    connections = Connections()
    connections.arrive("a", "ann", now=NOW)
    assert connections.admit(PoolState(), now=NOW) == ()
    assert connections.admit(a_world(a_builder(is_serving=False)), now=NOW) == ()


def test_a_bake_of_many_targets_takes_one_slot() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    homes = {building(connections, state, "a", ref).uid for ref in ("one", "two", "three")}
    state = replace(state, builds={"uid-0": frozenset({"one", "two", "three"})})
    assert homes == {"uid-0"}
    assert connections.used(a_builder(), state) == 1


def test_a_slot_is_free_once_the_last_session_has_ended() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    building(connections, state, "a")
    connections.arrive("b", "ann", now=NOW)
    connections.end("a", now=NOW)
    assert connections.admit(state, now=NOW) == ()
    connections.end("a", now=NOW)
    assert connections.admit(state, now=NOW) == ("b",)


def test_a_build_that_its_daemon_still_runs_keeps_its_slot() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a", "ref")
    connections.end("a", now=NOW)
    runs = replace(state, builds={"uid-0": frozenset({"ref"})})
    connections.arrive("b", "ann", now=NOW)
    assert connections.admit(runs, now=NOW) == ()
    connections.leave("a")
    assert connections.admit(runs, now=NOW) == ()
    assert connections.admit(state, now=NOW) == ("b",)


def test_builds_that_nobody_here_knows_take_slots() -> None:
    connections = Connections()
    state = a_world(builds={"uid-0": frozenset({"of another replica"})})
    for connection in ("a", "b"):
        connections.arrive(connection, "ann", now=NOW)
    assert connections.admit(state, now=NOW) == ("a",)


def test_who_builds_nothing_gives_its_reservation_back() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    connections.arrive("b", "ann", now=NOW)
    connections.reclaim(state, now=NOW + PATIENCE - SECOND)
    assert connections.admit(state, now=NOW) == ()
    connections.reclaim(state, now=NOW + PATIENCE)
    assert connections.admit(state, now=NOW) == ("b",)
    assert not connections.is_admitted("a")


def test_who_gave_its_reservation_back_builds_where_a_slot_is_free_and_else_does_not() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    connections.reclaim(state, now=NOW + PATIENCE)
    admitted(connections, state, "b")
    assert connections.begin("a", "ann", None, state, now=NOW) is None
    connections.leave("b")
    assert connections.begin("a", "ann", None, state, now=NOW) is not None


def test_a_connection_that_has_built_comes_back_to_its_builder_though_it_is_full() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    admitted(connections, state, "b")
    building(connections, state, "b")
    placement = connections.begin("a", "ann", None, state, now=NOW)
    assert placement is not None
    assert placement.builder == a_builder()
    assert placement.is_favourite is None


def test_a_connection_that_stays_waits_for_its_next_build_as_others_do() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a", "ref")
    connections.end("a", now=NOW)
    running = replace(state, builds={"uid-0": frozenset({"ref"})})
    assert taken_back(connections, running, now=NOW + PATIENCE) == (), "its daemon builds yet"
    idle = replace(state, builds={"uid-0": frozenset()})
    soon = NOW + PATIENCE - SECOND
    assert taken_back(connections, idle, now=soon) == (), "it may be about to go on"
    assert taken_back(connections, idle, now=NOW + PATIENCE) == ("a",)
    connections.arrive("b", "ann", now=NOW)
    connections.arrive("a", "ann", now=NOW)
    assert connections.admit(idle, now=NOW) == ("b",)
    assert connections.begin("a", "ann", None, idle, now=NOW) is None
    assert connections.last_of("a", idle) == a_builder(), "what it asks of its build, it is told"


def test_who_comes_back_later_is_counted_once_and_gets_the_builder_that_is_free() -> None:
    connections = Connections()
    state = a_world(a_builder(0), a_builder(1), slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    state = replace(state, builds={builder.uid: frozenset() for builder in state.builders})
    connections.reclaim(state, now=NOW + PATIENCE)
    assert connections.home_of("a", state) is None
    admitted(connections, state, "b")
    other = building(connections, state, "b")
    admitted(connections, state, "a")
    free = next(builder for builder in state.serving if builder != other)
    assert connections.used(free, state) == 0, "its slot is reserved, not this builder's"
    for key in "some", "another", "third":
        placement = connections.begin("a", "ann", key, state, ref=key, is_internal=True, now=NOW)
        assert placement is not None
        assert placement.builder == free
        connections.end("a", now=NOW)
        assert connections.to_note("a") == ("", False), "it only asked, and has its slot still"


def test_who_says_that_it_will_build_again_does_not_lose_its_builder_meanwhile() -> None:
    connections, state = Connections(), a_world(slots=1, builds={"uid-0": frozenset()})
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    connections.arrive("a", "ann", now=NOW + PATIENCE - SECOND)
    assert connections.is_admitted("a")
    assert taken_back(connections, state, now=NOW + PATIENCE) == ()
    assert connections.is_admitted("a")


def test_until_daemons_have_told_what_they_run_nobody_gets_a_slot_and_who_has_one_goes_on() -> None:
    connections, state = Connections(), a_world(slots=2)
    connections.resume("a", "ann", "uid-0", "ref", now=NOW)
    connections.arrive("b", "ann", now=NOW)
    unheard = replace(state, is_complete=False)
    assert connections.admit(unheard, now=NOW) == ()
    assert connections.begin("c", "ann", None, unheard, ref="of c", now=NOW) is None
    assert connections.begin("a", "ann", None, unheard, now=NOW) is not None
    assert connections.admit(state, now=NOW) == ("b",)


def test_nothing_is_taken_from_a_connection_whose_daemon_is_silent() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    assert taken_back(connections, state, now=NOW + PATIENCE) == ()
    state = a_world(a_builder(1))
    assert taken_back(connections, state, now=NOW + PATIENCE) == ("a",), "it is gone"


def test_a_running_connection_stays_with_a_builder_that_retires() -> None:
    connections, state = Connections(), a_world()
    admitted(connections, state, "a")
    building(connections, state, "a")
    retiring = a_world(a_builder(is_serving=False), a_builder(1))
    placement = connections.begin("a", "ann", None, retiring, now=NOW)
    assert placement is not None
    assert placement.builder.uid == "uid-0"


def test_a_connection_at_rest_leaves_a_builder_that_retires() -> None:
    connections, state = Connections(), a_world()
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    retiring = a_world(a_builder(is_serving=False), a_builder(1))
    placement = connections.begin("a", "ann", None, retiring, now=NOW)
    assert placement is not None
    assert placement.builder.uid == "uid-1"


def test_a_connection_at_rest_whose_builder_retires_waits_for_a_slot_of_another() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    retiring = a_world(a_builder(is_serving=False), a_builder(1), slots=1)
    admitted(connections, retiring, "b")
    assert building(connections, retiring, "b").uid == "uid-1"
    assert connections.begin("a", "ann", None, retiring, now=NOW) is None
    assert connections.used(a_builder(1), retiring) == 1
    connections.end("b", now=NOW)
    assert connections.admit(retiring, now=NOW) == ("a",)


def test_a_reservation_outlives_the_builder_whose_slot_it_was() -> None:
    connections = Connections()
    admitted(connections, a_world(a_builder(0), slots=1), "a")
    placement = connections.begin("a", "ann", None, a_world(a_builder(1), slots=1), now=NOW)
    assert placement is not None
    assert placement.builder.uid == "uid-1"


def test_where_a_build_runs_is_known_from_its_start_here_or_from_its_daemon() -> None:
    connections = Connections()
    state = a_world(a_builder(0), a_builder(1), builds={"uid-1": frozenset({"theirs"})})
    admitted(connections, state, "a")
    home = building(connections, state, "a", "ours")
    assert connections.runs("ours", state) == home
    assert connections.runs("theirs", state) == a_builder(1)
    assert connections.runs("nobody's", state) is None


def test_a_connection_whose_end_was_never_told_is_forgotten() -> None:
    connections, state = Connections(), a_world()
    admitted(connections, state, "a", "b")
    building(connections, state, "a")
    building(connections, state, "b")
    connections.end("a", now=NOW)
    assert taken_back(connections, state, now=NOW + FORGOTTEN) == ("a",)
    assert connections.home_of("a", state) is None
    assert connections.home_of("b", state) is not None


class Gateway(RuleBasedStateMachine):
    """Connections come, build and go, while builders come; nobody else builds there."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = Connections()
        self.count = 1
        self.now = NOW
        self.serial = 0
        self.admitted: set[str] = set()
        self.streams: dict[str, int] = {}

    @property
    def state(self) -> PoolState:
        return a_world(*(a_builder(number) for number in range(self.count)))

    def pick(self, data: st.DataObject, names: set[str]) -> str:
        return data.draw(st.sampled_from(sorted(names)))

    @rule(client=st.sampled_from(["ann", "bob"]))
    def somebody_comes(self, client: str) -> None:
        self.serial += 1
        self.connections.arrive(f"{self.serial}", client, now=self.now)

    @rule()
    def slots_are_given(self) -> None:
        self.admitted |= set(self.connections.admit(self.state, now=self.now))

    @precondition(lambda self: self.admitted - self.streams.keys())
    @rule(data=st.data(), key=st.none() | st.sampled_from(["x", "y", "z"]))
    def a_build_starts(self, data: st.DataObject, key: str | None) -> None:
        name = self.pick(data, self.admitted - self.streams.keys())
        assert self.connections.begin(name, "ann", key, self.state, ref=name, now=self.now)
        self.streams[name] = 1

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def a_build_ends_with_its_connection(self, data: st.DataObject) -> None:
        name = self.pick(data, set(self.streams))
        self.connections.end(name, now=self.now)
        self.connections.leave(name)
        del self.streams[name]
        self.admitted.discard(name)

    @rule()
    def a_builder_comes(self) -> None:
        self.count += 1

    @invariant()
    def no_builder_has_more_than_its_slots(self) -> None:
        state = self.state
        assert all(self.connections.used(b, state) <= state.slots for b in state.builders)

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        self.admitted |= set(self.connections.admit(self.state, now=self.now))
        served = 2 * self.count - len(self.admitted)
        assert served == 0 or not list(self.connections.waiting())


TestGateway = Gateway.TestCase
TestGateway.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_builder_of_which_nobody_has_heard_yet_keeps_the_slots_that_were_taken_before() -> None:
    connections, builder = Connections(), a_builder()
    connections.resume("a", "ann", builder.uid, "ref", now=NOW)
    assert connections.is_building("a")
    assert connections.used(builder, a_world(builder)) == 1
    heard = a_world(builder, builds={builder.uid: frozenset()})
    assert connections.used(builder, heard) == 0
    running = a_world(builder, builds={builder.uid: frozenset({"ref"})})
    assert connections.used(builder, running) == 1


def test_a_pool_is_busy_while_a_connection_of_before_may_build_on_a_builder_that_is_there() -> None:
    connections, builder = Connections(), a_builder()
    connections.resume("a", "ann", builder.uid, "ref", now=NOW)
    assert connections.is_busy(a_world(builder))
    assert not connections.is_busy(PoolState())
    connections.leave("a")
    assert not connections.is_busy(a_world(builder))


def test_of_the_builds_of_a_connection_that_have_ended_the_latest_are_remembered() -> None:
    connections, state = Connections(), a_world()
    admitted(connections, state, "a")
    connections.begin("a", "ann", None, state, now=NOW)
    for number in range(MAX_REFS + 2):
        building(connections, state, "a", f"ref-{number}")
        connections.end("a", f"ref-{number}", now=NOW)
    assert connections.runs("ref-0", state) is None
    assert connections.owner_of("ref-0") is None
    assert connections.runs("ref-1", state) is not None


def test_no_build_that_runs_is_forgotten_however_many_a_connection_has() -> None:
    """As a bake of more targets than are remembered of those that have ended."""
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    refs = [f"ref-{number}" for number in range(2 * MAX_REFS)]
    for ref in refs:
        building(connections, state, "a", ref)
    heard = replace(state, builds={"uid-0": frozenset(refs)})
    assert {connections.owner_of(ref) for ref in refs} == {"ann"}
    assert connections.used(a_builder(), heard) == 1


def test_a_build_that_its_daemon_still_runs_is_not_forgotten_though_its_solve_has_ended() -> None:
    connections, state = Connections(), a_world(builds={"uid-0": frozenset({"ref-0"})})
    admitted(connections, state, "a")
    connections.begin("a", "ann", None, state, now=NOW)
    for number in range(MAX_REFS + 3):
        building(connections, state, "a", f"ref-{number}")
        connections.end("a", f"ref-{number}", now=NOW)
    assert connections.owner_of("ref-0") == "ann"
    assert connections.owner_of("ref-1") is None


def test_it_is_known_whose_a_build_is() -> None:
    connections, state = Connections(), a_world()
    admitted(connections, state, "a")
    building(connections, state, "a", "ref")
    assert connections.owner_of("ref") == "ann"
    assert connections.owner_of("another") is None


def test_what_two_connections_have_begun_is_known_as_long_as_one_of_them_is() -> None:
    connections, state = Connections(), a_world(a_builder(), a_builder(1), slots=1)
    admitted(connections, state, "a", "b")
    first = building(connections, state, "a", "ref")
    second = building(connections, state, "b", "ref")
    assert first != second
    running = frozenset({"ref"})
    both = replace(state, builds={first.uid: running, second.uid: running})
    assert [connections.used(builder, both) for builder in (first, second)] == [1, 1]
    connections.leave("b")
    one = replace(state, builds={first.uid: running, second.uid: frozenset()})
    assert connections.owner_of("ref") == "ann"
    assert connections.runs("ref", one) == first
    assert [connections.used(builder, one) for builder in (first, second)] == [1, 0]
    connections.leave("a")
    assert connections.owner_of("ref") is None


def test_what_two_connections_have_begun_on_one_builder_takes_one_slot_once_it_runs_alone() -> None:
    connections, state = Connections(), a_world(slots=2)
    admitted(connections, state, "a", "b")
    for name in ("a", "b"):
        building(connections, state, name, "ref")
    runs = replace(state, builds={"uid-0": frozenset({"ref"})})
    assert connections.used(a_builder(), runs) == 2
    for name in ("b", "a"):
        connections.end(name, "ref", now=NOW)
        assert connections.used(a_builder(), runs) == 1
    assert connections.used(a_builder(), replace(runs, builds={"uid-0": frozenset()})) == 0


# --- builders that are not heard ------------------------------------------------------------------


def test_a_builder_that_is_not_heard_has_no_room_while_another_one_is() -> None:
    """It may be dead, or too busy to answer: it is not the least loaded one."""
    connections = Connections()
    full = {"uid-0": frozenset({"theirs", "another of theirs"})}
    state = a_world(a_builder(0), a_builder(1), builds=full)
    connections.arrive("a", "ann", now=NOW)
    assert connections.admit(state, now=NOW) == ()
    heard = replace(state, builds={**full, "uid-1": frozenset()})
    assert connections.admit(heard, now=NOW) == ("a",)


def test_no_build_is_placed_on_a_builder_that_is_not_heard_while_another_one_is() -> None:
    connections = Connections()
    state = a_world(a_builder(0), a_builder(1), builds={"uid-0": frozenset({"theirs"})})
    for key in None, "x", "y", "z":
        name = f"of {key}"
        admitted(connections, state, name)
        placement = connections.begin(name, "ann", key, state, ref=name, now=NOW)
        assert placement is not None
        assert placement.builder == a_builder(0)
        connections.leave(name)


def test_where_no_builder_is_heard_they_are_used_all_the_same() -> None:
    connections, state = Connections(), a_world(a_builder(0), a_builder(1), slots=1)
    admitted(connections, state, "a", "b")
    assert {building(connections, state, name).uid for name in "ab"} == {"uid-0", "uid-1"}


# --- what the operator is told --------------------------------------------------------------------


def test_all_but_one_of_the_targets_of_a_bake_share_a_slot() -> None:
    connections, state = Connections(), a_world(slots=4)
    admitted(connections, state, "bake", "single")
    for ref in ("a", "b", "c"):
        building(connections, state, "bake", ref)
    building(connections, state, "single", "d")
    assert connections.shared(state) == 0, "no daemon says that any of them runs"
    running = replace(state, builds={"uid-0": frozenset("abcd")})
    assert connections.shared(running) == 2
    strangers = replace(state, builds={"uid-0": frozenset("abcdxyz")})
    assert connections.shared(strangers) == 2, "builds of others have slots of their own"
    connections.end("bake", "a", now=NOW)
    assert connections.shared(replace(state, builds={"uid-0": frozenset("bcd")})) == 1


def test_what_runs_on_a_builder_that_takes_no_builds_needs_no_room() -> None:
    connections, state = Connections(), a_world(slots=4)
    admitted(connections, state, "bake")
    for ref in ("a", "b"):
        building(connections, state, "bake", ref)
    retired = replace(a_builder(), is_serving=False)
    state = replace(state, builders=(retired,), builds={"uid-0": frozenset("ab")})
    assert connections.shared(state) == 0


# --- leases ---------------------------------------------------------------------------------------


def test_nobody_keeps_a_slot_by_saying_hello() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "monitor")
    connections.arrive("b", "bob", now=NOW)
    now = NOW
    while not connections.is_admitted("b"):
        now += SECOND
        connections.arrive("monitor", "ann", now=now)
        connections.reclaim(state, now=now)
        connections.admit(state, now=now)
        assert now <= NOW + 2 * PATIENCE


def test_nobody_keeps_a_slot_by_asking_and_asking() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "asks")
    connections.arrive("b", "bob", now=NOW)
    now = NOW
    while not connections.is_admitted("b"):
        now += SECOND
        if connections.is_admitted("asks"):
            connections.begin("asks", "ann", None, state, ref="probe", is_internal=True, now=now)
            connections.end("asks", "probe", now=now)
        connections.reclaim(state, now=now)
        connections.admit(state, now=now)
        assert now <= NOW + 4 * PATIENCE


def test_connections_that_come_back_in_turn_let_others_in() -> None:
    """Each of the two goes on while the other builds, and never rests for long."""
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    connections.end("a", now=NOW)
    admitted(connections, state, "b")
    building(connections, state, "b")
    connections.arrive("waits", "cid", now=NOW)
    for ends, begins in 2 * [("b", "a"), ("a", "b")]:
        if connections.is_admitted(begins):
            building(connections, state, begins)
        connections.end(ends, now=NOW)
        if connections.admit(state, now=NOW):
            break
    assert connections.is_admitted("waits")


# --- connections of the last process --------------------------------------------------------------


def resumed(
    *builders: Target, builds: Mapping[str, frozenset[str]]
) -> tuple[Connections, PoolState]:
    """A connection that built on the first builder, of which no stream is known."""
    connections = Connections()
    connections.resume("a", "ann", "uid-0", "", now=NOW)
    connections.resume("a", "ann", "uid-0", "ref", now=NOW)
    return connections, a_world(*builders, slots=1, builds=builds)


def test_a_connection_of_the_last_process_that_builds_nothing_is_soon_like_any_other() -> None:
    connections, state = resumed(a_builder(), builds={"uid-0": frozenset()})
    assert taken_back(connections, state, now=NOW + GRACE - SECOND) == ()
    assert connections.is_building("a"), "it may have begun what daemons do not tell of"
    assert taken_back(connections, state, now=NOW + GRACE) == ("a",)
    assert not connections.is_building("a"), "who was removed from the pool's clients is out"
    assert not connections.is_busy(state)
    admitted(connections, state, "b")
    assert connections.begin("a", "ann", None, state, ref="next", now=NOW) is None, "it waits"


def test_a_connection_of_the_last_process_leaves_a_builder_that_retires() -> None:
    idle = {"uid-0": frozenset[str](), "uid-1": frozenset[str]()}
    connections, state = resumed(a_builder(is_serving=False), a_builder(1), builds=idle)
    assert connections.home_of("a", state) == a_builder(is_serving=False)
    connections.reclaim(state, now=NOW + GRACE)
    assert connections.home_of("a", state) is None
    assert building(connections, state, "a", "next") == a_builder(1)


def test_a_connection_of_the_last_process_keeps_its_rights_while_its_build_runs() -> None:
    for builds in {"uid-0": frozenset({"ref"})}, {}:
        connections, state = resumed(a_builder(), builds=builds)
        connections.reclaim(state, now=NOW + 10 * GRACE)
        assert connections.is_building("a"), "its daemon runs its build, or nobody says"
        assert connections.used(a_builder(), state) == 1


def test_a_connection_of_the_last_process_may_end_a_stream_and_still_have_others() -> None:
    connections, state = resumed(a_builder(), builds={"uid-0": frozenset()})
    assert building(connections, state, "a", "linked") == a_builder()
    connections.end("a", "linked", now=NOW)
    assert connections.is_building("a")
    assert building(connections, state, "a", "another") == a_builder()
    assert taken_back(connections, state, now=NOW + GRACE) == (), "this one goes on"
    connections.end("a", "another", now=NOW + GRACE)
    assert taken_back(connections, state, now=NOW + GRACE) == ("a",)


def test_a_connection_of_the_last_process_whose_daemon_runs_nothing_of_it_waits_for_a_slot() -> (
    None
):
    connections, state = resumed(a_builder(), builds={"uid-0": frozenset({"of another"})})
    connections.reclaim(state, now=NOW)
    assert not connections.is_admitted("a")
    assert not connections.claim("a", "ann", now=NOW)
    assert connections.begin("a", "ann", None, state, ref="next", now=NOW) is None
    idle = replace(state, builds={"uid-0": frozenset()})
    assert connections.admit(idle, now=NOW) == ("a",)
    assert connections.used(a_builder(), idle) == 1, "its slot is there, and nobody else's"
    assert building(connections, idle, "a", "next") == a_builder()


def test_a_session_of_the_last_process_is_where_its_solve_waits_for_a_slot() -> None:
    connections = Connections()
    connections.resume("a", "ann", "uid-0", "", now=NOW)
    busy = {"uid-0": frozenset({"of another"}), "uid-1": frozenset[str]()}
    state = a_world(a_builder(), a_builder(1), slots=1, builds=busy)
    connections.reclaim(state, now=NOW)
    assert not connections.is_building("a"), "it had no slot, and has no rights of one that has"
    assert not connections.claim("a", "ann", now=NOW)
    assert connections.admit(state, now=NOW) == (), "its session is not on the other one"
    connections.reclaim(state, now=NOW + 2 * GRACE)
    assert [each.connection for each in connections.waiting()] == ["a"], "for as long as others"


@pytest.mark.parametrize("is_there", [True, False], ids=["is going", "is gone"])
def test_who_waits_for_a_builder_of_the_last_process_that_goes_is_like_any_other(
    is_there: bool,
) -> None:
    connections = Connections()
    connections.resume("a", "ann", "uid-0", "", now=NOW)
    assert not connections.claim("a", "ann", now=NOW)
    # Of one that is on its way out nobody hears what it runs.
    going = replace(a_builder(), is_serving=False, is_leaving=True)
    builders = [going] * is_there + [a_builder(1)]
    state = a_world(*builders, slots=1, builds={"uid-1": frozenset()})
    connections.reclaim(state, now=NOW)
    assert connections.admit(state, now=NOW) == ("a",)
    assert building(connections, state, "a") == a_builder(1)


def test_a_connection_of_the_last_process_whose_builder_is_gone_takes_no_slot_of_another() -> None:
    connections, _ = resumed(a_builder(), builds={})
    state = a_world(a_builder(1), slots=1, builds={"uid-1": frozenset({"of another"})})
    connections.reclaim(state, now=NOW)
    assert connections.begin("a", "ann", None, state, ref="next", now=NOW) is None
    assert [each.connection for each in connections.waiting()] == ["a"]


def test_a_build_of_the_last_process_that_its_daemon_tells_of_late_is_not_held_up() -> None:
    """It was not registered yet when the daemon was asked first; its other targets come now."""
    connections, state = resumed(a_builder(), builds={"uid-0": frozenset()})
    connections.reclaim(state, now=NOW)
    late = replace(state, builds={"uid-0": frozenset({"ref"})})
    connections.arrive("b", "bob", now=NOW)
    assert not connections.claim("a", "ann", now=NOW)
    assert connections.admit(late, now=NOW) == ("a",)
    assert building(connections, late, "a", "linked") == a_builder()
    assert connections.used(a_builder(), late) == 1


def test_the_end_of_a_stream_gives_nobody_a_second_slot() -> None:
    """It wanted to begin something when its builder was gone, and its session ended after that."""
    connections = Connections()
    admitted(connections, a_world(), "a")
    connections.begin("a", "ann", None, a_world(), now=NOW)
    assert connections.begin("a", "ann", None, PoolState(), ref="next", now=NOW) is None
    connections.end("a", now=NOW)
    assert connections.to_note("a") == ("", False), "it has a slot, and no builder"
    assert connections.begin("a", "ann", None, PoolState(), ref="next", now=NOW) is None
    connections.end("a", now=NOW)
    assert connections.to_note("a") is None
    assert [each.connection for each in connections.waiting()] == ["a"]


# --- sessions that can wait no longer -------------------------------------------------------------


def attached(connections: Connections, state: PoolState, connection: str) -> Target:
    """A connection without a slot has its session on a builder."""
    assert not connections.claim(connection, "ann", now=NOW)
    assert connections.begin(connection, "ann", None, state, now=NOW) is None
    builder = connections.attach(connection, "ann", state, now=NOW)
    assert builder is not None
    return builder


def test_a_session_without_a_slot_takes_none_and_its_connection_waits_for_one_of_that_builder() -> (
    None
):
    connections, state = Connections(), a_world(a_builder(), a_builder(1), slots=1)
    for name in ("a", "b"):
        admitted(connections, state, name)
        building(connections, state, name)
    builder = attached(connections, state, "c")
    assert connections.used(builder, state) == 1
    other, same = ("b", "a") if building(connections, state, "a") == builder else ("a", "b")
    connections.leave(other)
    assert connections.admit(state, now=NOW) == (), "its session is not there"
    assert connections.begin("c", "ann", None, state, ref="ref", now=NOW) is None
    connections.leave(same)
    assert connections.admit(state, now=NOW) == ("c",)
    assert building(connections, state, "c") == builder
    assert connections.used(builder, state) == 1


def test_a_slot_that_a_waiting_session_cannot_have_goes_to_the_next_in_line() -> None:
    connections, state = Connections(), a_world(a_builder(), a_builder(1), slots=1)
    for name in ("a", "b"):
        admitted(connections, state, name)
    homes = {building(connections, state, name).uid: name for name in ("a", "b")}
    here = attached(connections, state, "c")
    connections.arrive("d", "ann", now=NOW)
    connections.leave(next(name for uid, name in homes.items() if uid != here.uid))
    assert connections.admit(state, now=NOW) == ("d",)
    assert [waiting.connection for waiting in connections.waiting()] == ["c"]


def test_sessions_without_a_slot_are_spread_over_the_builders() -> None:
    connections, state = Connections(), a_world(a_builder(), a_builder(1), slots=1)
    for name in ("a", "b"):
        admitted(connections, state, name)
        building(connections, state, name)
    assert attached(connections, state, "c") != attached(connections, state, "d")


def test_who_waits_on_a_builder_that_retires_builds_there_before_it_goes() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    attached(connections, state, "b")
    retires = a_world(a_builder(is_serving=False), slots=1, builds={"uid-0": frozenset()})
    assert connections.admit(retires, now=NOW) == ()
    connections.leave("a")
    assert connections.admit(retires, now=NOW) == ("b",)
    assert building(connections, retires, "b").uid == "uid-0"


def test_who_waits_with_its_session_on_a_builder_is_like_any_other_once_that_has_ended() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    attached(connections, state, "b")
    assert connections.is_busy(state)
    connections.end("b", now=NOW)
    assert not any(connections.waiting())
    connections.leave("a")
    assert connections.admit(state, now=NOW) == ()


def test_who_waits_with_its_session_on_a_builder_that_drains_does_not_wait_for_ever() -> None:
    """Nobody hears any more whether that one has room, and no slot of another is of use."""
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    building(connections, state, "a")
    attached(connections, state, "b")
    leaving = replace(a_builder(is_serving=False), is_leaving=True)
    drains = a_world(leaving, a_builder(1), slots=1)
    assert connections.reclaim(state, now=NOW) == ()
    assert connections.reclaim(drains, now=NOW) == ("b",)
    assert connections.reclaim(drains, now=NOW) == ()
    assert not connections.is_building("b"), "its session begins nothing"
    assert connections.admit(drains, now=NOW) == ("b",), "it is like any other that waits"
    building(connections, drains, "b")
    connections.end("b", now=NOW)
    assert connections.is_building("b"), "it may have been the session that was there before"
    connections.end("b", now=NOW)
    assert not connections.is_building("b")


def test_who_has_a_slot_is_not_sent_to_a_builder_without_one() -> None:
    connections, state = Connections(), a_world(slots=1)
    admitted(connections, state, "a")
    assert connections.attach("a", "ann", state, now=NOW) is None
    assert connections.attach("b", "ann", PoolState(), now=NOW) is None
