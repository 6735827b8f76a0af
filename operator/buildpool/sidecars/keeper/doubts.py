"""Files that the volume failed to read, and since when.

A volume that is away for a moment, as one behind a network can be, fails just as a damaged one
does. So nothing at all is removed while a failure is young; only one that lasts is damage.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

LASTING: Final = timedelta(minutes=10)
"""How long reading a file must have failed until the file counts as damaged."""


class Doubts:
    """What could not be read; several threads may note and ask."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """``monotonic`` tells seconds, and never jumps."""
        self._monotonic = monotonic
        self._since: dict[Path, float] = {}

    def note(self, file: Path) -> None:
        """It could not be read."""
        self._since.setdefault(file, self._monotonic())

    def clear(self, file: Path) -> None:
        """It could be read, or is not there."""
        self._since.pop(file, None)

    def is_any(self) -> bool:
        """Whether it is too early to say what is damaged and what is not."""
        young = self._monotonic() - LASTING.total_seconds()
        return any(since > young for since in list(self._since.values()))
