"""What stands on a pool's objects beside what they are: which builder is to go, which is busy.

Pure. Marks are metadata on objects that exist: a Deployment's annotation outlives a restart of the
operator, a pod's labels decide whether the Service leads to it and whether it may be evicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from buildpool.core import naming
from buildpool.core.api import EventReason, SizeReason
from buildpool.core.objects.pods import has_daemon
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.planning.fleet import Member
from buildpool.core.planning.situation import Situation
from buildpool.core.scaling import Decision

LEAVE_ALONE: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations by which the cluster's own autoscalers leave the node of a busy builder alone."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A change of one object's metadata; None in it: the entry goes."""

    ref: Ref
    uid: str
    metadata: Object
    reason: EventReason | None = None
    message: str = ""


def marks(s: Situation, decision: Decision | None) -> Iterator[Mark]:
    """The marks that are missing, or are there and should not be; None: nothing was decided."""
    decided = decision or _NOTHING
    retire = {retirement.index: retirement for retirement in decided.retire}
    for member in s.members:
        index, is_retired = member.builder.index, member.builder.retired is not None
        if index in decided.remove:
            continue
        if index in retire:
            is_retired = True
            why = retire[index].why
            message = f"retired {member.ref} ({why.reason}): {why.message.rstrip('.')}"
            moment = s.now.isoformat(timespec="milliseconds")
            yield _retired(member, moment, EventReason.RETIRED_BUILDER, message)
        elif index in decided.restore:
            is_retired = False
            message = f"restored {member.ref}, which takes builds again"
            yield _retired(member, None, EventReason.RESTORED_BUILDER, message)
        for pod in member.pods:
            yield from _of_pod(s, pod, is_retired=is_retired)


_NOTHING: Final = Decision(0, SizeReason.AT_MINIMUM, "")


def _retired(member: Member, moment: str | None, reason: EventReason, message: str) -> Mark:
    metadata: Object = {"annotations": {naming.ANNOTATION_RETIRED: moment}}
    return Mark(member.ref, member.deployment["metadata"]["uid"], metadata, reason, message)


def _of_pod(s: Situation, pod: Object, *, is_retired: bool) -> Iterator[Mark]:
    metadata = pod["metadata"]
    wanted: dict[str, dict[str, str | None]] = {
        "labels": {naming.LABEL_SERVING: "false" if is_retired else "true"}
    }
    load = s.observation.loads.get(metadata["uid"])
    # What does not answer keeps its mark: it may well be busy.
    if load is not None or not has_daemon(pod):
        is_busy = load is not None and bool(load.builds)
        wanted["labels"][naming.LABEL_BUSY] = "true" if is_busy else None
        wanted["annotations"] = {
            key: value if is_busy else s.pool.spec.builders.pod_annotations.get(key)
            for key, value in LEAVE_ALONE.items()
        }
    change = {
        kind: changed
        for kind, entries in wanted.items()
        if (changed := _changed(metadata.get(kind) or {}, entries))
    }
    if change:
        yield Mark(Ref("Pod", metadata["namespace"], metadata["name"]), metadata["uid"], change)


def _changed(there: Object, wanted: dict[str, str | None]) -> dict[str, str | None]:
    return {key: value for key, value in wanted.items() if there.get(key) != value}
