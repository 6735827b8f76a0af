"""What a pod says: whose it is, whether it serves, what its daemon does, and why it has ended.

The one reader of pods, for the operator and for the gateway. Pods are written by others: whatever
stands in one, nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from buildpool.core import naming
from buildpool.core.objects.refs import (
    Object,
    is_terminating,
    mapping_at,
    mappings_at,
    number_at,
    text_at,
)

CONTAINER: Final = "buildkitd"
"""The daemon's container in a builder's pod."""
SERVES: Final = "true"
"""Value of the label of pods that stand in their pool's Service."""
NODE_LOST: Final = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
"""Reasons of a pod's condition ``DisruptionTarget`` that say its node is lost: nothing drains.

A taint may as well drain a node that lives. Of one that does not, the cluster takes ``Ready`` from
the pods.
"""
MAX_SAID_CHARACTERS: Final = 300
"""Characters of what the cluster or a daemon says that are quoted."""

MEMORY_FIELDS: Final = {
    CONTAINER: "builders.resources.limits.memory",
    "registry": "cache.registry.managed.resources.limits.memory",
}
"""What limits the memory of a container."""
STORAGE_FIELDS: Final = {
    "registry": "cache.registry.managed.storage",
    "keeper": "cache.registry.managed.storage",
}
"""What says how large the volume of a container is; for the others, ``builders.storage``."""
EVICTION_REMEDIES: Final = {
    "resource: memory": "raise memory in builders.resources.requests",
    "EmptyDir": "raise builders.storage",
    "ephemeral": "raise ephemeral-storage in builders.resources",
}
"""What the kubelet says as it evicts a pod, and what helps."""
CRASH_REMEDIES: Final = {
    "max_user_namespaces": (
        "the node forbids user namespaces: raise sysctl user.max_user_namespaces"
    ),
    "apparmor_restrict_unprivileged_userns": (
        "AppArmor on the node forbids user namespaces: set sysctl "
        "kernel.apparmor_restrict_unprivileged_userns=0, or use builders.security: UserNamespace"
    ),
    "newuidmap": (
        "the node or a policy keeps the rootless image from mapping users: allow privilege "
        "escalation, or use builders.security: UserNamespace"
    ),
    "buildkitd.lock": "another daemon uses the same volume: give each builder its own",
    "no space left on device": "the volume is full: raise {storage}",
}
"""What a container says as it ends, and what helps (BuildKit's docs/rootless.md)."""
READ_ITS_LOG: Final = "read its log with kubectl logs --previous"


class Cause(Enum):
    """What ended a pod, or the daemon in it."""

    EVICTED = auto()
    NODE_LOST = auto()
    POD_FAILED = auto()
    POD_DELETED = auto()
    OUT_OF_MEMORY = auto()
    CONTAINER_ENDED = auto()


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a builder's pod or daemon is gone or going."""

    cause: Cause
    account: str
    """What happened, in words that go on after a colon."""
    remedy: str = ""
    """What helps against the next time; empty where nothing is known to."""
    code: int | None = None
    """The exit code of the container that ended; None where it is not known."""
    said: str = ""
    """The last words of that container, for people who may read its log."""

    def __str__(self) -> str:
        return f"{self.account}; {self.remedy}" if self.remedy else self.account


DELETED: Final = Ending(Cause.POD_DELETED, "its pod was deleted")
"""The end of a pod that was on its way out before."""
VANISHED: Final = Ending(Cause.POD_DELETED, "its pod is gone, by force or with its node")
"""The end of a pod that is gone without having been on its way out."""


def name_of_builder(pod: Object) -> str:
    """Which builder a pod belongs to; empty where it does not say."""
    return text_at(pod, "metadata", "labels", naming.LABEL_BUILDER)


def address_of(pod: Object) -> str:
    """The IP address of a pod; empty while it has none."""
    return text_at(pod, "status", "podIP")


def serves(pod: Object) -> bool:
    """Whether a pod stands in its pool's Service."""
    return text_at(pod, "metadata", "labels", naming.LABEL_SERVING) == SERVES


def daemon_of(pod: Object) -> Object:
    """The state of the daemon's container, as the kubelet reports it; empty before it does."""
    statuses = mappings_at(pod, "status", "containerStatuses")
    return next((status for status in statuses if status.get("name") == CONTAINER), {})


def has_daemon(pod: Object) -> bool:
    """Whether a daemon runs in a pod.

    - Its container is said to run.
    - The pod has not ended: of one whose node is lost, the kubelet's last word stays.
    """
    return "running" in mapping_at(daemon_of(pod), "state") and not has_ended(pod)


def has_had_daemon(pod: Object) -> bool:
    """Whether a daemon runs in a pod or ever did."""
    daemon = daemon_of(pod)
    return bool(mapping_at(daemon, "state") or mapping_at(daemon, "lastState"))


def restarts_of(pod: Object) -> int:
    """How often the daemon of a pod was started again."""
    return number_at(daemon_of(pod), "restartCount") or 0


def is_ready(pod: Object) -> bool:
    """Whether a pod takes connections and is to stay.

    - Its condition ``Ready`` is true.
    - It is not on its way out.
    - It has not ended: of one whose node is lost, the condition may stay as it was.
    """
    status = mapping_at(pod, "status")
    return _is_called_ready(status) and not is_terminating(pod) and not has_ended(pod)


def has_ended(pod: Object) -> bool:
    """Whether nothing of a pod runs any more: an evicted one stays so for a long time."""
    return text_at(pod, "status", "phase") in ("Failed", "Succeeded")


def ending_of(pod: Object, *, restarts: int | None = None) -> Ending | None:
    """Why a builder's pod or daemon is gone or going; None where it may be well, or drains.

    The first of these that holds:

    - The kubelet has evicted the pod.
    - The node of the pod is lost.
    - The pod has failed otherwise.
    - The daemon does not run, and has ended: how it did, as the kubelet says.
    - The daemon runs, and was started again since it had been started ``restarts`` times again:
      how the one before it ended.
    """
    status = mapping_at(pod, "status")
    reason, said = text_at(status, "reason"), _quoted(text_at(status, "message"))
    if reason == "Evicted":
        return Ending(
            Cause.EVICTED,
            f"its pod was evicted: {said or 'nobody says why'}",
            _remedy(EVICTION_REMEDIES, said),
        )
    if (why := _why_node_lost(status)) is not None:
        return Ending(Cause.NODE_LOST, f"its node is lost: {why}" if why else "its node is lost")
    if text_at(status, "phase") == "Failed":
        why = said or _quoted(reason) or "nobody says why"
        return Ending(Cause.POD_FAILED, f"its pod has failed: {why}")
    daemon = daemon_of(pod)
    is_again = restarts is not None and restarts_of(pod) > restarts
    if "running" in mapping_at(daemon, "state") and not is_again:
        return None
    ending = ending_of_container(daemon, "its daemon")
    if ending is None:
        return _UNSEEN if is_again else None
    if ending.cause is Cause.CONTAINER_ENDED and is_terminating(pod):
        # It ends because its pod does, after a drain or once the grace is over.
        return Ending(Cause.POD_DELETED, f"{DELETED.account}, and {ending.account}")
    return ending


_UNSEEN: Final = Ending(
    Cause.CONTAINER_ENDED, "its daemon was started again, and nobody says why", READ_ITS_LOG
)


def ending_of_container(container: Object, name: str) -> Ending | None:
    """How a container ended last, be it that it runs again; None where it never did.

    ``container`` is its status, and ``name`` what it is called in the account.
    """
    ended = mapping_at(container, "state", "terminated") or mapping_at(
        container, "lastState", "terminated"
    )
    if not ended:
        return None
    kind, said = text_at(container, "name"), text_at(ended, "message")
    code = number_at(ended, "exitCode")
    reason = _quoted(text_at(ended, "reason")) or "Error"
    if reason == "OOMKilled":
        field = MEMORY_FIELDS.get(kind)
        remedy = f"raise {field}" if field else READ_ITS_LOG
        account = f"{name} ran out of memory (OOMKilled)"
        return Ending(Cause.OUT_OF_MEMORY, account, remedy, code, _last_words(said))
    account = f"{name} ended with exit code {'unknown' if code is None else code} ({reason})"
    storage = STORAGE_FIELDS.get(kind, "builders.storage")
    remedy = _remedy(CRASH_REMEDIES, said).format(storage=storage) or READ_ITS_LOG
    return Ending(Cause.CONTAINER_ENDED, account, remedy, code, _last_words(said))


def _why_node_lost(status: Object) -> str | None:
    """What the cluster says of a node that is lost; None where it is not."""
    if text_at(status, "reason") == "NodeLost":
        return _quoted(text_at(status, "message"))
    for condition in mappings_at(status, "conditions"):
        if (
            condition.get("type") == "DisruptionTarget"
            and condition.get("status") == "True"
            and (reason := text_at(condition, "reason")) in NODE_LOST
            and not (reason == "DeletionByTaintManager" and _is_called_ready(status))
        ):
            return _quoted(text_at(condition, "message"))
    return None


def _is_called_ready(status: Object) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in mappings_at(status, "conditions")
    )


def _remedy(remedies: Mapping[str, str], said: str) -> str:
    return next((remedy for symptom, remedy in remedies.items() if symptom in said), "")


def _last_words(text: str) -> str:
    """What a daemon says it died of; a stack and rootlesskit's own report come after it."""
    lines = text.strip().splitlines()
    of_the_daemon = [line for line in lines if line.startswith("buildkitd: ")]
    return (of_the_daemon or lines or [""])[-1][:MAX_SAID_CHARACTERS]


def _quoted(text: str) -> str:
    """What somebody else says, as a part of one of our sentences: one line, and not too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line[:MAX_SAID_CHARACTERS].rstrip(". ;")
