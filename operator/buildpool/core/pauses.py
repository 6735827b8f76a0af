"""How long to wait before something is tried again: longer each time, and not all at once. Pure.

Chance is an argument: what is by chance is drawn at the rim.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

SPREAD_SHARE: Final = 0.2
"""The share of a pause by which chance may shorten it: what failed together is not tried together.
"""


def growing(failures: int, *, first: float, last: float) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, up to the last pause."""
    return min(last, first * 2.0 ** min(max(failures - 1, 0), 32))


def spread(seconds: float, *, chance: float) -> float:
    """A pause, shortened by up to a fifth; ``chance`` is from 0 up to 1. It is never longer."""
    return seconds * (1 - SPREAD_SHARE * chance)


def lot(uid: str) -> float:
    """The chance of an object, from 0 up to 1: as if by chance, and always the same."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:6], "big") / 2**48


@dataclass(frozen=True, slots=True)
class Pause:
    """For how long something is left alone that failed."""

    failures: int
    """How often in a row it did."""
    until: datetime

    @classmethod
    def after(
        cls,
        before: Pause | None,
        *,
        first: timedelta,
        last: timedelta,
        now: datetime,
        chance: float,
    ) -> Pause:
        """The pause after a failure: a longer one, but for a failure before the last one is over.

        So that what is woken often does not wait for long at once. It is spread by ``chance``, from
        0 up to 1.
        """
        if before is not None and now < before.until:
            return before
        failures = before.failures + 1 if before is not None else 1
        seconds = growing(failures, first=first.total_seconds(), last=last.total_seconds())
        return cls(failures, now + timedelta(seconds=spread(seconds, chance=chance)))
