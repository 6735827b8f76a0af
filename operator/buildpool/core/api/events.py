"""Events, as values: what is posted to whoever looks at a pool."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from buildpool.core.api import EventReason, Reason


class EventType(StrEnum):
    """Kubernetes' two kinds of Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Event:
    """One Event on the pool."""

    type: EventType
    reason: Reason | EventReason
    message: str
