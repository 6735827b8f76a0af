"""Why a builder is not ready, in words that lead to the remedy.

Decisions as data: a list of named checks, each looking at one builder's Deployment and pods as the
API shows them; the first that finds something wins. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Reason
from buildpool.core.objects.pods import CONTAINER, ending_of_container, has_ended, is_ready
from buildpool.core.objects.refs import (
    Object,
    component_of,
    is_terminating,
    mapping_at,
    mappings_at,
    number_at,
    text_at,
)
from buildpool.core.words import Finding, counted

IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
    }
)

_OWN_IMAGE: Final = "it is the operator's own: put it where this pool's nodes can pull it"
IMAGE_REMEDIES: Final = {
    "registry": "correct cache.registry.managed.image",
    "keeper": _OWN_IMAGE,
    "cache-guard": _OWN_IMAGE,
}
"""What to correct, by container; for the others, ``builders.image``."""

REFUSAL_REMEDIES: Final = {
    "PodSecurity": (
        "label the namespace pod-security.kubernetes.io/enforce=privileged, which BuildKit needs "
        "for its seccomp and AppArmor settings"
    ),
    "exceeded quota": "raise the quota or lower builders.resources",
    "failed quota": (
        "set requests and limits of all that the quota asks for in builders.resources; of the "
        "cache's containers in cache.registry.managed"
    ),
    "serviceaccount": "create it or correct builders.serviceAccountName",
    "PriorityClass": "create it or correct builders.priorityClassName",
    "RuntimeClass": "create it or correct builders.runtimeClassName",
}
"""What the API server says as it refuses a pod, and what helps."""


def diagnose(deployment: Object | None, pods: Sequence[Object]) -> Finding[Reason] | None:
    """What keeps a builder from being ready; None where it is just starting."""
    staying = [pod for pod in pods if not _is_over(pod) and not is_ready(pod)]
    return next(
        (finding for check in CHECKS for finding in check(deployment, staying)),
        None,
    )


Check = Callable[[Object | None, Sequence[Object]], Iterator[Finding[Reason]]]


def _refused(deployment: Object | None, _: Sequence[Object]) -> Iterator[Finding[Reason]]:
    for condition in mappings_at(deployment, "status", "conditions"):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            message = text_at(condition, "message")
            remedy = next(
                (remedy for symptom, remedy in REFUSAL_REMEDIES.items() if symptom in message),
                "ask whoever runs the admission policies of the cluster",
            )
            yield Finding(Reason.POD_REFUSED, f"the cluster refuses the pod: {message}; {remedy}")


def _unschedulable(_: Object | None, pods: Sequence[Object]) -> Iterator[Finding[Reason]]:
    for pod in pods:
        for condition in mappings_at(pod, "status", "conditions"):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                message = (text_at(condition, "message") or "no details").rstrip(". ")
                remedy = (
                    f"correct {_storage_of(pod)} or the StorageClass"
                    if "PersistentVolumeClaim" in message or "persistentvolumeclaim" in message
                    else "lower builders.resources, correct builders.architecture, nodeSelector, "
                    "affinity or tolerations, or add a node"
                )
                yield Finding(Reason.UNSCHEDULABLE, f"no node takes the pod: {message}; {remedy}")


def _storage_of(pod: Object) -> str:
    """The field that says what volume a pod has."""
    if component_of(pod) == naming.COMPONENT_CACHE:
        return "cache.registry.managed.storage"
    return "builders.storage.volumeClaim"


def _image(_: Object | None, pods: Sequence[Object]) -> Iterator[Finding[Reason]]:
    for status in _containers(pods):
        waiting = mapping_at(status, "state", "waiting")
        if (why := text_at(waiting, "reason")) in IMAGE_REASONS:
            remedy = IMAGE_REMEDIES.get(text_at(status, "name"), "correct builders.image")
            yield Finding(
                Reason.IMAGE_PULL_FAILED,
                f"image {text_at(status, 'image')} cannot be pulled ({why}): "
                f"{text_at(waiting, 'message') or 'no details'}; {remedy}, or give "
                "builders.imagePullSecrets if the registry asks for credentials",
            )


def _misconfigured(_: Object | None, pods: Sequence[Object]) -> Iterator[Finding[Reason]]:
    for status in _containers(pods):
        waiting = mapping_at(status, "state", "waiting")
        if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError"):
            message = text_at(waiting, "message") or "no details"
            reason = (
                Reason.SECRET_NOT_FOUND
                if message.startswith("secret ") or " in Secret " in message
                else Reason.CONFIG_MAP_NOT_FOUND
                if message.startswith("configmap ") or " in ConfigMap " in message
                else Reason.BUILDER_CRASHING
            )
            yield Finding(
                reason,
                f"the container cannot be created: {message}; correct builders.env or "
                "builders.tracing, or create it",
            )


def _crashing(_: Object | None, pods: Sequence[Object]) -> Iterator[Finding[Reason]]:
    for status in _containers(pods):
        name = text_at(status, "name")
        is_daemon = name == CONTAINER
        ending = ending_of_container(status, "its daemon" if is_daemon else f"container {name}")
        loops = text_at(status, "state", "waiting", "reason") == "CrashLoopBackOff"
        # An exit code of 0 is no failure where it happens once; a daemon that keeps ending is.
        if ending is None or (ending.code == 0 and not loops):
            continue
        restarts = counted(number_at(status, "restartCount") or 0, "restart")
        yield Finding(
            Reason.BUILDER_CRASHING,
            f"{ending.account}, {restarts}: {ending.said or 'it said nothing'}; {ending.remedy}",
        )


CHECKS: Final[tuple[Check, ...]] = (
    _refused,  # there is no pod at all
    _unschedulable,  # there is a pod and no node
    _image,  # there is a node and no image
    _misconfigured,  # there is an image and no container
    _crashing,  # there is a container, again and again
)


def _is_over(pod: Object) -> bool:
    """Whether a pod has a successor: evicted ones stay as Failed for a long time."""
    return is_terminating(pod) or has_ended(pod)


def _containers(pods: Sequence[Object]) -> Iterator[Object]:
    for pod in pods:
        yield from mappings_at(pod, "status", "initContainerStatuses")
        yield from mappings_at(pod, "status", "containerStatuses")
