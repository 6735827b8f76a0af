"""What became of a plan: what was done, what was refused, what the cluster made of it.

Pure data, from the controller to ``verdict``.
"""

from __future__ import annotations

from dataclasses import dataclass

from buildpool.core.api import EventReason, Reason
from buildpool.core.api.events import Event, EventType
from buildpool.core.objects.refs import Ref


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that could not be written or removed, in the words of the API server."""

    ref: Ref
    message: str
    reason: Reason = Reason.OBJECT_REFUSED


@dataclass(frozen=True, slots=True)
class Overruled:
    """An object that was stored otherwise than applied: another apply would change nothing."""

    ref: Ref
    path: str

    @property
    def event(self) -> Event:
        """What to tell the user."""
        return Event(
            EventType.WARNING,
            EventReason.OVERRULED,
            f"The cluster itself changes {self.ref} at {self.path} as it is stored, perhaps by an "
            "admission webhook, and it is left so.",
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan."""

    done: tuple[Event, ...] = ()
    """What was done and is worth telling."""
    failures: tuple[Failure, ...] = ()
    overruled: tuple[Overruled, ...] = ()
