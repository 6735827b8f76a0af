"""Who waits, who holds a slot, and who runs where: the gateway's account of one pool's connections.

A connection holds one slot of one builder from its admission until its last session has ended,
however many targets it builds: linked targets wait for each other, so none of them may wait here.

    waiting    has no slot; in the queue
    reserved   has a slot of the pool; of which builder is decided when it says what it builds
    settled    has a builder, and holds a slot of it while any of its streams goes on; has again a
               slot of the pool, for a while, where it has built nothing but what is internal:
               buildx asks so what a builder can, and then builds
    aside      has given its slot back; where it built nothing and builds after all, it is the next
               to get one

What daemons say corrects this account: builds that are none of ours (of another replica, or from
before a restart) take slots, too. Pure: the time is an argument, and so is the world.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.routing.affinity import Candidate, choose
from buildpool.core.routing.connection import Connection, State
from buildpool.core.routing.fairness import Turns, Waiting, next_in_line
from buildpool.core.routing.state import Placement, PoolState
from buildpool.core.routing.values import Target

PATIENCE: Final = timedelta(seconds=5)
"""How long a reservation stands for a connection that builds nothing."""
FORGOTTEN: Final = timedelta(days=1)
"""How long a connection without a slot is known: not everyone's end is told."""


class Connections:
    """The connections of one pool to this gateway."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._arrivals = 0
        self._turns = Turns()

    def arrive(self, connection: str, client: str, *, now: datetime) -> None:
        """A connection asks for a slot. It is in the queue, unless it has one."""
        known = self._connections.get(connection)
        if known is None:
            self._arrivals += 1
            self._connections[connection] = Connection(client, self._arrivals, now)
        elif known.state in (State.RESERVED, State.SETTLED):
            known.since = now  # it is about to build
        elif known.state is State.ASIDE:
            self._enqueue(known, now)
            known.is_urgent = known.has_waited and not known.has_come_back
            known.has_come_back = True

    def resume(
        self, connection: str, client: str, builder: str, ref: str, *, now: datetime
    ) -> None:
        """A connection that had a slot before this account began; what it runs, daemons say.

        ``builder`` is empty where it had not settled yet.
        """
        self.arrive(connection, client, now=now)
        known = self._connections[connection]
        known.has_waited = True
        if not builder:
            known.state = State.RESERVED
            return
        known.state, known.builder, known.is_resumed = State.SETTLED, builder, True
        if ref:
            known.note(ref)

    def leave(self, connection: str) -> None:
        """A connection has ended, or gives up."""
        self._connections.pop(connection, None)

    def admit(self, state: PoolState, *, now: datetime) -> tuple[str, ...]:
        """Gives what slots are free to those who wait; returns who got one, in this order."""
        admitted = []
        for _ in range(self._free(state)):
            waiting = list(self.waiting())
            urgent = [each for each in waiting if self._connections[each.connection].is_urgent]
            following = next_in_line(
                urgent or waiting, held=self._held(), turns=self._turns, weights=state.weights
            )
            if following is None:
                break
            self._turns.take(following.client, state.weights.get(following.client, 1))
            connection = self._connections[following.connection]
            connection.state, connection.since = State.RESERVED, now
            connection.has_waited, connection.is_urgent = True, False
            admitted.append(following.connection)
        return tuple(admitted)

    def reclaim(self, state: PoolState, *, now: datetime) -> tuple[str, ...]:
        """Takes the slots back of those who have built nothing for a while.

        Returns the connections of which the next process need not know.
        """
        done = []
        for name, connection in tuple(self._connections.items()):
            waited = now - connection.since
            is_over = connection.state is not State.WAITING and not connection.holds
            if is_over and waited >= FORGOTTEN:
                del self._connections[name]
                done.append(name)
            elif connection.state is State.RESERVED and waited >= PATIENCE:
                connection.state = State.ASIDE
            elif waited >= PATIENCE and self._is_done(connection, state):
                connection.rest()  # who keeps a connection waits for its next build as others do
                done.append(name)
        return tuple(done)

    def client_of(self, connection: str) -> str:
        """Whose a known connection is."""
        return self._connections[connection].client

    def is_known(self, connection: str) -> bool:
        """Whether a connection asked for a slot and was not forgotten since."""
        return connection in self._connections

    def is_building(self, connection: str) -> bool:
        """Whether sessions or solves of a connection go on, as far as is known."""
        known = self._connections.get(connection)
        return known is not None and (known.streams > 0 or known.is_resumed)

    def is_admitted(self, connection: str) -> bool:
        """Whether a connection has a slot, or a builder that it may come back to."""
        known = self._connections.get(connection)
        return known is not None and known.state in (State.RESERVED, State.SETTLED)

    def claim(self, connection: str, client: str, *, now: datetime) -> bool:
        """Whether a connection that is about to begin something has a slot; else it asks for one.

        As ``begin`` would, which needs to know what is built.
        """
        if connection not in self._connections:
            self.arrive(connection, client, now=now)
        if self.is_admitted(connection):
            return True
        self._claim(self._connections[connection], now)
        return False

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
        known = self._connections.get(connection)
        if known is None:
            self.arrive(connection, client, now=now)
            known = self._connections[connection]
        placement = self._place(known, key, state, is_session=ref is None)
        if placement is None:
            self._claim(known, now)
            return None
        # At once: a slot that is chosen and not yet held would be given away.
        known.state, known.since, known.builder = State.SETTLED, now, placement.builder.uid
        known.streams += 1
        if ref:
            known.note(ref)
            known.has_asked |= is_internal
            known.has_built |= not is_internal
        return placement

    def give_up(self, connection: str, *, now: datetime) -> None:
        """A connection that was about to begin waits no more; it may come again."""
        known = self._connections.get(connection)
        if known is not None and known.state is State.WAITING:
            known.state, known.since, known.is_urgent = State.ASIDE, now, False

    def _place(
        self, known: Connection, key: str | None, state: PoolState, *, is_session: bool
    ) -> Placement | None:
        # The session that targets of a bake share begins first, and nobody says hello for it.
        needs_slot = not (is_session and known.has_asked)
        if known.state is State.SETTLED:
            if (own := self._own(known, state)) is not None:
                return Placement(own)
        elif known.state is not State.RESERVED and needs_slot and self._free(state) <= 0:
            return None
        candidates = {
            builder.name: builder for builder in sorted(state.serving, key=lambda b: b.uid)
        }
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

    def end(self, connection: str, *, now: datetime) -> bool:
        """A session or solve has ended; with the last one, the slot is free.

        True where the connection has its slot still, but no builder any more.
        """
        known = self._connections.get(connection)
        if known is None or not known.streams:
            return False
        known.streams -= 1
        known.since = now
        if known.streams or known.has_built or known.is_resumed:
            return False
        known.state, known.builder = State.RESERVED, ""
        known.refs.clear()
        return True

    def home_of(self, connection: str, state: PoolState) -> Target | None:
        """The builder that a connection has settled on; None where it would be given another."""
        known = self._connections.get(connection)
        return None if known is None else self._own(known, state)

    def last_of(self, connection: str, state: PoolState) -> Target | None:
        """The builder on which a connection has built last; None where it is gone."""
        known = self._connections.get(connection)
        return state.builder(known.builder or known.last) if known is not None else None

    def owner_of(self, ref: str) -> str | None:
        """Whose build it is; None where no connection here is known to have begun it."""
        return next((c.client for c in self._connections.values() if ref in c.refs), None)

    def runs(self, ref: str, state: PoolState) -> Target | None:
        """The builder that runs a build, as we know or as its daemon says."""
        for known in self._connections.values():
            if ref in known.refs and (uid := known.builder or known.last):
                return state.builder(uid)
        uid = next((uid for uid, refs in state.builds.items() if ref in refs), "")
        return state.builder(uid)

    @property
    def has_connections(self) -> bool:
        """Whether any connection is known."""
        return bool(self._connections)

    def is_busy(self, state: PoolState) -> bool:
        """Whether anybody waits, has a slot, or may be building on a builder that is there."""
        return any(
            c.holds
            or c.state is State.WAITING
            or (c.is_resumed and state.builder(c.builder) is not None)
            for c in self._connections.values()
        )

    def waiting(self) -> Iterator[Waiting]:
        """Those who wait."""
        for name, known in self._connections.items():
            if known.state is State.WAITING:
                yield Waiting(name, known.client, known.since, known.order)

    def used(self, builder: Target, state: PoolState) -> int:
        """Slots of a builder that are taken: by connections of ours, and by builds of others."""
        own = [c for c in self._connections.values() if c.builder == builder.uid]
        refs: set[str] = set().union(*(connection.refs for connection in own))
        running = state.builds.get(builder.uid)
        if running is None:  # nobody says whether what was there before still is
            return sum(c.holds or c.is_resumed for c in own)
        # A build of ours that the daemon still runs holds its slot, though its session has ended.
        return len(running - refs) + sum(c.holds or bool(c.refs.keys() & running) for c in own)

    def _is_done(self, known: Connection, state: PoolState) -> bool:
        """Whether all that a connection has built has ended, as its daemon says, too."""
        if known.state is not State.SETTLED or known.streams or known.is_resumed:
            return False
        running = state.builds.get(known.builder)
        if running is None:
            return state.builder(known.builder) is None
        return not known.refs.keys() & running

    def _own(self, known: Connection, state: PoolState) -> Target | None:
        """Where a connection goes on; None where it has nothing to go on with."""
        own = state.builder(known.builder)
        if own is not None and (own.is_serving or known.streams or known.is_resumed):
            return own
        return None

    def _enqueue(self, known: Connection, now: datetime) -> None:
        """A connection goes to the end of the queue."""
        self._arrivals += 1
        known.state, known.since, known.order = State.WAITING, now, self._arrivals

    def _claim(self, known: Connection, now: datetime) -> None:
        if known.state is not State.WAITING:
            self._enqueue(known, now)
        known.is_urgent = known.has_waited

    def _free(self, state: PoolState) -> int:
        """Slots that nobody has, and nobody has reserved; none where that is not known yet."""
        if not state.is_complete:
            return 0
        served = sum(max(0, state.slots - self.used(b, state)) for b in state.serving)
        reserved = sum(c.state is State.RESERVED for c in self._connections.values())
        return served - reserved

    def _held(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for connection in self._connections.values():
            if connection.holds:
                held[connection.client] = held.get(connection.client, 0) + 1
        return held
