"""Why a request gets nothing: the refusals of the gateway, each with its status of gRPC.

Who refuses says so by raising one; ``ext_proc.processor`` alone turns them into answers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ClassVar, Final

import grpc

from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey

REMINDED: Final = timedelta(minutes=1)
"""For how long a connection that waited in vain is refused at once."""


class Refused(BuildpoolError):  # noqa: N818 - no fault of ours: the answer to a request
    """Why a request gets nothing. The message is for its user."""

    status: ClassVar[grpc.StatusCode]
    """The status of gRPC with which the request ends."""


class Denied(Refused):
    """The client may not do this."""

    status = grpc.StatusCode.PERMISSION_DENIED


class Unreadable(Refused):
    """The message of the request cannot be read."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class Exhausted(Refused):
    """No slot became free in time, or the request is more than is taken."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(Refused):
    """There is no builder that could answer."""

    status = grpc.StatusCode.UNAVAILABLE


class NotServed(Unavailable):
    """The pool is gone, or its clients reach it another way."""

    def __init__(self, pool: PoolKey | str) -> None:
        """``pool`` may be a label: that of a pool which is not known any more."""
        super().__init__(f"pool {pool} is not served here any more")


class Reminder:
    """Knows which connections have waited in vain.

    buildx asks three times, and shows the last answer that it gets.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._refused: dict[str, tuple[str, datetime]] = {}

    def told(self, connection: str, message: str) -> Exhausted:
        """The refusal of a connection, which it gets again if it asks again soon."""
        self._refused[connection] = message, self._clock()
        return Exhausted(message)

    def check(self, connection: str) -> None:
        """Raises Exhausted where the connection was refused a moment ago."""
        message, when = self._refused.get(connection, ("", None))
        if when is not None and self._clock() - when < REMINDED:
            raise Exhausted(message)

    def forget(self, connection: str) -> None:
        """A connection has ended."""
        self._refused.pop(connection, None)

    def forget_old(self) -> None:
        """Forgets connections that were refused long ago: not every end is reported."""
        now = self._clock()
        self._refused = {
            connection: (message, when)
            for connection, (message, when) in self._refused.items()
            if now - when < REMINDED
        }
