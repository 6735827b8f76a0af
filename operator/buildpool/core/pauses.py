"""How long to wait before something is tried again: longer each time, and not all at once. Pure.

Chance is an argument: what is by chance is drawn at the rim.
"""

from __future__ import annotations

from typing import Final

SPREAD: Final = 0.2
"""The share of a pause by which chance may shorten it: what failed together is not tried together.
"""


def growing(failures: int, *, first: float, last: float) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, up to the last pause."""
    return min(last, first * 2.0 ** min(max(failures - 1, 0), 32))


def spread(seconds: float, *, chance: float) -> float:
    """A pause, shortened by up to a fifth; ``chance`` is from 0 up to 1. It is never longer."""
    return seconds * (1 - SPREAD * chance)
