"""Waiting until something is so, looked at anew with each change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Changes:
    """Moments at which something may be otherwise than before. For one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Something may have changed: all who wait look again."""
        self._next.set()
        self._next = asyncio.Event()

    async def next(self) -> None:
        """Waits for the next change."""
        await self._next.wait()

    async def until(self, find: Callable[[], T | None], *, patience: float) -> T | None:
        """What is found now or after some change; None after ``patience`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while (found := find()) is None:
                    await self.next()
                return found
        return None
