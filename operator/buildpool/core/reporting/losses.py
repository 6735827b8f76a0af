"""Builds that were lost because their builder ended: noticed, and told with their names.

Pure. Compares what ran at the last look with what is there now. It tells only what is certain: a
pod that drains before it ends has finished its builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from buildpool.core.api import EventReason
from buildpool.core.api.events import Event, EventType
from buildpool.core.objects.pods import (
    VANISHED,
    Cause,
    Ending,
    ending_of,
    has_ended,
    name_of_builder,
    restarts_of,
)
from buildpool.core.objects.refs import Object, is_terminating
from buildpool.core.observed.observation import Observation

OF_THE_POD: Final = frozenset({Cause.EVICTED, Cause.NODE_LOST, Cause.POD_FAILED})
"""Ends of a pod with all that runs in it: nothing drains."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one pod."""

    builder: str
    refs: frozenset[str]
    """Builds that ran on it when its daemon last answered."""
    restarts: int
    is_leaving: bool


def look(
    before: Mapping[str, Sight], observation: Observation
) -> tuple[Mapping[str, Sight], tuple[Event, ...]]:
    """The pods as they are now, by uid, and an Event for each that has taken builds with it."""
    pods = {pod["metadata"]["uid"]: pod for pod in observation.pods}
    events = tuple(
        _lost(sight, ending)
        for uid, sight in before.items()
        if sight.refs and (ending := _ending(sight, pods.get(uid)))
    )
    return {uid: _sight(pod, before.get(uid), observation) for uid, pod in pods.items()}, events


def _sight(pod: Object, before: Sight | None, observation: Observation) -> Sight:
    load = observation.loads.get(pod["metadata"]["uid"])
    told = before.refs if before and _ending(before, pod) else frozenset()
    if has_ended(pod) or _is_lost(ending_of(pod)):
        refs: frozenset[str] = frozenset()  # what its daemon said last is known for a while
    elif load is not None:
        refs = frozenset(build.ref for build in load.builds) - told
    else:
        # A daemon that has just died does not answer; what it was at is what is lost.
        refs = (before.refs if before else frozenset()) - told
    return Sight(name_of_builder(pod), refs, restarts_of(pod), is_terminating(pod))


def _ending(sight: Sight, pod: Object | None) -> Ending | None:
    """Why the builds of a pod cannot have ended well; None where they may."""
    if pod is None:
        return None if sight.is_leaving else VANISHED
    ending = ending_of(pod, restarts=sight.restarts)
    has_restarted = restarts_of(pod) > sight.restarts and not is_terminating(pod)
    return ending if _is_lost(ending) or has_restarted else None


def _is_lost(ending: Ending | None) -> bool:
    """Whether a pod ends with all that runs in it."""
    return ending is not None and ending.cause in OF_THE_POD


def _lost(sight: Sight, ending: Ending) -> Event:
    refs = ", ".join(sorted(sight.refs))
    message = f"{sight.builder} has lost builds {refs}: {ending}."
    return Event(EventType.WARNING, EventReason.BUILDS_LOST, message)
