"""Who waits, who holds a slot, and who runs where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from buildpool.core.routing.connection import MAX_REFS
from buildpool.core.routing.connections import FORGOTTEN, PATIENCE, Account
from buildpool.core.routing.state import World
from buildpool.core.routing.values import Builder
from samples import NOW

SECOND = timedelta(seconds=1)


def a_builder(number: int = 0, *, is_serving: bool = True) -> Builder:
    return Builder(
        f"ci-builder-{number}", f"uid-{number}", f"10.0.0.{number}:1234", is_serving=is_serving
    )


def a_world(
    *builders: Builder, slots: int = 2, builds: Mapping[str, frozenset[str]] | None = None
) -> World:
    return World(builders or (a_builder(),), builds or {}, slots)


def admitted(account: Account, world: World, *connections: str, client: str = "ann") -> None:
    """These connections get slots."""
    for connection in connections:
        account.arrive(connection, client, now=NOW)
    assert account.admit(world, now=NOW) == connections


def building(account: Account, world: World, connection: str, ref: str = "") -> Builder:
    """A connection that has its slot starts a build."""
    ref = ref or f"ref of {connection}"
    place = account.begin(connection, "ann", None, world, ref=ref, now=NOW)
    assert place is not None
    return place.builder


def test_who_comes_first_gets_the_slots_there_are_and_the_others_wait() -> None:
    account = Account()
    for connection in ("a", "b", "c"):
        account.arrive(connection, "ann", now=NOW)
    assert account.admit(a_world(), now=NOW) == ("a", "b")
    assert [waiting.connection for waiting in account.waiting()] == ["c"]


def test_without_a_builder_all_wait() -> None:
    account = Account()
    account.arrive("a", "ann", now=NOW)
    assert account.admit(World(), now=NOW) == ()
    assert account.admit(a_world(a_builder(is_serving=False)), now=NOW) == ()


def test_a_bake_of_many_targets_takes_one_slot() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    homes = {building(account, world, "a", ref).uid for ref in ("one", "two", "three")}
    world = replace(world, builds={"uid-0": frozenset({"one", "two", "three"})})
    assert homes == {"uid-0"}
    assert account.used(a_builder(), world) == 1


def test_a_slot_is_free_once_the_last_session_has_ended() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    building(account, world, "a")
    building(account, world, "a")
    account.arrive("b", "ann", now=NOW)
    account.end("a", now=NOW)
    assert account.admit(world, now=NOW) == ()
    account.end("a", now=NOW)
    assert account.admit(world, now=NOW) == ("b",)


def test_a_build_that_its_daemon_still_runs_keeps_its_slot() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    building(account, world, "a", "ref")
    account.end("a", now=NOW)
    runs = replace(world, builds={"uid-0": frozenset({"ref"})})
    account.arrive("b", "ann", now=NOW)
    assert account.admit(runs, now=NOW) == ()
    account.leave("a")
    assert account.admit(runs, now=NOW) == ()
    assert account.admit(world, now=NOW) == ("b",)


def test_builds_that_nobody_here_knows_take_slots() -> None:
    account = Account()
    world = a_world(builds={"uid-0": frozenset({"of another replica"})})
    for connection in ("a", "b"):
        account.arrive(connection, "ann", now=NOW)
    assert account.admit(world, now=NOW) == ("a",)


def test_who_builds_nothing_gives_its_reservation_back() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    account.arrive("b", "ann", now=NOW)
    account.reclaim(world, now=NOW + PATIENCE - SECOND)
    assert account.admit(world, now=NOW) == ()
    account.reclaim(world, now=NOW + PATIENCE)
    assert account.admit(world, now=NOW) == ("b",)
    assert not account.is_admitted("a")


def test_who_gave_its_reservation_back_builds_where_a_slot_is_free_and_else_does_not() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    account.reclaim(world, now=NOW + PATIENCE)
    admitted(account, world, "b")
    assert account.begin("a", "ann", None, world, now=NOW) is None
    account.leave("b")
    assert account.begin("a", "ann", None, world, now=NOW) is not None


def test_a_connection_that_has_built_comes_back_to_its_builder_though_it_is_full() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    building(account, world, "a")
    account.end("a", now=NOW)
    admitted(account, world, "b")
    building(account, world, "b")
    place = account.begin("a", "ann", None, world, now=NOW)
    assert place is not None
    assert place.builder == a_builder()
    assert place.is_favourite is None


def test_a_connection_that_stays_waits_for_its_next_build_as_others_do() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    building(account, world, "a", "ref")
    account.end("a", now=NOW)
    running = replace(world, builds={"uid-0": frozenset({"ref"})})
    assert account.reclaim(running, now=NOW + PATIENCE) == (), "its daemon builds yet"
    idle = replace(world, builds={"uid-0": frozenset()})
    assert account.reclaim(idle, now=NOW + PATIENCE - SECOND) == (), "it may be about to go on"
    assert account.reclaim(idle, now=NOW + PATIENCE) == ("a",)
    account.arrive("b", "ann", now=NOW)
    account.arrive("a", "ann", now=NOW)
    assert account.admit(idle, now=NOW) == ("b",)
    assert account.begin("a", "ann", None, idle, now=NOW) is None
    assert account.last_of("a", idle) == a_builder(), "what it asks of its build, it is told"


def test_who_comes_back_later_is_counted_once_and_gets_the_builder_that_is_free() -> None:
    account = Account()
    world = a_world(a_builder(0), a_builder(1), slots=1, builds={"uid-0": frozenset()})
    admitted(account, world, "a")
    home = building(account, world, "a")
    account.end("a", now=NOW)
    world = replace(world, builds={home.uid: frozenset()})
    account.reclaim(world, now=NOW + PATIENCE)
    assert account.home_of("a", world) is None
    admitted(account, world, "b")
    other = building(account, world, "b")
    admitted(account, world, "a")
    free = next(builder for builder in world.serving if builder != other)
    assert account.used(free, world) == 0, "its slot is reserved, not this builder's"
    for key in "some", "another", "third":
        place = account.begin("a", "ann", key, world, ref=key, is_internal=True, now=NOW)
        assert place is not None
        assert place.builder == free
        assert account.end("a", now=NOW), "it only asked, and has its slot still"


def test_who_says_that_it_will_build_again_does_not_lose_its_builder_meanwhile() -> None:
    account, world = Account(), a_world(slots=1, builds={"uid-0": frozenset()})
    admitted(account, world, "a")
    building(account, world, "a")
    account.end("a", now=NOW)
    account.arrive("a", "ann", now=NOW + PATIENCE - SECOND)
    assert account.is_admitted("a")
    assert account.reclaim(world, now=NOW + PATIENCE) == ()
    assert account.is_admitted("a")


def test_until_daemons_have_told_what_they_run_nobody_gets_a_slot_and_who_has_one_goes_on() -> None:
    account, world = Account(), a_world(slots=2)
    account.resume("a", "ann", "uid-0", "ref", now=NOW)
    account.arrive("b", "ann", now=NOW)
    unheard = replace(world, is_complete=False)
    assert account.admit(unheard, now=NOW) == ()
    assert account.begin("c", "ann", None, unheard, ref="of c", now=NOW) is None
    assert account.begin("a", "ann", None, unheard, now=NOW) is not None
    assert account.admit(world, now=NOW) == ("b",)


def test_nothing_is_taken_from_a_connection_whose_daemon_is_silent() -> None:
    account, world = Account(), a_world(slots=1)
    admitted(account, world, "a")
    building(account, world, "a")
    account.end("a", now=NOW)
    assert account.reclaim(world, now=NOW + PATIENCE) == ()
    assert account.reclaim(a_world(a_builder(1)), now=NOW + PATIENCE) == ("a",), "it is gone"


def test_a_running_connection_stays_with_a_builder_that_retires() -> None:
    account, world = Account(), a_world()
    admitted(account, world, "a")
    building(account, world, "a")
    retiring = a_world(a_builder(is_serving=False), a_builder(1))
    place = account.begin("a", "ann", None, retiring, now=NOW)
    assert place is not None
    assert place.builder.uid == "uid-0"


def test_a_connection_at_rest_leaves_a_builder_that_retires() -> None:
    account, world = Account(), a_world()
    admitted(account, world, "a")
    building(account, world, "a")
    account.end("a", now=NOW)
    retiring = a_world(a_builder(is_serving=False), a_builder(1))
    place = account.begin("a", "ann", None, retiring, now=NOW)
    assert place is not None
    assert place.builder.uid == "uid-1"


def test_a_reservation_outlives_the_builder_whose_slot_it_was() -> None:
    account = Account()
    admitted(account, a_world(a_builder(0), slots=1), "a")
    place = account.begin("a", "ann", None, a_world(a_builder(1), slots=1), now=NOW)
    assert place is not None
    assert place.builder.uid == "uid-1"


def test_where_a_build_runs_is_known_from_its_start_here_or_from_its_daemon() -> None:
    account = Account()
    world = a_world(a_builder(0), a_builder(1), builds={"uid-1": frozenset({"theirs"})})
    admitted(account, world, "a")
    home = building(account, world, "a", "ours")
    assert account.runs("ours", world) == home
    assert account.runs("theirs", world) == a_builder(1)
    assert account.runs("nobody's", world) is None


def test_a_connection_whose_end_was_never_told_is_forgotten() -> None:
    account, world = Account(), a_world()
    admitted(account, world, "a", "b")
    building(account, world, "a")
    building(account, world, "b")
    account.end("a", now=NOW)
    assert account.reclaim(world, now=NOW + FORGOTTEN) == ("a",)
    assert account.home_of("a", world) is None
    assert account.home_of("b", world) is not None


class Gateway(RuleBasedStateMachine):
    """Connections come, build and go, while builders come; nobody else builds there."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account()
        self.count = 1
        self.now = NOW
        self.serial = 0
        self.admitted: set[str] = set()
        self.streams: dict[str, int] = {}

    @property
    def world(self) -> World:
        return a_world(*(a_builder(number) for number in range(self.count)))

    def pick(self, data: st.DataObject, names: set[str]) -> str:
        return data.draw(st.sampled_from(sorted(names)))

    @rule(client=st.sampled_from(["ann", "bob"]))
    def somebody_comes(self, client: str) -> None:
        self.serial += 1
        self.account.arrive(f"{self.serial}", client, now=self.now)

    @rule()
    def slots_are_given(self) -> None:
        self.admitted |= set(self.account.admit(self.world, now=self.now))

    @precondition(lambda self: self.admitted - self.streams.keys())
    @rule(data=st.data(), key=st.none() | st.sampled_from(["x", "y", "z"]))
    def a_build_starts(self, data: st.DataObject, key: str | None) -> None:
        name = self.pick(data, self.admitted - self.streams.keys())
        assert self.account.begin(name, "ann", key, self.world, ref=name, now=self.now)
        self.streams[name] = 1

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def a_build_ends_with_its_connection(self, data: st.DataObject) -> None:
        name = self.pick(data, set(self.streams))
        self.account.end(name, now=self.now)
        self.account.leave(name)
        del self.streams[name]
        self.admitted.discard(name)

    @rule()
    def a_builder_comes(self) -> None:
        self.count += 1

    @invariant()
    def no_builder_has_more_than_its_slots(self) -> None:
        world = self.world
        assert all(self.account.used(b, world) <= world.slots for b in world.builders)

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        self.admitted |= set(self.account.admit(self.world, now=self.now))
        room = 2 * self.count - len(self.admitted)
        assert room == 0 or not list(self.account.waiting())


TestGateway = Gateway.TestCase
TestGateway.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_builder_of_which_nobody_has_heard_yet_keeps_the_slots_that_were_taken_before() -> None:
    account, builder = Account(), a_builder()
    account.resume("a", "ann", builder.uid, "ref", now=NOW)
    assert account.is_building("a")
    assert account.used(builder, a_world(builder)) == 1
    heard = a_world(builder, builds={builder.uid: frozenset()})
    assert account.used(builder, heard) == 0
    running = a_world(builder, builds={builder.uid: frozenset({"ref"})})
    assert account.used(builder, running) == 1


def test_a_pool_is_busy_while_a_connection_of_before_may_build_on_a_builder_that_is_there() -> None:
    account, builder = Account(), a_builder()
    account.resume("a", "ann", builder.uid, "ref", now=NOW)
    assert account.is_busy(a_world(builder))
    assert not account.is_busy(World())
    account.leave("a")
    assert not account.is_busy(a_world(builder))


def test_of_a_connection_the_latest_builds_are_remembered() -> None:
    account, world = Account(), a_world()
    admitted(account, world, "a")
    for number in range(MAX_REFS + 1):
        building(account, world, "a", f"ref-{number}")
    assert account.runs("ref-0", world) is None
    assert account.runs("ref-1", world) is not None


def test_it_is_known_whose_a_build_is() -> None:
    account, world = Account(), a_world()
    admitted(account, world, "a")
    building(account, world, "a", "ref")
    assert account.owner_of("ref") == "ann"
    assert account.owner_of("another") is None
