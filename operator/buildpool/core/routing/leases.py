"""Whose lease is over, and of whom nothing runs any more: what time and daemons do to connections.

Pure: it finds them, and ``connections`` has it happen. Never about who gets a slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile

from buildpool.core.routing.connection import Connection
from buildpool.core.routing.index import ConnectionIndex
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.states import FORGOTTEN, TERMS, TIED, State


def idle(index: ConnectionIndex, state: PoolState, *, now: datetime) -> Iterator[str]:
    """Those of the last process of which nothing runs that it has noted."""
    for name, known in index.of_states((State.RESUMED,)):
        if not (known.streams or _may_run(known, state, now)):
            yield name


def expired(index: ConnectionIndex, state: PoolState, *, now: datetime) -> Iterator[str]:
    """Those whose lease is over, or whose sessions are gone with their builder."""
    is_over = lambda each: each[1].lease is None or each[1].lease.is_over(now=now)  # noqa: E731
    for term_of, term in TERMS.items():
        found = index.of_states((term_of,))
        # Many may be aside, and the oldest come first: no turn looks at all of them.
        over = takewhile(is_over, found) if term == FORGOTTEN else filter(is_over, found)
        for name, known in over:
            if not (known.streams or _may_run(known, state, now)):
                yield name
    for name, known in index.of_states((State.QUIET, *TIED)):
        builder = state.builder(known.builder)
        # Of one that is on its way out nobody hears whether it has room.
        if builder is None or builder.is_leaving:
            yield name


def _may_run(known: Connection, state: PoolState, now: datetime) -> bool:
    """Whether anything that a connection has built may run yet, as its daemon says, too."""
    if not known.builder:
        return False
    running = state.builds.get(known.builder)
    if running is not None:
        return not running.isdisjoint(known.refs)
    return state.builder(known.builder) is not None and now - known.since < FORGOTTEN
