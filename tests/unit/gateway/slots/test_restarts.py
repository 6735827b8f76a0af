"""A router ends at any moment, and the next one gives away no slot that is taken."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from buildpool.core.naming import PoolKey
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.states import PATIENCE, RESERVING, State
from buildpool.core.routing.values import Target
from buildpool.gateway.slots.scheduler import SlotScheduler
from buildpool.gateway.slots.store import ConnectionStore
from samples import NOW

POOL = PoolKey("builds", "ci")
SLOTS = 1
BUILDERS = tuple(Target(f"b-{n}", f"uid-{n}", f"10.0.0.{n}:1") for n in range(2))
CONNECTIONS = "abcdef"
NAMES = st.sampled_from(CONNECTIONS)
BY_RIGHT = (State.RESTING, State.OWED, State.CALLED)
"""Those that go on without a turn, once: to their own builder, or with the session they owe."""


@dataclass(eq=False)
class Stream:
    """A session, or the solve of a build, that goes on at a builder."""

    connection: str
    builder: str
    ref: str | None
    is_counted: bool = True
    """Whether the router that is there now saw it begin."""


class Restarts(RuleBasedStateMachine):
    """Daemons say at once what they run."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.serial = 0
        self.streams: list[Stream] = []
        self.by_right: set[str] = set()
        self.memory = ConnectionStore(None, now=NOW)
        self.scheduler = self.another()

    def another(self) -> SlotScheduler:
        """The router of the next process."""
        return SlotScheduler(POOL, self.state, clock=lambda: self.now, memory=self.memory)

    def state(self) -> PoolState:
        return PoolState(BUILDERS, {b.uid: self.running(b.uid) for b in BUILDERS}, SLOTS)

    def running(self, uid: str) -> frozenset[str]:
        return frozenset(each.ref for each in self.streams if each.ref and each.builder == uid)

    def state_of(self, name: str) -> State:
        known = self.scheduler.connections._index.find(name)
        return State.ASIDE if known is None else known.state

    @rule(name=NAMES)
    def one_says_hello(self, name: str) -> None:
        self.scheduler.connections.arrive(name, "ann", now=self.now)
        self.scheduler.dispatch()

    @rule(name=NAMES)
    def a_solve_comes(self, name: str) -> None:
        """A solve begins once its connection has a slot, and asks for one before."""
        self.serial += 1
        ref, before = f"{name}-{self.serial}", self.state_of(name)
        if not self.scheduler.connections.claim(name, "ann", now=self.now):
            self.scheduler.dispatch()
            if not self.scheduler.connections.claim(name, "ann", now=self.now):
                return
        if before in BY_RIGHT:
            self.by_right.add(name)
        placement = self.scheduler._begin(name, "ann", None, ref)
        if placement is not None:
            self.streams.append(Stream(name, placement.builder.uid, ref))
        self.scheduler.dispatch()

    @rule(name=NAMES)
    def a_session_comes(self, name: str) -> None:
        if self.state_of(name) in BY_RIGHT:
            self.by_right.add(name)
        placement = self.scheduler._begin(name, "ann", None)
        placement = placement or self.scheduler._attach(name, "ann")
        if placement is not None:
            self.streams.append(Stream(name, placement.builder.uid, None))
        self.scheduler.dispatch()

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def a_stream_ends(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        self.streams.remove(stream)
        if stream.is_counted:
            self.scheduler.end(stream.connection, stream.ref)
        self.scheduler.dispatch()

    @rule(name=NAMES)
    def a_connection_ends(self, name: str) -> None:
        self.streams = [each for each in self.streams if each.connection != name]
        self.by_right.discard(name)
        self.scheduler.leave(name)

    @rule(name=NAMES)
    def one_gives_up(self, name: str) -> None:
        self.scheduler.connections.give_up(name, now=self.now)
        self.scheduler.dispatch()

    @rule(gap=st.sampled_from([1, 2, 3]))
    def time_passes(self, gap: int) -> None:
        self.now += gap * PATIENCE / 2
        self.scheduler.dispatch()

    @rule(name=st.sampled_from([*"abcdef", ""]))
    def the_router_starts_again(self, name: str) -> None:
        """It is killed; meanwhile one client may leave without anybody's hearing of it."""
        self.streams = [each for each in self.streams if each.connection != name]
        for stream in self.streams:
            stream.is_counted = False
        self.scheduler = self.another()
        self.scheduler.dispatch()

    @rule()
    def the_router_is_told_to_end(self) -> None:
        """Conversations end with it, and what they are about goes on."""
        self.memory.retain()
        for stream in self.streams:
            if stream.is_counted:
                self.scheduler.end(stream.connection, stream.ref)
        self.memory._forgets = True  # it is another process now
        self.the_router_starts_again("")

    @invariant()
    def no_builder_runs_builds_of_more_connections_than_it_has_slots(self) -> None:
        for builder in BUILDERS:
            here = {
                each.connection for each in self.streams if each.ref in self.running(builder.uid)
            }
            assert len(here - self.by_right) <= SLOTS

    @invariant()
    def nobody_waits_while_nothing_is_built(self) -> None:
        if not any(each.ref for each in self.streams):
            waiting = [each.connection for each in self.scheduler.connections.waiting()]
            held = sum(self.scheduler.connections.used(b, self.state()) for b in BUILDERS)
            reserved = sum(self.state_of(name) in RESERVING for name in CONNECTIONS)
            assert not waiting or held + reserved > 0


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
