"""What ``buildpool.dev/warm`` asks for: builders that are there before their builds.

Pure. What cannot be read, is over, or lasts too long asks for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api.asked import quoted, read_request, request
from buildpool.core.api.pool import Pool
from buildpool.core.api.spec import PoolSpec

MAX_WARMTH: Final = timedelta(days=1)
"""How far away its end may be. For longer there is ``scaling.min``."""
MAX_CLOCK_ERROR: Final = timedelta(minutes=5)
"""By which the clock of somebody who asks for so long may be ahead."""
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Warmth:
    """So many builders, whatever builds run, until a moment."""

    builders: int
    until: datetime


def request_for(warmth: Warmth) -> str:
    """The annotation that asks for it."""
    return request(str(warmth.builders), warmth.until)


def warmth_of(pool: Pool, now: datetime) -> Warmth | None:
    """What a pool is asked for now."""
    found = _read(pool.annotations.get(naming.ANNOTATION_WARM, ""))
    if found is None or not now < found.until <= now + MAX_WARMTH + MAX_CLOCK_ERROR:
        return None
    return found


def refusal_of(pool: Pool, now: datetime) -> str:
    """What is wrong with a request, and what helps; empty: nothing, or there is none."""
    asked = pool.annotations.get(naming.ANNOTATION_WARM)
    if asked is None:
        return ""
    found, said = _read(asked), quoted(naming.ANNOTATION_WARM, asked)
    if found is None:
        return f"{said} says nothing; write it like 3 until 2030-01-31T18:00:00Z."
    if found.until > now + MAX_WARMTH + MAX_CLOCK_ERROR:
        return f"{said} lasts longer than a day; for so long, raise scaling.min."
    if found.until > now and pool.spec.replicas is not None:
        return f"{said} changes nothing: spec.replicas is set; take it out, or raise it."
    return ""


def floor_of(spec: PoolSpec, warmth: Warmth | None) -> int:
    """How many builders a pool has at least."""
    return max(spec.least, min(warmth.builders if warmth else 0, spec.scaling.max))


def _read(text: str) -> Warmth | None:
    found = read_request(text)
    if found is None or not _NUMBER.fullmatch(found[0]):
        return None
    return Warmth(int(found[0]), found[1])
