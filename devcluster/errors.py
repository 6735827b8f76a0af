"""The one exception this package raises on purpose: something the reader can act upon."""

from __future__ import annotations

from pathlib import Path


class DevclusterError(Exception):
    """What went wrong and what to do about it. The command line prints it without a traceback."""

    def __init__(self, message: str, *, remedy: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.log = log
        """Where the details are; the command line shows its last lines."""


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log file, or a word that there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log yet)"
    return "\n".join(lines[-count:]) or "(the log is empty)"
