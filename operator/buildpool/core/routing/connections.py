"""Who waits, who holds a slot, and who runs where: the gateway's account of one pool's connections.

A connection holds one slot of one builder from its admission until its last session has ended,
however many targets it builds: linked targets wait for each other, so none of them may wait here.
How far each has come, and what follows from what happens to it, is the table of ``states``; here
it is decided what happens: who is next, what finds room, whose lease is over.

What daemons say corrects this account: builds that are none of ours (of another replica, or from
before a restart) take slots, too. Pure: the time is an argument, and so is the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from buildpool.core.routing import leases, occupancy
from buildpool.core.routing.affinity import Candidate, choose
from buildpool.core.routing.connection import Connection
from buildpool.core.routing.fairness import Turns, Waiting, next_in_line
from buildpool.core.routing.index import ConnectionIndex
from buildpool.core.routing.pool_state import Placement, PoolState
from buildpool.core.routing.states import (
    ACTIVE,
    ADMITTED,
    FIRST,
    HOLDING,
    NOTED,
    QUEUED,
    TABLE,
    TIED,
    Event,
    State,
    needs_slot,
)
from buildpool.core.routing.values import Target


class Connections:
    """The connections of one pool to this gateway."""

    def __init__(self) -> None:
        self._index = ConnectionIndex()
        self._arrivals = 0
        self._turns = Turns()
        self._moved: dict[str, None] = {}

    def arrive(self, connection: str, client: str, *, now: datetime) -> None:
        """A connection asks for a slot. It is in the queue, unless it has one."""
        self._on(connection, self._know(connection, client, now), Event.HELLO, now)

    def resume(
        self, connection: str, client: str, builder: str, ref: str, *, now: datetime
    ) -> None:
        """A connection of which the last process has noted this; what it runs, daemons say.

        ``builder`` is empty where it had a slot, and had not settled yet.
        """
        known = self._know(connection, client, now)
        if builder:
            known.resume(builder, ref, now=now)
            self._index.file(connection, known)
            if ref:
                self._index.note(connection, ref)
            return
        self._on(connection, known, Event.HELLO, now)
        self._on(connection, known, Event.SLOT, now)

    def leave(self, connection: str) -> None:
        """A connection has ended, or gives up."""
        known = self._index.find(connection)
        if known is not None:
            known.state = State.GONE
            self._moved[connection] = None
            self._index.file(connection, known)

    def admit(self, state: PoolState, *, now: datetime) -> tuple[str, ...]:
        """Gives what slots are free to those who wait; returns who got one, in this order."""
        admitted: list[str] = []
        if not self._index.count(QUEUED):
            return ()
        free = occupancy.count_free(self._index, state)
        while (following := self._next(state, free)) is not None:
            name, known = following.connection, self._index[following.connection]
            self._turns.take(following.client, state.weights.get(following.client, 1))
            free -= occupancy.takes_of_all(known, state)
            self._on(name, known, Event.SLOT, now)
            admitted.append(name)
        return tuple(admitted)

    def reclaim(self, state: PoolState, *, now: datetime) -> tuple[str, ...]:
        """Takes back what those have whose lease is over, or of whom nothing runs any more.

        Returns those whose sessions are on builders that run no more builds of them.
        """
        parted: list[str] = []
        for event, find in ((Event.IDLE, leases.idle), (Event.EXPIRES, leases.expired)):
            for name in dict.fromkeys(find(self._index, state, now=now)):
                if self._index[name].state is State.ATTACHED:
                    parted.append(name)
                self._on(name, self._index[name], event, now)
        return tuple(parted)

    def take_moved(self) -> Iterable[str]:
        """The connections that have come to another state since this was asked last."""
        moved, self._moved = self._moved, {}
        return moved

    def to_note(self, connection: str) -> tuple[str, bool] | None:
        """What the next process has to know of a connection; None: nothing.

        The uid of the builder on which it is, empty where it has a slot of the pool; and whether
        its builds may go on.
        """
        known = self._index.find(connection)
        if known is None or known.state not in NOTED:
            return None
        return known.builder, known.state in (*ACTIVE, State.RESUMED)

    def client_of(self, connection: str) -> str:
        """Whose a known connection is."""
        return self._index[connection].client

    def is_known(self, connection: str) -> bool:
        """Whether a connection asked for a slot and was not forgotten since."""
        return self._index.find(connection) is not None

    def is_building(self, connection: str) -> bool:
        """Whether sessions or solves of a connection go on, as far as is known."""
        known = self._index.find(connection)
        return known is not None and (known.is_active or known.may_run_unseen)

    def is_attached(self, connection: str) -> bool:
        """Whether sessions of a connection are on a builder, and it waits there for a slot."""
        known = self._index.find(connection)
        return known is not None and known.state in TIED

    def is_admitted(self, connection: str) -> bool:
        """Whether a connection has a slot, or a builder that it may come back to."""
        known = self._index.find(connection)
        return known is not None and known.state in ADMITTED

    def claim(self, connection: str, client: str, *, now: datetime) -> bool:
        """As ``begin``, before it is known what: whether it has a slot; else it asks for one."""
        known = self._know(connection, client, now)
        is_admitted = known.state in ADMITTED
        # What it is about to begin may take a while to be read, as it does after a hello.
        self._on(connection, known, Event.HELLO if is_admitted else Event.CLAIM, now)
        return is_admitted

    def begin(
        self,
        connection: str,
        client: str,
        key: str | None,
        state: PoolState,
        *,
        ref: str | None = None,
        is_internal: bool = False,
        now: datetime,
    ) -> Placement | None:
        """A session or solve begins: on the connection's builder, or on one that is chosen now.

        ``ref`` is the build that a solve begins, and whether it ``is_internal``. None, and nothing
        has begun, where it has no slot and none is free, or where no builder takes builds. A
        connection that built before comes back without waiting: what it does may belong to what
        runs.
        """
        known = self._know(connection, client, now)
        solve = Event.PROBE if is_internal else Event.BUILD
        event = Event.SESSION if ref is None else solve
        placement = self._place(known, key, state, event)
        if placement is None:
            self._on(connection, known, Event.CLAIM, now)
            return None
        # At once: a slot that is chosen and not yet held would be given away.
        uid = known.builder = placement.builder.uid
        known.streams += 1
        self._on(connection, known, event, now)
        if ref:
            forgotten = known.note(ref, state.builds.get(uid, frozenset()))
            self._index.note(connection, ref)
            self._index.forget(connection, forgotten)
        return placement

    def attach(
        self, connection: str, client: str, state: PoolState, *, now: datetime
    ) -> Target | None:
        """A session that can wait no longer goes to a builder; its connection waits there.

        None where no builder takes builds, or the connection needs no slot of it.
        """
        known = self._know(connection, client, now)
        builder = occupancy.least_crowded(self._index, state)
        if builder is None or TABLE[known.state][Event.ATTACH] is not State.ATTACHED:
            return None
        known.builder = builder.uid
        known.streams += 1
        self._on(connection, known, Event.ATTACH, now)
        return builder

    def give_up(self, connection: str, *, now: datetime) -> None:
        """A connection that was about to begin waits no more; it may come again."""
        known = self._index.find(connection)
        if known is not None:
            self._on(connection, known, Event.GIVES_UP, now)

    def end(self, connection: str, ref: str | None = None, *, now: datetime) -> None:
        """A session, or the solve of ``ref``, has ended; with the last one, the slot is free."""
        known = self._index.find(connection)
        if known is not None and known.strays and ref is None:
            # Which of its sessions this was, nobody says: better a slot is kept too long.
            known.strays -= 1
        elif known is not None and known.streams:
            self._end(connection, known, ref, now)

    def _end(self, connection: str, known: Connection, ref: str | None, now: datetime) -> None:
        known.streams -= 1
        if ref in known.refs:
            known.refs[ref] = False
        if not known.streams:
            self._on(connection, known, Event.ENDED, now)
        if known.state is State.ASKED:
            self._index.forget(connection, known.refs)  # it has built nothing
            known.refs.clear()

    def home_of(self, connection: str, state: PoolState) -> Target | None:
        """The builder that a connection has settled on; None where it would be given another."""
        known = self._index.find(connection)
        return None if known is None else self._own(known, state)

    def last_of(self, connection: str, state: PoolState) -> Target | None:
        """The builder on which a connection has built last; None where it is gone."""
        known = self._index.find(connection)
        return state.builder(known.builder or known.last) if known is not None else None

    def owner_of(self, ref: str) -> str | None:
        """Whose build it is; None where no connection here is known to have begun it."""
        known = self._builder_of(ref)
        return None if known is None else known.client

    def runs(self, ref: str, state: PoolState) -> Target | None:
        """The builder that runs a build, as we know or as its daemon says."""
        known = self._builder_of(ref)
        uid = "" if known is None else known.builder or known.last
        return state.builder(uid) if uid else state.runner_of(ref)

    def running(self, ref: str, state: PoolState) -> Target | None:
        """The same, but only of a build that has not ended: its connection may be elsewhere now."""
        known = self._builder_of(ref)
        goes_on = known is not None and known.refs.get(ref)
        return self.runs(ref, state) if goes_on else state.runner_of(ref)

    @property
    def has_connections(self) -> bool:
        """Whether any connection is known."""
        return len(self._index) > 0

    def is_busy(self, state: PoolState) -> bool:
        """Whether anybody waits, has a slot, or may be building on a builder that is there."""
        active = (*ACTIVE, *QUEUED, *HOLDING)
        unseen = self._index.of_states((State.RESUMED, State.QUIET))
        return self._index.count(active) > 0 or any(
            known.may_run_unseen and (known.streams or state.builder(known.builder) is not None)
            for _, known in unseen
        )

    def waiting(self) -> Iterator[Waiting]:
        """Those who wait."""
        return self._queue(QUEUED)

    def used(self, builder: Target, state: PoolState) -> int:
        """Slots of a builder that are taken: by connections of ours, and by builds of others."""
        return occupancy.used(self._index, builder, state)

    def shared(self, state: PoolState) -> int:
        """Builds that run on builders which take builds, in slots of others of their connection."""
        return occupancy.shared(self._index, state)

    def _know(self, connection: str, client: str, now: datetime) -> Connection:
        return self._index.find(connection) or Connection(client, now)

    def _on(self, name: str, known: Connection, event: Event, now: datetime) -> None:
        """Something happens to a connection."""
        before = known.state
        known.on(event, now=now)
        if known.state is not before:
            self._moved[name] = None
        if known.state in QUEUED and before not in QUEUED:
            self._arrivals += 1
            known.order = self._arrivals
        self._index.file(name, known)

    def _place(
        self, known: Connection, key: str | None, state: PoolState, event: Event
    ) -> Placement | None:
        own = self._own(known, state)
        if known.state in (*TIED, State.QUIET):  # its session is there, and nowhere else
            can = occupancy.can_have(
                self._index, known, state, occupancy.count_free(self._index, state)
            )
            return Placement(own) if own and (can or event is Event.SESSION) else None
        if own is not None:
            return Placement(own)
        if needs_slot(known.state, event) and occupancy.count_free(self._index, state) <= 0:
            return None
        candidates = {builder.name: builder for builder in sorted(state.takers, key=_uid)}
        chosen = choose(
            key,
            [
                Candidate(name, self.used(builder, state), state.slots)
                for name, builder in sorted(candidates.items())
            ],
        )
        if chosen is None:
            return None
        return Placement(candidates[chosen.name], chosen.is_favourite)

    def _own(self, known: Connection, state: PoolState) -> Target | None:
        """Where a connection goes on; None where it has nothing to go on with."""
        own = state.builder(known.builder)
        of_before = (State.RESUMED, State.QUIET, State.BOUND, State.REJOINED)
        is_there = known.streams > 0 or known.state in of_before
        return own if own is not None and (own.is_serving or is_there) else None

    def _builder_of(self, ref: str) -> Connection | None:
        name = self._index.builder_of(ref)
        return None if name is None else self._index.find(name)

    def _queue(self, states: Iterable[State]) -> Iterator[Waiting]:
        for name, known in self._index.of_states(states):
            yield Waiting(name, known.client, known.since, known.order)

    def _next(self, state: PoolState, free: int) -> Waiting | None:
        """Who gets the next slot, where so many are free for all."""
        first = FIRST if self._index.count(FIRST) else QUEUED
        states = first if free > 0 else TIED
        waiting = tuple(occupancy.eligible(self._index, self._queue(states), state, free))
        if not waiting:  # most turns: who holds what is not counted for nothing
            return None
        return next_in_line(
            waiting,
            held=occupancy.held(self._index),
            turns=self._turns,
            weights=state.weights,
        )


def _uid(builder: Target) -> str:
    return builder.uid
