"""Builds of a pool that its users want to end, and the conversations that wait to hear it.

It ends nothing by itself. For one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from buildpool.core.api.cancellation import cancellation_in


class Cancellations:
    """What was asked for, and the builds that run."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._asked = ""
        self._running: dict[str, list[asyncio.Event]] = {}

    def ask(self, annotation: str) -> None:
        """What is asked for from now on; the same again is nothing new."""
        self._asked = annotation
        for ref in self._running.keys() & self._refs():
            for event in self._running[ref]:
                event.set()

    @contextmanager
    def heard_by(self, ref: str) -> Iterator[asyncio.Event]:
        """Set once the build of this ref is to end; at once, if that was asked for just before."""
        event = asyncio.Event()
        if ref in self._refs():
            event.set()
        events = self._running.setdefault(ref, [])
        events.append(event)
        try:
            yield event
        finally:
            events.remove(event)
            # Clients choose refs: another build may have this one, too.
            if not events and self._running.get(ref) is events:
                del self._running[ref]

    def _refs(self) -> frozenset[str]:
        found = cancellation_in(self._asked, self._clock())
        return found.refs if found else frozenset()
