"""Why a connection gets nothing. Each message is for its user."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.naming import PoolKey

REMINDED: Final = timedelta(minutes=1)
"""For how long a connection that waited in vain is told so at once."""


class Refused(Exception):  # noqa: N818 - no fault of ours: the answer to a request
    """Why a connection gets nothing; the message is for its user."""


class Exhausted(Refused):
    """No slot became free in time."""


class Unavailable(Refused):
    """There is no builder that could answer."""


class NotServed(Unavailable):
    """The pool is gone, or goes by another way."""

    def __init__(self, pool: PoolKey | str) -> None:
        """``pool`` as its label has it, too: that of a pool which is not known any more."""
        super().__init__(f"pool {pool} is not served here any more")


class Reminder:
    """Knows who has waited in vain: buildx asks three times, and reports what it hears last."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._told: dict[str, tuple[str, datetime]] = {}

    def told(self, connection: str, message: str) -> Exhausted:
        """What a connection is told now, and would be again."""
        self._told[connection] = message, self._clock()
        return Exhausted(message)

    def check(self, connection: str) -> None:
        """Raises Exhausted where the connection was told so a moment ago."""
        told = self._told.get(connection)
        if told is not None and self._clock() - told[1] < REMINDED:
            raise Exhausted(told[0])

    def forget(self, connection: str) -> None:
        """A connection has ended."""
        self._told.pop(connection, None)

    def forget_old(self) -> None:
        """Forgets those whose end was not told."""
        now = self._clock()
        self._told = {name: told for name, told in self._told.items() if now - told[1] < REMINDED}
