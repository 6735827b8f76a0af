"""An event loop whose clock is turned on instead of waited for: hours of a story in a second.

For stories without sockets and threads: nothing that takes time is waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Selector(selectors.SelectSelector):
    """Turns the clock on by as long as it is asked to wait."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for something that never comes"
            self.passed += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.passed


def run(story: Coroutine[Any, Any, _T]) -> _T:
    """What a story comes to, by a clock of its own."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(story)
