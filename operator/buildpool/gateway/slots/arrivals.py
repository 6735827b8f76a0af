"""Solves that have come to the gateway and have not begun, and who waits for each of them.

Of three hundred targets that come at once, the last one begins seconds after the first. What is
asked about it must not be asked sooner: its daemon does not know it, and says so. Who waits is
woken by what it waits for: to look at each change would cost the square of their number.
"""

from __future__ import annotations

import asyncio
from collections import Counter


class Arrivals:
    """The solves of one pool. For one event loop."""

    def __init__(self) -> None:
        self._coming: Counter[str] = Counter()
        self._waiting: dict[str, dict[str, asyncio.Event]] = {}
        """By connection and ref."""
        self._waiters: Counter[asyncio.Event] = Counter()
        """How many wait for each."""

    def __contains__(self, connection: str) -> bool:
        """Whether a solve of this connection has come and not begun."""
        return connection in self._coming

    def come(self, connection: str) -> None:
        """A solve has come; what it builds is not read yet. Each has its ``over``."""
        self._coming[connection] += 1

    def begun(self, connection: str, ref: str) -> None:
        """The solve of a build has begun."""
        event = self._waiting.get(connection, {}).pop(ref, None)
        if event is not None:
            event.set()

    def over(self, connection: str) -> None:
        """A solve that had come has begun, or will not."""
        self._coming[connection] -= 1
        if not self._coming[connection]:
            del self._coming[connection]
            for event in self._waiting.pop(connection, {}).values():
                event.set()

    async def begins(self, connection: str, ref: str) -> None:
        """Waits until this build has begun, or no solve of the connection may be its own."""
        if connection not in self._coming:
            return
        event = self._waiting.setdefault(connection, {}).setdefault(ref, asyncio.Event())
        self._waiters[event] += 1
        try:
            await event.wait()
        finally:
            self._waiters[event] -= 1
            if not self._waiters[event]:
                del self._waiters[event]
                waiting = self._waiting.get(connection, {})
                if waiting.get(ref) is event:
                    del waiting[ref]
