"""Counts the builds of one daemon, each of them once.

Pure. A build is named in answers for as long as it runs, and by events that come late and twice; so
a name is remembered for a while after it was heard last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

REMEMBERED_SECONDS: Final = 30.0
"""For how long a build that ended is known to have been counted: events can come late."""
MAX_REMEMBERED: Final = 20_000
"""Builds that are known to have been counted: twice as many as an answer may name."""


class ServedBuilds:
    """The number of builds that a daemon has started, as far as was heard."""

    def __init__(self, *, most: int = MAX_REMEMBERED) -> None:
        """``most`` is the number of builds that are remembered."""
        self.total = 0
        self._most = most
        self._heard: dict[str, float] = {}

    @property
    def remembered(self) -> tuple[str, ...]:
        """The builds that are not counted again; first the one that was heard longest ago."""
        return tuple(self._heard)

    def count(self, refs: Iterable[str], *, now: float) -> None:
        """These builds were named just now."""
        for ref in refs:
            self.total += self._heard.pop(ref, None) is None
            self._heard[ref] = now
            if len(self._heard) > self._most:
                del self._heard[next(iter(self._heard))]

    def forget(self, *, now: float) -> None:
        """Forgets the builds that were named long ago."""
        oldest = now - REMEMBERED_SECONDS
        self._heard = {ref: heard for ref, heard in self._heard.items() if heard > oldest}
