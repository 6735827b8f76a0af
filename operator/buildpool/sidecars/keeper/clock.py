"""The time by which things expire, which is never ahead of what there is evidence for.

Pure. A node's clock can be days ahead until it is set. All that lies on the volume would seem old
then, and would be removed; no clock that is set afterwards brings it back. So a leap is believed
only after a while, and until then time passes as it would have without it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

LEAP: Final = timedelta(minutes=5)
"""How far a clock may be ahead of the time that has passed by another one."""
AWAY: Final = timedelta(days=1)
"""How long the keeper may have been away without a doubt about the clock."""
DOUBT: Final = timedelta(hours=1)
"""How long a leap is not believed: clocks that are set at all are set by then."""


class CautiousClock:
    """Tells the time that is believed."""

    def __init__(self) -> None:
        self._believed: datetime | None = None
        self._at = timedelta(0)
        self._leapt: timedelta | None = None

    def believed(self, now: datetime, passed: timedelta, evidence: datetime | None) -> datetime:
        """The time to go by.

        ``now`` is what the clock says. ``passed`` is the time since some moment, by a clock that
        never leaps. ``evidence`` is the last time that somebody knew for sure, as the youngest file
        tells; it counts only when this is asked first.
        """
        if self._believed is None:
            known = evidence or now
            is_leap = now > known + AWAY
        else:
            known = self._believed + (passed - self._at)
            is_leap = now > known + LEAP
        if not is_leap:
            self._leapt = None
        elif self._leapt is None:
            self._leapt = passed
        is_doubtful = self._leapt is not None and passed - self._leapt < DOUBT
        self._believed, self._at = (known if is_doubtful else now), passed
        return self._believed
