"""Who waits for any builder at all, of a pool that has none."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import TypeVar

from buildpool.gateway.slots.changes import Changes

T = TypeVar("T")


class Callers:
    """The callers of one pool that wait. For one event loop."""

    def __init__(
        self, changes: Changes, *, clock: Callable[[], datetime], told: Callable[[], None]
    ) -> None:
        """``told`` is called when one begins to wait, or waits no more."""
        self._changes = changes
        self._clock = clock
        self._told = told
        self._waiting: dict[object, tuple[str, datetime]] = {}

    @property
    def waiting(self) -> Collection[tuple[str, datetime]]:
        """Their clients, and since when each waits."""
        return self._waiting.values()

    async def until(
        self, find: Callable[[], T | None], client: str, *, patience: timedelta
    ) -> T | None:
        """What is found now or after some change; None after ``patience``."""
        caller = object()

        def look() -> T | None:
            found = find()
            if found is None and caller not in self._waiting:
                self._waiting[caller] = client, self._clock()
                self._told()
            return found

        try:
            return await self._changes.until(look, patience=patience.total_seconds())
        finally:
            if self._waiting.pop(caller, None) is not None:
                self._told()
