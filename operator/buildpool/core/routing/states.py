"""How far a connection has come, and what each event makes of it: one table, and nothing beside it.

                                                                                gives
           hello   slot     session  probe    build    attach   claim   ended   up     expires idle
  aside    waiting .        asking   asking   building attached waiting .       .      gone    .
  waiting  .       reserved asking   asking   building attached .       .       aside  .       .
  attached .       building .        building building .        .       aside   .      waiting .
  reserved =       .        asking   asking   building .        next    .       .      lapsed  .
  asking   .       .        .        .        building .        .       asked   .      .       .
  asked    =       .        asking   asking   building .        called  .       .      owed    .
  building .       .        .        .        .        .        .       resting .      .       .
  resting  =       .        returned returned returned .        next    .       .      aside   .
  returned .       .        .        .        .        .        .       aside   .      .       .
  resumed  .       .        .        .        .        .        .       .       .      aside   quiet
  quiet    waiting .        attached building building attached bound   .       .      aside   .
  bound    .       rejoined attached building building attached .       .       quiet  waiting .
  rejoined =       .        building building building .        next    .       .      aside   .
  lapsed   next    .        building building building attached next    .       .      gone    .
  next     .       recalled building building building attached .       .       lapsed .       .
  recalled =       .        building building building .        next    .       .      aside   .
  owed     called  .        building building building .        called  .       .      gone    .
  called   .       recalled building building building .        .       .       owed   .       .
  gone     .       .        .        .        .        .        .       .       .      .       .

``.`` it stays as it is; ``=`` it stays, and its lease is renewed. Each state is described at its
name below, each event likewise. Some consequences:

- What holds a slot without a stream has a lease, and a hello cannot renew it for ever. Of questions
  (``probe``), the first begins a lease, and those that follow go on with it.
- A connection that lost its slot before it built is the next to get one, once. From then on,
  whatever it begins counts as a build.
- A connection that has built comes back to its builder without waiting, once. Two connections that
  take turns in coming back would otherwise let nobody else in.
- Whether something may begin without a free slot, and not on its own builder, is decided by its
  state alone: ``needs_slot``.
- A session can wait for seconds only, and a solve for as long as anybody. Who says no hello, or has
  lost its slot, is ``attached`` where none is free: its session goes to a builder, and its solve
  waits for a slot of that one.
- Of a connection of the last process, only what its daemon says that it runs goes on without a
  slot. All else waits in its turn, and for a slot of the builder on which sessions of it may be.
- A connection that ends is ``gone``, whatever it was.

Pure, and about one connection: who is next, ``connections`` decides, and whose lease is over,
``leases``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

PATIENCE: Final = timedelta(seconds=5)
"""How long a slot or a builder is kept for a connection that begins nothing."""
GRACE: Final = timedelta(minutes=10)
"""How long a connection of the last process may have sessions and solves that nobody reports:
longer than any ``docker buildx build --check``."""
FORGOTTEN: Final = timedelta(days=1)
"""How long a connection without a slot is known: not everyone's end is reported."""


class State(StrEnum):
    """How far a connection has come."""

    ASIDE = "aside"
    """Has no slot and waits for none. So a connection begins, and so it is after its builds."""
    WAITING = "waiting"
    """In the queue, in its turn."""
    ATTACHED = "attached"
    """In the queue, in its turn, for a slot of the builder on which its sessions are already."""
    RESERVED = "reserved"
    """Has a slot of the pool; of which builder is decided when it says what it builds."""
    ASKING = "asking"
    """Has a builder, and a slot of it while any stream goes on; has built nothing yet but what is
    internal: buildx asks so what a builder can, and then builds."""
    ASKED = "asked"
    """Has asked, and has again a slot of the pool."""
    BUILDING = "building"
    """Has a builder, and a slot of it while any stream goes on."""
    RESTING = "resting"
    """Has built, and may come back to its builder without waiting: what it does may belong to what
    it has built. Its slot is free, unless the daemon still runs a build of it."""
    RETURNED = "returned"
    """Has come back, and has a slot of its builder while any stream goes on. When the last one
    ends, it waits for its next build as others do."""
    RESUMED = "resumed"
    """Built something when the last process ended, which goes on as far as is known: its streams
    were never counted here."""
    QUIET = "quiet"
    """Was on a builder when the last process ended, which runs nothing of it, as far as is known.
    Sessions of it may be there."""
    BOUND = "bound"
    """In the queue, in its turn, for a slot of the builder on which its sessions may be."""
    REJOINED = "rejoined"
    """Has a slot of that builder, and has begun nothing yet."""
    LAPSED = "lapsed"
    """Its slot was taken back before it began anything: once, it is the next to get one."""
    NEXT = "next"
    """In the queue, before all who wait in their turn."""
    RECALLED = "recalled"
    """Has a slot of the pool for the second time. There is no third."""
    OWED = "owed"
    """As ``LAPSED``, but it has asked. The session that the targets of a bake share begins next;
    nobody says hello for it, and without it the targets fail. So it needs no free slot."""
    CALLED = "called"
    """As ``NEXT``, of a connection that was ``OWED``: its session needs no free slot."""
    GONE = "gone"
    """Is not known any more."""


class Event(StrEnum):
    """What happens to a connection."""

    HELLO = "hello"
    """It asks for a slot, or says that it is about to begin something."""
    SLOT = "slot"
    """It is the next in line, and there is a free slot."""
    SESSION = "session"
    """A session begins on a builder."""
    PROBE = "probe"
    """An internal build begins on a builder."""
    BUILD = "build"
    """Any other build begins on a builder."""
    ATTACH = "attach"
    """A session can wait no longer, and goes to a builder without a slot."""
    CLAIM = "claim"
    """It wants to begin something, and there is no slot or no builder for it now."""
    ENDED = "ended"
    """Its last stream has ended, of those that were counted."""
    GIVES_UP = "gives up"
    """It does not wait any longer."""
    EXPIRES = "expires"
    """Its lease is over, and nothing of it runs as far as is known; or the builder is gone, or on
    its way out, on which its sessions are or may have been."""
    IDLE = "idle"
    """Nothing runs of what the last process has noted of it: its daemon says so, or is gone."""


_BEGINS: Final = {
    Event.SESSION: State.ASKING,
    Event.PROBE: State.ASKING,
    Event.BUILD: State.BUILDING,
}
_BUILDS: Final = dict.fromkeys(_BEGINS, State.BUILDING)
_JOINS: Final = {**_BUILDS, Event.SESSION: State.ATTACHED, Event.ATTACH: State.ATTACHED}
_RETURNS: Final = dict.fromkeys(_BEGINS, State.RETURNED)
_MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.ASIDE: {
        **_BEGINS,
        Event.HELLO: State.WAITING,
        Event.ATTACH: State.ATTACHED,
        Event.CLAIM: State.WAITING,
        Event.EXPIRES: State.GONE,
    },
    State.WAITING: {
        **_BEGINS,
        Event.SLOT: State.RESERVED,
        Event.ATTACH: State.ATTACHED,
        Event.GIVES_UP: State.ASIDE,
    },
    State.ATTACHED: {
        **_BUILDS,
        Event.SESSION: State.ATTACHED,
        Event.SLOT: State.BUILDING,
        Event.ENDED: State.ASIDE,
        Event.EXPIRES: State.WAITING,
    },
    State.RESERVED: {**_BEGINS, Event.CLAIM: State.NEXT, Event.EXPIRES: State.LAPSED},
    State.ASKING: {Event.BUILD: State.BUILDING, Event.ENDED: State.ASKED},
    State.ASKED: {**_BEGINS, Event.CLAIM: State.CALLED, Event.EXPIRES: State.OWED},
    State.BUILDING: {Event.ENDED: State.RESTING},
    State.RESTING: {**_RETURNS, Event.CLAIM: State.NEXT, Event.EXPIRES: State.ASIDE},
    State.RETURNED: {Event.ENDED: State.ASIDE},
    State.RESUMED: {Event.EXPIRES: State.ASIDE, Event.IDLE: State.QUIET},
    State.QUIET: {
        **_JOINS,
        Event.HELLO: State.WAITING,
        Event.CLAIM: State.BOUND,
        Event.EXPIRES: State.ASIDE,
    },
    State.BOUND: {
        **_JOINS,
        Event.SLOT: State.REJOINED,
        Event.GIVES_UP: State.QUIET,
        Event.EXPIRES: State.WAITING,
    },
    State.REJOINED: {**_BUILDS, Event.CLAIM: State.NEXT, Event.EXPIRES: State.ASIDE},
    State.LAPSED: {
        **_BUILDS,
        Event.HELLO: State.NEXT,
        Event.ATTACH: State.ATTACHED,
        Event.CLAIM: State.NEXT,
        Event.EXPIRES: State.GONE,
    },
    State.NEXT: {
        **_BUILDS,
        Event.SLOT: State.RECALLED,
        Event.ATTACH: State.ATTACHED,
        Event.GIVES_UP: State.LAPSED,
    },
    State.RECALLED: {**_BUILDS, Event.CLAIM: State.NEXT, Event.EXPIRES: State.ASIDE},
    State.OWED: {
        **_BUILDS,
        Event.HELLO: State.CALLED,
        Event.CLAIM: State.CALLED,
        Event.EXPIRES: State.GONE,
    },
    State.CALLED: {**_BUILDS, Event.SLOT: State.RECALLED, Event.GIVES_UP: State.OWED},
    State.GONE: {},
}
TABLE: Final[Mapping[State, Mapping[Event, State]]] = {
    state: {event: moves.get(event, state) for event in Event} for state, moves in _MOVES.items()
}
"""The table as it is drawn above: what an event does not move stays."""

QUEUED: Final = (State.WAITING, State.ATTACHED, State.BOUND, State.NEXT, State.CALLED)
"""Those that wait for a slot."""
FIRST: Final = (State.NEXT, State.CALLED)
"""Those of them that are served before the others."""
TIED: Final = (State.ATTACHED, State.BOUND)
"""Those of them that wait for a slot of one builder, and of no other."""
RESERVING: Final = (State.RESERVED, State.ASKED, State.RECALLED)
"""Those that have a slot of the pool, and no builder."""
HOLDING: Final = (*RESERVING, State.REJOINED)
"""Those that have a slot, and nothing that goes on."""
ACTIVE: Final = (State.ASKING, State.BUILDING, State.RETURNED)
"""Those of which streams go on."""
PLACED: Final = (*ACTIVE, State.RESTING, State.RESUMED, State.REJOINED)
"""Those that have a builder."""
LOCATED: Final = (*PLACED, *TIED, State.QUIET)
"""Those that are on a builder, with a slot of it or without."""
NOTED: Final = frozenset((*RESERVING, *LOCATED)) - {State.RESTING}
"""Those of which the next process has to know: they have a slot, or sessions on a builder."""
ADMITTED: Final = frozenset((*RESERVING, *PLACED))
"""Those that begin what they like on their builder, and need no free slot for it."""
RENEWED: Final = frozenset((*HOLDING, State.RESTING))
"""Those whose lease a hello renews."""
TERMS: Final[Mapping[State, timedelta]] = {
    State.RESERVED: PATIENCE,
    State.ASKED: PATIENCE,
    State.RECALLED: PATIENCE,
    State.REJOINED: PATIENCE,
    State.RESTING: PATIENCE,
    State.RESUMED: GRACE,
    State.QUIET: GRACE,
    State.ASIDE: FORGOTTEN,
    State.LAPSED: FORGOTTEN,
    State.OWED: FORGOTTEN,
}
"""How long a lease of each state is; in the others there is none."""
SHARED_LEASES: Final = (
    # Questions one after the other share one lease: to ask and ask would keep the slot.
    frozenset({State.ASKING, State.ASKED}),
    # What the last process has noted is worth no more for being looked at.
    frozenset({State.RESUMED, State.QUIET, State.BOUND}),
)
"""States of which the next goes on with the lease of the last."""


def needs_slot(state: State, event: Event) -> bool:
    """Whether what begins in this state, not on its own builder, has to find a free slot.

    The right of ``RESTING`` and of ``REJOINED`` is to its own.
    """
    is_elsewhere = state not in ADMITTED or state in (State.RESTING, State.REJOINED)
    return is_elsewhere and not (event is Event.SESSION and state in (State.OWED, State.CALLED))


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a connection may stay in its state without doing anything."""

    began: datetime
    term: timedelta
    expires_at: datetime

    @classmethod
    def of(cls, term: timedelta, *, now: datetime) -> Self:
        """One that begins now."""
        return cls(now, term, now + term)

    def renewed(self, *, now: datetime) -> Lease:
        """The same from now on; no lease becomes longer than twice its term."""
        latest = min(now + self.term, self.began + 2 * self.term)
        return replace(self, expires_at=max(self.expires_at, latest))

    def is_over(self, *, now: datetime) -> bool:
        """Whether it has expired."""
        return now >= self.expires_at
