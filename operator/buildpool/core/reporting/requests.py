"""Events about what users ask for by annotations of a pool. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool, PoolStatus, cancellation, warmth
from buildpool.core.api.asked import quoted
from buildpool.core.api.events import Event, EventType
from buildpool.core.pki import AuthorityPhase
from buildpool.core.planning.issuances import Rotation, rotation_request


def refusals(pool: Pool, now: datetime) -> dict[EventReason, str]:
    """What is asked for that cannot be done, and what helps, each with its reason."""
    asked = pool.annotations.get(naming.ANNOTATION_ROTATE)
    rotation = ""
    if asked is not None and rotation_request(pool) is None:
        known = " or ".join(rotation.value for rotation in Rotation)
        rotation = f"{quoted(naming.ANNOTATION_ROTATE, asked)} says nothing; ask for {known}."
    found = {
        EventReason.UNKNOWN_ROTATION: rotation,
        EventReason.UNKNOWN_WARMTH: warmth.refusal_of(pool, now),
        EventReason.UNKNOWN_CANCELLATION: cancellation.refusal_of(pool, now),
    }
    return {reason: text for reason, text in found.items() if text}


def requested(pool: Pool, new: PoolStatus, refused: Mapping[EventReason, str]) -> Iterator[Event]:
    """An Event for each phase of a new authority, and once for what cannot be asked for."""
    before = pool.status.authority.phase if pool.status.authority else None
    phase = new.authority.phase if new.authority else None
    if phase is not None and phase != before:
        meaning = AuthorityPhase(phase).meaning
        yield Event(EventType.NORMAL, EventReason.ROTATING_AUTHORITY, f"{phase}: {meaning}")
    for reason, text in refused.items():
        if text not in pool.status.requests_refused:
            yield Event(EventType.WARNING, reason, text)
