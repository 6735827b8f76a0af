"""One connection of a client: its state, its lease, its builds.

It does what the table says, and never decides who is served.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from buildpool.core.routing.states import (
    ACTIVE,
    GRACE,
    HOLDING,
    LOCATED,
    RENEWED,
    SHARED_LEASES,
    TABLE,
    TERMS,
    Event,
    Lease,
    State,
)

MAX_REFS: Final = 256
"""Builds of one connection that are remembered after they have ended. Of those that run, none is
forgotten: each has a stream, and Envoy bounds the streams of a connection."""


@dataclass(slots=True)
class Connection:
    """A connection to one pool."""

    client: str
    since: datetime
    """When it entered its state."""
    state: State = State.ASIDE
    order: int = 0
    """Its place in the order in which connections entered the queue."""
    lease: Lease | None = None
    """How long it may stay as it is; None where that is not bounded."""
    builder: str = ""
    """The uid of the pod on which it is,"""
    last: str = ""
    """or was last."""
    streams: int = 0
    """Sessions and solves that go on, of those that were counted."""
    strays: int = 0
    """Sessions of which nothing more comes: they are on a builder on which it has no slot."""
    refs: dict[str, bool] = field(default_factory=dict)
    """Its builds, in their order, and whether their solves go on, as far as is known."""

    @property
    def is_active(self) -> bool:
        """Whether what it has begun goes on, of what was counted; a session may only wait."""
        return self.streams > 0 and self.state is not State.ATTACHED

    @property
    def may_run_unseen(self) -> bool:
        """Whether a build of the last process may go on, of which daemons may tell nothing."""
        return self.state is State.RESUMED or (self.state is State.QUIET and bool(self.refs))

    @property
    def holds(self) -> bool:
        """Whether it takes a slot, whatever its daemon says."""
        return self.is_active or self.state in HOLDING

    def on(self, event: Event, *, now: datetime) -> None:
        """Something happens to it."""
        before, self.state = self.state, TABLE[self.state][event]
        if self.state is not before:
            self._enter(before, now)
        elif event is Event.HELLO and self.state in RENEWED and self.lease is not None:
            self.lease = self.lease.renewed(now=now)

    def resume(self, builder: str, ref: str, *, now: datetime) -> None:
        """It was on this builder when the last process ended, and ran this, if that is known.

        Where nothing is known to have run, only its sessions can be there.
        """
        self.since, self.builder, self.lease = now, builder, Lease.of(GRACE, now=now)
        if ref:
            self.refs[ref] = True
        self.state = State.RESUMED if self.refs else State.QUIET

    def note(self, ref: str, running: AbstractSet[str]) -> list[str]:
        """It builds this; returns what it forgets. ``running``: what its daemon says it runs."""
        self.refs.pop(ref, None)
        self.refs[ref] = True
        if len(self.refs) <= MAX_REFS:
            return []
        ended = [each for each, goes_on in self.refs.items() if not (goes_on or each in running)]
        forgotten = ended[:-MAX_REFS]
        for each in forgotten:
            del self.refs[each]
        return forgotten

    def _enter(self, before: State, now: datetime) -> None:
        self.since = now
        keeps_lease = any({before, self.state} <= shared for shared in SHARED_LEASES)
        if not keeps_lease or self.lease is None:
            term = TERMS.get(self.state)
            self.lease = None if term is None else Lease.of(term, now=now)
        if self.state is State.WAITING:
            self.strays, self.streams = self.strays + self.streams, 0
        if self.state not in LOCATED:
            self.last, self.builder = self.builder or self.last, ""
        if self.state not in (*ACTIVE, State.RESUMED):
            self.refs = dict.fromkeys(self.refs, False)
