"""What ``buildpool.dev/cancel`` asks for: builds of a pool that are to end now.

Pure. The operator reads it on the pool, and hands it on to the gateway, which reads it again. It
counts for a while only: clients choose refs, and a later build may have the same one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api.asked import quoted, read_request, request
from buildpool.core.api.pool import Pool
from buildpool.core.api.spec import Routing

MAX_REFS: Final = 16
"""Builds that one request can name."""
CANCELS_FOR: Final = timedelta(minutes=2)
"""How long a request counts: longer than a gateway that starts again is away."""
MAX_TIME: Final = timedelta(minutes=10)
"""How far away its end may be: more than that, for clocks differ."""
REF: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""How a build can be called that can be cancelled. BuildKit's clients use letters and digits."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Builds that are to end, as long as that counts."""

    refs: frozenset[str]
    until: datetime


def request_for(refs: Collection[str], until: datetime) -> str:
    """The annotation that asks for it."""
    return request(",".join(sorted(refs)), until)


def cancellation_in(text: str | None, now: datetime) -> Cancellation | None:
    """What an annotation asks for now."""
    found = _read(text or "")
    return found if found is not None and now < found.until <= now + MAX_TIME else None


def refusal_of(pool: Pool, now: datetime) -> str:
    """What is wrong with a request, and what helps; empty: nothing, or there is none."""
    asked = pool.annotations.get(naming.ANNOTATION_CANCEL)
    if asked is None:
        return ""
    found, said = _read(asked), quoted(naming.ANNOTATION_CANCEL, asked)
    if found is None:
        return f"{said} says nothing; use kubectl buildpool cancel."
    if found.until > now + MAX_TIME:
        return f"{said} counts for too long; use kubectl buildpool cancel."
    if found.until > now and pool.spec.routing is not Routing.GATEWAY:
        return f"{said} changes nothing: only the gateway can end builds, and the pool has none."
    return ""


def _read(text: str) -> Cancellation | None:
    found = read_request(text)
    if found is None:
        return None
    refs = found[0].split(",")
    if len(refs) > MAX_REFS or not all(map(REF.fullmatch, refs)):
        return None
    return Cancellation(frozenset(refs), found[1])
