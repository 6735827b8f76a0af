"""Builds that were lost because their builder ended: noticed, and told with their names.

Pure. Compares what ran at the last look with what is there now. It tells only what is certain: a
pod that drains and goes has finished its builds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from buildpool.core.api import EventReason
from buildpool.core.api.events import Event, EventType
from buildpool.core.objects.pods import daemon_of, has_ended, name_of_builder
from buildpool.core.objects.refs import Object, is_terminating
from buildpool.core.observed.observation import Observation

CUT_SHORT: Final = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
"""Reasons of a pod's condition ``DisruptionTarget`` that say its node is lost: nothing drains."""


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
        _lost(sight, cause)
        for uid, sight in before.items()
        if sight.refs and (cause := _cause(sight, pods.get(uid)))
    )
    return {uid: _sight(pod, before.get(uid), observation) for uid, pod in pods.items()}, events


def _sight(pod: Object, before: Sight | None, observation: Observation) -> Sight:
    load = observation.loads.get(pod["metadata"]["uid"])
    told = before.refs if before and _cause(before, pod) else frozenset()
    if has_ended(pod):
        refs: frozenset[str] = frozenset()  # what its daemon said last is known for a while
    elif load is not None:
        refs = frozenset(build.ref for build in load.builds) - told
    else:
        # A daemon that has just died does not answer; what it was at is what is lost.
        refs = (before.refs if before else frozenset()) - told
    return Sight(name_of_builder(pod), refs, _restarts(pod), is_terminating(pod))


def _cause(sight: Sight, pod: Object | None) -> str | None:
    """Why the builds of a pod cannot have ended well; None where they may."""
    if pod is None:
        return None if sight.is_leaving else "its pod is gone, by force or with its node"
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return f"its pod has failed: {status.get('message') or status.get('reason') or 'unknown'}"
    if is_terminating(pod):
        return next(_node_lost(status), None)
    if _restarts(pod) > sight.restarts:
        return _end_of_daemon(pod)
    return None


def _node_lost(status: Object) -> Iterator[str]:
    for condition in status.get("conditions", ()):
        if condition["type"] == "DisruptionTarget" and condition.get("reason") in CUT_SHORT:
            yield f"its node is lost: {condition.get('message', condition['reason'])}"


def _end_of_daemon(pod: Object) -> str:
    ended = (daemon_of(pod).get("lastState") or {}).get("terminated") or {}
    reason, code = ended.get("reason", "Error"), ended.get("exitCode")
    if reason == "OOMKilled":
        return "its daemon ran out of memory (OOMKilled); raise builders.resources.limits.memory"
    return f"its daemon ended with exit code {code} ({reason})"


def _restarts(pod: Object) -> int:
    return int(daemon_of(pod).get("restartCount", 0))


def _lost(sight: Sight, cause: str) -> Event:
    refs = ", ".join(sorted(sight.refs))
    message = f"{sight.builder} has lost builds {refs}: {cause.rstrip('.')}."
    return Event(EventType.WARNING, EventReason.BUILDS_LOST, message)
