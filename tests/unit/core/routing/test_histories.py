"""Whatever happens to the connections of a pool, in whatever order: what stays true."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from buildpool.core.routing.connection import Connection
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.states import (
    ACTIVE,
    FORGOTTEN,
    GRACE,
    LOCATED,
    PATIENCE,
    QUEUED,
    RESERVING,
    TERMS,
    TIED,
    State,
)
from buildpool.core.routing.values import Target
from samples import NOW

SLOTS = 2
SECOND = timedelta(seconds=1)
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
CLIENTS = {"a": "ann", "b": "ann", "c": "bob", "d": "bob", "e": "cid"}
BY_RIGHT = frozenset({State.RESUMED, State.OWED, State.CALLED})
"""States of which something begins though no slot is free: what runs may need it."""
OF_ONE_BUILDER = frozenset({*TIED, State.QUIET})
"""States of which nothing begins but on the builder where they are."""


@dataclass
class Stream:
    """A session, or the solve of a build, that goes on."""

    connection: str
    builder: str
    ref: str | None
    is_internal: bool = False
    is_counted: bool = True
    """Whether the router that is there now saw it begin."""


@dataclass
class Pool:
    """What is there, and what daemons run: the truth, which they tell while they are heard."""

    count: int = 2
    silent: set[int] = field(default_factory=set)
    retired: set[int] = field(default_factory=set)
    leaving: set[int] = field(default_factory=set)
    """Nobody hears these any more, and they come back as others, if at all."""
    gone: set[int] = field(default_factory=set)
    streams: list[Stream] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)
    """Builds of others, and on which builder."""

    @property
    def state(self) -> PoolState:
        there = [number for number in range(self.count) if number not in self.gone]
        return PoolState(
            [
                Target(
                    f"b-{n}",
                    f"uid-{n}",
                    f"10.0.0.{n}:1",
                    is_serving=n not in {*self.retired, *self.leaving},
                    is_leaving=n in self.leaving,
                )
                for n in there
            ],
            {
                f"uid-{n}": self.running(f"uid-{n}")
                for n in there
                if n not in {*self.silent, *self.leaving}
            },
            SLOTS,
        )

    def running(self, uid: str) -> frozenset[str]:
        ours = {s.ref for s in self.streams if s.ref and s.builder == uid and not s.is_internal}
        return frozenset({*ours, *(ref for ref, where in self.foreign.items() if where == uid)})


class Histories(RuleBasedStateMachine):
    """Each rule is a turn, as in the gateway: leases are looked at, and free slots are given."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = Connections()
        self.pool = Pool()
        self.now = NOW
        self.serial = 0

    # --- what is known ----------------------------------------------------------------------------

    def all(self) -> dict[str, Connection]:
        return dict(self.connections._index.of_states(State))

    def known(self, name: str) -> Connection | None:
        return self.connections._index.find(name)

    def used(self, builder: Target) -> int:
        """As it was counted before there was an index."""
        own = [c for c in self.all().values() if c.builder == builder.uid]
        running = self.pool.state.builds.get(builder.uid)
        if running is None:
            return sum(c.holds or c.state is State.RESUMED for c in own)
        refs = {ref for c in own for ref in c.refs}
        return len(running - refs) + sum(c.holds or bool(c.refs.keys() & running) for c in own)

    def room(self) -> int:
        """Free slots; less than none where more are held than there are."""
        state = self.pool.state
        reserved = sum(c.state in RESERVING for c in self.all().values())
        return sum(max(0, SLOTS - self.used(b)) for b in state.takers) - reserved

    def runs(self, known: Connection) -> bool:
        """Whether its daemon says that it runs a build of it."""
        return not known.refs.keys().isdisjoint(self.pool.state.builds.get(known.builder, ()))

    def turn(self) -> None:
        state = self.pool.state
        self.connections.reclaim(state, now=self.now)
        before = self.room()
        theirs = {
            name
            for name, known in self.all().items()
            if known.state in TIED
            and (state.builder(known.builder) not in state.takers or self.runs(known))
        }
        admitted = self.connections.admit(state, now=self.now)
        # What is free on a builder that goes is for those that are there.
        assert len({*admitted} - theirs) <= max(0, before), "no slot is given that is not there"
        for waiting in self.connections.waiting():
            known = self.known(waiting.connection)
            assert known is not None
            here = state.builder(known.builder)
            is_full = here is None or self.used(here) >= SLOTS
            is_bound = known.state in TIED
            assert here is None or not here.is_leaving, "nobody waits for a builder that drains"
            assert self.room() <= 0 or (is_bound and is_full), "nobody waits while a slot is free"

    # --- what happens -----------------------------------------------------------------------------

    @initialize(slots=st.integers(1, 3))
    def there_are_builders(self, slots: int) -> None:
        self.pool.count = slots

    @rule(name=NAMES)
    def one_says_hello(self, name: str) -> None:
        self.connections.arrive(name, CLIENTS[name], now=self.now)
        self.turn()

    @rule(name=NAMES)
    def the_message_of_a_solve_is_about_to_be_read(self, name: str) -> None:
        self.connections.claim(name, CLIENTS[name], now=self.now)
        self.turn()

    @rule(name=NAMES, kind=st.sampled_from(["session", "probe", "build"]))
    def something_begins(self, name: str, kind: str) -> None:
        self.serial += 1
        ref = None if kind == "session" else f"{name}-{self.serial}"
        known, room = self.known(name), self.room()
        before = State.ASIDE if known is None else known.state
        home = self.connections.home_of(name, self.pool.state)
        runs = known is not None and self.runs(known)
        may_go_on = runs or (
            known is not None and (known.streams > 0 or known.builder not in self.pool.state.builds)
        )
        placement = self.connections.begin(
            name, CLIENTS[name], "key", self.pool.state,
            ref=ref, is_internal=kind == "probe", now=self.now,
        )  # fmt: skip
        if placement is None:
            if kind == "session":
                self.its_session_goes_to_a_builder(name)
            return self.turn()
        uid = placement.builder.uid
        assert home is None or uid == home.uid, "linked targets stay together"
        assert placement.builder in self.pool.state.takers or home is not None
        assert before is not State.RESUMED or may_go_on, "its daemon runs something of it"
        if before in OF_ONE_BUILDER and ref is not None and not runs:
            assert self.used(placement.builder) <= SLOTS, "it has waited for a slot of its builder"
        if before in RESERVING:
            assert self.room() >= room, "its slot was reserved"
        elif before not in BY_RIGHT and home is None:
            assert self.room() >= 0, "no more is held than there is"
        self.pool.streams.append(Stream(name, uid, ref, kind == "probe"))
        return self.turn()

    def its_session_goes_to_a_builder(self, name: str) -> None:
        room, state = self.room(), self.pool.state
        builder = self.connections.attach(name, CLIENTS[name], state, now=self.now)
        assert self.room() == room, "it takes no slot"
        if builder is not None:
            self.pool.streams.append(Stream(name, builder.uid, None))

    @precondition(lambda self: self.pool.streams)
    @rule(data=st.data())
    def a_stream_ends(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.pool.streams))
        self.pool.streams.remove(stream)
        if stream.is_counted:
            self.connections.end(stream.connection, stream.ref, now=self.now)
        self.turn()

    @rule(name=NAMES)
    def a_connection_ends(self, name: str) -> None:
        self.pool.streams = [s for s in self.pool.streams if s.connection != name]
        self.connections.leave(name)
        self.turn()

    @rule(name=NAMES)
    def one_gives_up(self, name: str) -> None:
        self.connections.give_up(name, now=self.now)
        self.turn()

    @rule(gap=st.sampled_from([SECOND, 4 * SECOND, PATIENCE, 3 * PATIENCE, GRACE, FORGOTTEN]))
    def time_passes(self, gap: timedelta) -> None:
        self.now += gap
        self.turn()

    @rule(number=st.integers(0, 3), what=st.sampled_from(["silent", "retired", "leaving"]))
    def a_builder_changes(self, number: int, what: str) -> None:
        found: set[int] = getattr(self.pool, what)
        found.symmetric_difference_update({number})
        self.turn()

    @rule(number=st.integers(0, 3))
    def a_pod_is_gone_or_comes(self, number: int) -> None:
        self.pool.gone ^= {number}
        for stream in [s for s in self.pool.streams if s.builder == f"uid-{number}"]:
            self.pool.streams.remove(stream)
            if stream.is_counted:
                self.connections.end(stream.connection, stream.ref, now=self.now)
        self.turn()

    @rule(number=st.integers(0, 3))
    def a_build_of_another_replica_begins_or_ends(self, number: int) -> None:
        ref = f"foreign-{number}"
        if self.pool.foreign.pop(ref, None) is None:
            self.pool.foreign[ref] = f"uid-{number % 2}"
        self.turn()

    @rule()
    def the_router_starts_again(self) -> None:
        homes, before = self.all(), self.connections
        self.connections = Connections()
        for stream in self.pool.streams:
            stream.is_counted = False
        for name, known in homes.items():
            if (noted := before.to_note(name)) is None:
                continue
            builder, builds_go_on = noted
            refs = [ref for ref, goes_on in known.refs.items() if goes_on and builds_go_on]
            for ref in ["", *refs]:
                self.connections.resume(name, known.client, builder, ref, now=self.now)
        self.turn()

    # --- what stays true --------------------------------------------------------------------------

    @invariant()
    def the_index_is_what_one_would_count(self) -> None:
        for builder in self.pool.state.builders:
            assert self.connections.used(builder, self.pool.state) == self.used(builder)

    @invariant()
    def a_connection_is_what_its_state_says(self) -> None:
        for known in self.all().values():
            is_there = known.state in (*ACTIVE, State.ATTACHED)
            assert (known.builder != "") == (known.state in LOCATED)
            assert known.streams == 0 or is_there or known.state is State.RESUMED
            assert known.streams > 0 or not is_there
            assert known.lease is not None or known.state not in TERMS

    @invariant()
    def a_lease_that_has_expired_holds_nothing(self) -> None:
        for known in self.all().values():
            if known.lease is not None and known.lease.is_over(now=self.now):
                assert known.state not in RESERVING

    @invariant()
    def every_stream_is_counted_once(self) -> None:
        for name, known in self.all().items():
            counted = [s for s in self.pool.streams if s.connection == name and s.is_counted]
            assert known.streams + known.strays == len(counted)

    @invariant()
    def no_build_that_runs_is_lost(self) -> None:
        """Its owner is known, and so is where it runs, unless a router that is gone saw it."""
        for stream in self.pool.streams:
            if stream.ref and stream.is_counted:
                assert self.connections.owner_of(stream.ref) == CLIENTS[stream.connection]
                assert self.connections.is_building(stream.connection)
                found = self.connections.runs(stream.ref, self.pool.state)
                assert found is not None

    @invariant()
    def what_a_router_that_is_gone_began_goes_on_while_its_daemon_runs_it(self) -> None:
        state = self.pool.state
        for stream in self.pool.streams:
            if stream.ref and not stream.is_internal and stream.builder in state.builds:
                found = self.connections.runs(stream.ref, state)
                assert found is not None
                assert found.uid == stream.builder

    @invariant()
    def a_connection_that_waits_is_in_the_queue_once(self) -> None:
        waiting = [each.connection for each in self.connections.waiting()]
        assert len(waiting) == len(set(waiting))
        assert set(waiting) == {n for n, c in self.all().items() if c.state in QUEUED}


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- what takes time ------------------------------------------------------------------------------

BUILDER = Target("b-0", "uid-0", "10.0.0.0:1")
DOING = st.sampled_from(["nothing", "hello", "claim", "session", "probe", "build", "gives up"])
SCRIPTS = st.lists(st.tuples(DOING, st.integers(1, 5)), min_size=1, max_size=6)
"""What a connection does, each for so many seconds, and then from the beginning again."""


@dataclass
class Agent:
    """A connection that is never closed, and does one thing after the other."""

    name: str
    client: str
    script: list[tuple[str, int]]
    place: int = -1
    left: int = 0
    ref: str | None = None
    is_running: bool = False

    def step(self, connections: Connections, state: PoolState, second: int) -> None:
        now = NOW + second * SECOND
        self.left -= 1
        if self.left > 0:
            return
        if self.is_running:
            connections.end(self.name, self.ref, now=now)
            self.is_running = False
            return  # and others have a turn
        self.place = (self.place + 1) % len(self.script)
        what, self.left = self.script[self.place]
        if what == "hello":
            connections.arrive(self.name, self.client, now=now)
        elif what == "claim":
            connections.claim(self.name, self.client, now=now)
        elif what == "gives up":
            connections.give_up(self.name, now=now)
        elif what != "nothing":
            self.ref = None if what == "session" else f"{self.name} {second}"
            self.is_running = None is not connections.begin(
                self.name, self.client, None, state,
                ref=self.ref, is_internal=what == "probe", now=now,
            )  # fmt: skip
            if what == "session" and not self.is_running:
                attached = connections.attach(self.name, self.client, state, now=now)
                self.is_running = attached is not None


def admitted_after(connections: Connections, agents: list[Agent], limit: int) -> bool:
    """Whether a connection that waits gets a slot within so many seconds."""
    for second in range(1, limit):
        running = {agent.ref for agent in agents if agent.is_running and agent.ref}
        state = PoolState([BUILDER], {BUILDER.uid: frozenset(running)}, 1)
        for agent in agents:
            agent.step(connections, state, second)
            now = NOW + second * SECOND
            running = {agent.ref for agent in agents if agent.is_running and agent.ref}
            state = PoolState([BUILDER], {BUILDER.uid: frozenset(running)}, 1)
            connections.reclaim(state, now=now)
            connections.admit(state, now=now)
        if connections.is_admitted("patient"):
            return True
    return False


@given(st.lists(SCRIPTS, min_size=1, max_size=3), st.sampled_from(["ann", "bob"]))
@settings(max_examples=300, deadline=None)
def test_nobody_starves_whatever_others_do_whose_builds_end(
    scripts: list[list[tuple[str, int]]], client: str
) -> None:
    connections = Connections()
    agents = [Agent(f"{number}", "ann", script) for number, script in enumerate(scripts)]
    for agent in agents:
        connections.arrive(agent.name, agent.client, now=NOW)
    connections.admit(PoolState([BUILDER], {BUILDER.uid: frozenset()}, 1), now=NOW)
    connections.arrive("patient", client, now=NOW)
    assert admitted_after(connections, agents, 300)


QUIET = st.lists(
    st.tuples(st.sampled_from(["nothing", "hello", "claim", "gives up"]), st.integers(1, 5)),
    min_size=1,
    max_size=6,
)


@given(QUIET)
@settings(deadline=None)
def test_a_connection_that_builds_nothing_keeps_no_slot_beyond_its_lease_whatever_it_says(
    script: list[tuple[str, int]],
) -> None:
    connections = Connections()
    connections.arrive("0", "ann", now=NOW)
    connections.admit(PoolState([BUILDER], {BUILDER.uid: frozenset()}, 1), now=NOW)
    connections.arrive("patient", "bob", now=NOW)
    limit = 2 * int(PATIENCE / SECOND) + 1
    assert admitted_after(connections, [Agent("0", "ann", script)], limit)


@given(
    st.lists(st.sampled_from(["", "ref", "another"]), min_size=1),
    st.lists(st.tuples(st.sampled_from(["hello", "claim", "nothing"]), st.integers(0, 90))),
    st.booleans(),
)
def test_a_connection_of_the_last_process_that_runs_nothing_is_like_any_other_after_the_grace(
    refs: list[str], said: list[tuple[str, int]], is_serving: bool
) -> None:
    connections, now = Connections(), NOW
    for ref in refs:
        connections.resume("a", "ann", BUILDER.uid, ref, now=NOW)
    old = Target(BUILDER.name, BUILDER.uid, BUILDER.address, is_serving=is_serving)
    state = PoolState([old], {old.uid: frozenset()}, 0)  # no slot: who waits, waits
    for what, gap in [*said, ("nothing", 0)]:
        now = min(now + gap * SECOND, NOW + GRACE)
        if what == "hello":
            connections.arrive("a", "ann", now=now)
        elif what == "claim":
            connections.claim("a", "ann", now=now)
        connections.reclaim(state, now=now)
    connections.give_up("a", now=now)  # as all that wait do in the end
    connections.reclaim(state, now=NOW + GRACE)
    connections.arrive("a", "ann", now=NOW + GRACE)
    connections.admit(state, now=NOW + GRACE)
    assert not connections.is_building("a"), "a client that was removed is out"
    assert not connections.is_admitted("a"), "it waits as others do"
    assert connections.home_of("a", state) is None, "it leaves a builder that retires"
    assert connections.begin("a", "ann", None, state, ref="next", now=NOW + GRACE) is None
