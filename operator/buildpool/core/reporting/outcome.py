"""What became of a plan: what was done, what was refused, what the cluster made of it.

Pure data, from the controller to ``report``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from buildpool.core.api import EventReason, Reason
from buildpool.core.api.events import Event, EventType
from buildpool.core.errors import RefusedError
from buildpool.core.objects.drift import Difference
from buildpool.core.objects.refs import Ref


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that could not be written or removed, in the words of the API server."""

    ref: Ref
    message: str
    reason: Reason = Reason.OBJECT_REFUSED

    def __str__(self) -> str:
        done = "was refused" if self.reason is not Reason.OBJECT_FAILED else "could not be written"
        return f"{self.ref} {done}: {self.message}"


def insecure(ref: Ref, lost: Sequence[Difference], *, runs: bool) -> Failure:
    """A Deployment whose pods would have more rights on their node than they are to have.

    ``runs`` is whether a pod of it runs, as it was stored before.
    """
    stored = ", ".join(
        f"{each.path} {'is left out' if each.found is None else f'as {json.dumps(each.found)}'}"
        for each in lost
    )
    remedy = _OWN_USERS if any(each.path.endswith(".hostUsers") for each in lost) else _WEBHOOK
    follows = "the pod that runs is left alone" if runs else "no pod of it runs"
    message = f"the cluster would not store what is safe: {stored}; {follows}; {remedy}"
    return Failure(ref, message, Reason.POD_REFUSED)


def status_refused(error: RefusedError) -> Event:
    """What to tell the user where the status itself may not be written."""
    message = (
        "The cluster refuses the new status of the pool, so the one that is shown is out of date; "
        f"let the operator write buildkitpools/status: {error}"
    )
    return Event(EventType.WARNING, EventReason.STATUS_REFUSED, message)


_WEBHOOK: Final = "exempt the namespace from the admission webhook or policy that changes it"
_OWN_USERS: Final = (
    "enable the feature gate UserNamespacesSupport (on by default from Kubernetes 1.33), set "
    f"builders.security to Rootless, or {_WEBHOOK}"
)


@dataclass(frozen=True, slots=True)
class Overruled:
    """An object that was stored otherwise than applied: another apply would change nothing."""

    ref: Ref
    differences: tuple[Difference, ...]

    @property
    def event(self) -> Event:
        """What to tell the user."""
        paths = ", ".join(difference.path for difference in self.differences)
        return Event(
            EventType.WARNING,
            EventReason.OVERRULED,
            f"The cluster itself changes {self.ref} at {paths} as it is stored, perhaps by an "
            "admission webhook; it is left so.",
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan."""

    done: tuple[Event, ...] = ()
    """What was done and is worth telling."""
    failures: tuple[Failure, ...] = ()
    overruled: tuple[Overruled, ...] = ()

    def but(self, failure: Failure) -> Outcome:
        """The same, and this failed, too."""
        return replace(self, failures=(*self.failures, failure))
