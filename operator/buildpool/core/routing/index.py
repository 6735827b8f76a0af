"""Finds connections by their state, by their builder, and by what they build.

So no turn has to look at each connection for each builder. It knows where connections are, and
never why; a connection that has changed is filed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from buildpool.core.routing.connection import Connection
from buildpool.core.routing.states import State

_NOBODY: Final[Mapping[str, Connection]] = {}


class ConnectionIndex:
    """The connections of one pool."""

    def __init__(self) -> None:
        self._known: dict[str, Connection] = {}
        self._filed: dict[str, tuple[State, str]] = {}
        self._by_state: dict[State, dict[str, Connection]] = {state: {} for state in State}
        self._by_builder: dict[str, dict[str, Connection]] = {}
        self._by_ref: dict[str, dict[str, None]] = {}
        """Who builds each or has built it; who began it last comes last."""

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    def __getitem__(self, name: str) -> Connection:
        """The connection of this name, which is known."""
        return self._known[name]

    def find(self, name: str) -> Connection | None:
        """The connection of this name."""
        return self._known.get(name)

    def of_builder(self, uid: str) -> Mapping[str, Connection]:
        """Those that are on a builder."""
        return self._by_builder.get(uid, _NOBODY)

    def of_states(self, states: Iterable[State]) -> Iterator[tuple[str, Connection]]:
        """Those in one of these states; within each, who entered it first comes first."""
        for state in states:
            yield from self._by_state[state].items()

    def count(self, states: Iterable[State]) -> int:
        """How many there are of these."""
        return sum(len(self._by_state[state]) for state in states)

    def builder_of(self, ref: str) -> str | None:
        """The name of the connection that was the last to build this."""
        return next(reversed(self.builders_of(ref)), None)

    def builders_of(self, ref: str) -> Sequence[str]:
        """The names of the connections that build this, or have built it, the last one last."""
        return tuple(self._by_ref.get(ref, ()))

    def file(self, name: str, connection: Connection) -> None:
        """A connection is new, or is otherwise than before."""
        before, now = self._filed.get(name), (connection.state, connection.builder)
        if before == now:
            return
        if before is not None:
            self._unfile(name, *before)
        if connection.state is State.GONE:
            self._known.pop(name, None)
            self.forget(name, connection.refs)
            return
        self._known[name] = connection
        self._filed[name] = now
        self._by_state[connection.state][name] = connection
        if connection.builder:
            self._by_builder.setdefault(connection.builder, {})[name] = connection

    def note(self, name: str, ref: str) -> None:
        """A connection builds this."""
        names = self._by_ref.setdefault(ref, {})
        names.pop(name, None)
        names[name] = None

    def forget(self, name: str, refs: Iterable[str]) -> None:
        """A connection does not know these any more."""
        for ref in refs:
            names = self._by_ref.get(ref, {})
            names.pop(name, None)
            if not names:
                self._by_ref.pop(ref, None)

    def _unfile(self, name: str, state: State, builder: str) -> None:
        del self._filed[name], self._by_state[state][name]
        if builder:
            there = self._by_builder[builder]
            del there[name]
            if not there:
                del self._by_builder[builder]
