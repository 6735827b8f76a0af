"""How many slots of the builders are taken, and where there is room.

Counted from what connections here do and from what daemons say. Pure, and never who gets a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from buildpool.core.routing.connection import Connection
from buildpool.core.routing.fairness import Waiting
from buildpool.core.routing.index import ConnectionIndex
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.states import ACTIVE, HOLDING, RESERVING, TIED, State
from buildpool.core.routing.values import Target


def used(index: ConnectionIndex, builder: Target, state: PoolState) -> int:
    """Slots of a builder that are taken: by connections of ours, and by builds of others."""
    own = index.of_builder(builder.uid)
    running = state.builds.get(builder.uid)
    if running is None:  # nobody says whether what was there before still is
        return sum(known.holds or known.state is State.RESUMED for known in own.values())
    # A build of ours that the daemon still runs holds its slot, though its session has ended.
    active = {name for name, known in own.items() if known.holds}
    others = 0
    for ref in running:
        # Several may have begun it, here or elsewhere; what runs here is of one that is here.
        names = [name for name in index.builders_of(ref) if name in own]
        if not names:
            others += 1
        elif active.isdisjoint(names):
            active.add(names[-1])
    return len(active) + others


def shared(index: ConnectionIndex, state: PoolState) -> int:
    """Builds that run on builders which take builds, in slots of others of their connection."""
    running = ((builder, len(state.builds.get(builder.uid, ()))) for builder in state.serving)
    # A build alone shares with nobody, and to count slots takes time.
    return sum(max(0, n - used(index, b, state)) for b, n in running if n > 1)


def count_free(index: ConnectionIndex, state: PoolState) -> int:
    """Slots that nobody has, and nobody has reserved; none where that is not known yet."""
    if not state.is_complete:
        return 0
    room = sum(max(0, state.slots - used(index, builder, state)) for builder in state.takers)
    return room - index.count(RESERVING)


def can_have(index: ConnectionIndex, known: Connection, state: PoolState, free: int) -> bool:
    """Whether a connection can be given a slot now: one of ``free``, or of the builder it is on.

    One of a builder that goes is for those that are on it, and nobody else. Where a build of its
    own runs, it has one.
    """
    if known.state not in (*TIED, State.QUIET):
        return free > 0
    builder = state.builder(known.builder)
    if builder is not None and not known.refs.keys().isdisjoint(state.builds.get(builder.uid, ())):
        return True
    if builder is None or used(index, builder, state) >= state.slots:
        return False
    return free > 0 if builder in state.takers else builder.uid in state.heard


def eligible(
    index: ConnectionIndex, queue: Iterable[Waiting], state: PoolState, free: int
) -> Iterator[Waiting]:
    """Those who wait that can be given a slot now, as ``can_have`` says."""
    return (each for each in queue if can_have(index, index[each.connection], state, free))


def takes_of_all(known: Connection, state: PoolState) -> bool:
    """Whether the slot that a connection is given is one that others could have."""
    return known.state not in TIED or any(builder.uid == known.builder for builder in state.takers)


def held(index: ConnectionIndex) -> dict[str, int]:
    """Slots by client."""
    found: dict[str, int] = {}
    for _, known in index.of_states((*ACTIVE, State.RESUMED, *HOLDING)):
        if known.holds:
            found[known.client] = found.get(known.client, 0) + 1
    return found


def least_crowded(index: ConnectionIndex, state: PoolState) -> Target | None:
    """The builder on which the fewest build or wait for a slot of it; None where there is none."""

    def crowd(builder: Target) -> tuple[int, str]:
        here = index.of_builder(builder.uid).values()
        waiting = sum(known.state in TIED for known in here)
        return used(index, builder, state) + waiting, builder.uid

    return min(state.takers, key=crowd, default=None)
