"""Events about what users ask for by annotations of a pool. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool, PoolStatus, cancellation, warmth
from buildpool.core.api.events import Event, EventType
from buildpool.core.pki import AuthorityPhase
from buildpool.core.planning.issuances import Rotation, rotation_request


def requested(pool: Pool, new: PoolStatus, now: datetime) -> Iterator[Event]:
    """An Event for each phase of a new authority, and for what cannot be asked for."""
    asked = pool.annotations.get(naming.ANNOTATION_ROTATE)
    if asked is not None and rotation_request(pool) is None:
        known = " or ".join(rotation.value for rotation in Rotation)
        message = f"{naming.ANNOTATION_ROTATE}={asked} says nothing; ask for {known}."
        yield Event(EventType.WARNING, EventReason.UNKNOWN_ROTATION, message)
    before = pool.status.authority.phase if pool.status.authority else None
    phase = new.authority.phase if new.authority else None
    if phase is not None and phase != before:
        meaning = AuthorityPhase(phase).meaning
        yield Event(EventType.NORMAL, EventReason.ROTATING_AUTHORITY, f"{phase}: {meaning}")
    if refused := warmth.refusal_of(pool, now):
        yield Event(EventType.WARNING, EventReason.UNKNOWN_WARMTH, refused)
    if refused := cancellation.refusal_of(pool, now):
        yield Event(EventType.WARNING, EventReason.UNKNOWN_CANCELLATION, refused)
