"""Why a request gets nothing: the refusals of the gateway, each with its status of gRPC.

Who refuses says so by raising one; ``ext_proc.processor`` alone turns them into answers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ClassVar, Final, Self

import grpc

from buildpool.core.api.duration import format_duration
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey

REMINDED: Final = timedelta(minutes=1)
"""For how long a connection that waited in vain is refused at once."""


class Refused(BuildpoolError):  # noqa: N818 - no fault of ours: the answer to a request
    """Why a request gets nothing. The message is for its user."""

    status: ClassVar[grpc.StatusCode]
    """The status of gRPC with which the request ends."""

    def again(self) -> Self:
        """The same words, to be kept or said to another request.

        One that was raised keeps all that was there where it was: a message of many megabytes.
        """
        return type(self).__new__(type(self), *self.args)


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


class SlotLost(Exhausted):
    """A connection began nothing while its slot was kept, and cannot wait for another one."""

    def __init__(self, pool: PoolKey) -> None:
        """``pool`` is the one that has none free."""
        super().__init__(
            f"pool {pool}: this connection gave its slot back and none is free now; connect again "
            "to wait for one"
        )


class NoBuilder(Exhausted):
    """A session can wait no longer, and there is no builder that it could go to meanwhile."""

    def __init__(self, pool: PoolKey) -> None:
        """``pool`` is the one that has none, which is woken."""
        super().__init__(
            f"pool {pool}: no builder is ready yet, and the session of a build cannot wait longer; "
            "build again in a while, or call ListWorkers just before, as client.Build does: that "
            "waits"
        )


class SessionEnded(Unavailable):
    """The session of a solve that waited is of no use: it has ended, or its builder drains."""

    def __init__(self, pool: PoolKey) -> None:
        """``pool`` is that of the build."""
        super().__init__(
            f"pool {pool}: the session of this build has ended while the build waited for a slot; "
            "its builder drains or has lost the connection, or its client has ended it: build again"
        )


def waited_in_vain(pool: PoolKey, waited: timedelta, *, busy: int, of: int) -> str:
    """What is said to who found no slot: ``busy`` of so many builders had none free."""
    found = f"{busy} of {of} builders busy" if of else "no builder ready"
    return f"pool {pool}: waited {format_duration(waited)} for a slot, {found}"


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
