"""One connection of a client, as the account of its pool keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

MAX_REFS: Final = 256
"""Builds of one connection that are remembered."""


class State(StrEnum):
    """How far a connection has come; ``account`` says what each means."""

    WAITING = "waiting"
    RESERVED = "reserved"
    SETTLED = "settled"
    ASIDE = "aside"


@dataclass(slots=True)
class Connection:
    """A connection that asked for a slot."""

    client: str
    order: int
    since: datetime
    """When it entered its state."""
    state: State = State.WAITING
    builder: str = ""
    """The uid of the pod that it has settled on,"""
    last: str = ""
    """or had, before it gave its slot back."""
    streams: int = 0
    """Sessions and solves that go on."""
    refs: dict[str, None] = field(default_factory=dict)
    """The latest builds, in their order."""
    has_waited: bool = False
    """Whether it had a slot once: it need not wait for its turn again."""
    is_urgent: bool = False
    """Whether it had a slot, and is the next to get one."""
    has_come_back: bool = False
    """Whether it asked again after it had a slot and built nothing: once, it is next in line."""
    has_asked: bool = False
    """Whether it began an internal build,"""
    has_built: bool = False
    """or any other."""
    is_resumed: bool = False
    """Whether it may have sessions and solves that were never counted here."""

    @property
    def holds(self) -> bool:
        """Whether it takes a slot."""
        return self.state is State.RESERVED or (self.state is State.SETTLED and self.streams > 0)

    def rest(self) -> None:
        """It gives its slot back, and is as it was when it came, but for what it has built."""
        self.state, self.last, self.builder = State.ASIDE, self.builder, ""
        self.has_waited = self.has_come_back = self.has_asked = self.has_built = False

    def note(self, ref: str) -> None:
        """It builds this."""
        self.refs[ref] = None
        if len(self.refs) > MAX_REFS:
            del self.refs[next(iter(self.refs))]
