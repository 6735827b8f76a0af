"""What a build daemon says of itself: which builds run on it.

Pure data, from those who ask daemons to those who decide. The daemon is the truth; nobody counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunningBuild:
    """A build that runs."""

    ref: str
    """BuildKit's own name of it; what ``buildctl debug histories`` shows."""
    started: datetime | None
    """When, by the clock of the daemon's node; None where the daemon did not say."""


@dataclass(frozen=True, slots=True)
class Load:
    """The builds of one daemon at one moment. What nobody could ask has no load, not an empty one.

    BuildKit does not show internal solves here (``--check``, a bake's remote definition): that a
    builder has no builds does not mean that no client is connected.
    """

    builds: tuple[RunningBuild, ...]
    """Sorted by ref."""
    as_of: datetime
    """When the daemon was asked, by our own clock."""
    served: int = 0
    """Builds that this daemon has started, as far as was seen since this process first asked it."""
