"""Durations as users write them (``90d``, ``2h30m``, ``45s``) as ``timedelta`` and back.

Pure. Whole seconds only; units in falling order, each at most once.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

PATTERN: Final = r"^([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
MAX_CHARACTERS: Final = 28

_PARTS: Final = re.compile(PATTERN)
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DAYS_FROM: Final = timedelta(days=7)
"""Shorter spans are spelled in hours: a build tool says 48h, not 2d."""


def parse_duration(text: str) -> timedelta:
    """The span of time that ``text`` names."""
    match = _PARTS.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text[:MAX_CHARACTERS]!r} is not a duration such as 45s, 2h30m or 90d")
    parts = [part for part in match.groups() if part]
    return timedelta(seconds=sum(int(part[:-1]) * _UNITS[part[-1]] for part in parts))


def format_duration(span: timedelta) -> str:
    """The shortest usual spelling of a span; a fraction of a second is dropped."""
    rest = int(span.total_seconds())
    parts = []
    for unit, seconds in _UNITS.items():
        if unit == "d" and span < _DAYS_FROM:
            continue
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
