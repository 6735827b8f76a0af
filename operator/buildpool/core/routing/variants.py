"""Which variants of a project have a shared cache of their own, each under a number.

Variants are builds of one thing with other platforms, build arguments or named contexts. One cache
for all of them would hold what the last one has exported. Numbers follow from the variants alone,
so that they stay when this is forgotten; only where two variants would have one number do they
depend on which came first. Both are bounded: how many numbers there are, and how many variants
have one at a time, since build arguments can be others in every build. Pure.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Final

NUMBERS: Final = 256
"""How many numbers there are: no project ever has more caches of variants."""
MOST: Final = 16
"""How many variants of a project have a cache of their own at a time."""
FORGOTTEN_AFTER: Final = timedelta(days=1)
"""How long a variant that nobody builds keeps others from having a cache of their own."""


class Variants:
    """The variants of one project that were built last."""

    def __init__(self) -> None:
        self._built: dict[bytes, tuple[int, datetime]] = {}
        """Number and last build of each, by a digest of it, for clients may write long ones. First
        that which was built longest ago."""

    def number_of(self, variant: str, *, now: datetime, exports: bool) -> int | None:
        """The number of a variant that is built now; None where others have all there are.

        One that does not export takes no number: it is told where its cache would be.
        """
        for other, (_, built) in tuple(self._built.items()):
            if now - built < FORGOTTEN_AFTER:
                break
            del self._built[other]
        key = sha256(variant.encode()).digest()
        if key in self._built:
            number, _ = self._built.pop(key)
            self._built[key] = number, now
            return number
        if len(self._built) >= MOST:
            return None
        taken = {number for number, _ in self._built.values()}
        tried = (_number(variant, attempt) for attempt in count())
        number = next(each for each in tried if each not in taken)
        if exports:
            self._built[key] = number, now
        return number


def _number(variant: str, attempt: int) -> int:
    return int.from_bytes(sha256(f"{variant}\0{attempt}".encode()).digest()[:4], "big") % NUMBERS
