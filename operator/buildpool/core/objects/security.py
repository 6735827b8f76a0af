"""Which rights on its node a pod is not to have, and what of that the cluster would not store.

Pure. A cluster may leave out such a field (an older one without user namespaces does so in
silence), or an admission policy may weaken it: the pod would then have rights that nobody wanted.
What a policy makes stricter, or otherwise, is ``drift``'s alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildpool.core.objects.drift import Difference
from buildpool.core.objects.refs import (
    Object,
    mapping_at,
    mappings_at,
    number_at,
    text_at,
    value_at,
)

_POD: Final = "spec.template.spec"


def lost_rights(stored: Object, desired: Object) -> tuple[Difference, ...]:
    """Fields of a Deployment that keep its pods from their node, and are stored weaker."""
    return tuple(_lost_of_pod(_pod_of(stored), _pod_of(desired)))


def rests(deployment: Object) -> bool:
    """Whether a Deployment wants no pods."""
    return number_at(deployment, "spec", "replicas") == 0


def _pod_of(deployment: Object) -> Object:
    return mapping_at(deployment, "spec", "template", "spec")


def _lost_of_pod(stored: Object, desired: Object) -> Iterator[Difference]:
    for field in ("hostUsers", "automountServiceAccountToken"):
        if desired.get(field) is False and stored.get(field) is not False:
            yield Difference(f"{_POD}.{field}", stored.get(field))
    for field in _SHARED:
        if stored.get(field) is True and desired.get(field) is not True:
            yield Difference(f"{_POD}.{field}", stored.get(field))
    yield from _lost_of_context(_POD, stored, desired, {})
    of_pod = mapping_at(desired, "securityContext")
    for kind in ("containers", "initContainers"):
        there = {each.get("name"): each for each in mappings_at(stored, kind)}
        for container in mappings_at(desired, kind):
            name = container.get("name")
            path = f"{_POD}.{kind}[{name}]"
            yield from _lost_of_context(path, there.get(name, {}), container, of_pod)


_SHARED: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
"""Fields by which a pod shares with its node, or its containers with each other."""


def _lost_of_context(
    path: str, stored: Object, desired: Object, of_pod: Object
) -> Iterator[Difference]:
    """``of_pod`` is what is wanted of the whole pod: a container may be stored otherwise."""
    path = f"{path}.securityContext"
    found, wanted = mapping_at(stored, "securityContext"), mapping_at(desired, "securityContext")
    # What neither says is as the pod has it, which is looked at for itself.
    said = {field: wanted.get(field, of_pod.get(field)) for field in (*wanted, *found)}
    for field in _FIELDS:
        if _is_weaker(field, found, said):
            yield Difference(f"{path}.{field}", found.get(field))
    if wanted.get("privileged") is not True:  # such a container has them all
        yield from _lost_capabilities(path, found, wanted)


_FIELDS: Final = (
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "privileged",
    "procMount",
    "runAsUser",
    "seccompProfile",
    "appArmorProfile",
)


def _is_weaker(field: str, found: Object, wanted: Object) -> bool:
    there, ours = found.get(field), wanted.get(field)
    match field:
        case "runAsNonRoot" | "readOnlyRootFilesystem":
            return ours is True and there is not True
        case "allowPrivilegeEscalation" | "privileged" if ours is False:
            return there is not False
        case "privileged":
            return there is True and ours is not True
        case "procMount":
            return there == "Unmasked" != ours
        case "runAsUser":
            return bool(ours) and not there
        case "seccompProfile" | "appArmorProfile":
            return _confines(wanted, field) and not _confines(found, field)
    return False


def _lost_capabilities(path: str, found: Object, wanted: Object) -> Iterator[Difference]:
    dropped = _names(found, "drop")
    if not dropped & {"ALL"} and _names(wanted, "drop") - dropped:
        yield Difference(f"{path}.capabilities.drop", value_at(found, "capabilities", "drop"))
    if _names(found, "add") - _names(wanted, "add"):
        yield Difference(f"{path}.capabilities.add", value_at(found, "capabilities", "add"))


def _confines(context: Object, field: str) -> bool:
    return text_at(context, field, "type") not in ("", "Unconfined")


def _names(context: Object, field: str) -> set[str]:
    listed = value_at(context, "capabilities", field)
    return {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
