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
    if desired.get("hostUsers") is False and stored.get("hostUsers") is not False:
        yield Difference(f"{_POD}.hostUsers", stored.get("hostUsers"))
    yield from _lost_of_context(_POD, stored, desired)
    for kind in ("containers", "initContainers"):
        there = {each.get("name"): each for each in mappings_at(stored, kind)}
        for container in mappings_at(desired, kind):
            name = container.get("name")
            yield from _lost_of_context(f"{_POD}.{kind}[{name}]", there.get(name, {}), container)


def _lost_of_context(path: str, stored: Object, desired: Object) -> Iterator[Difference]:
    path = f"{path}.securityContext"
    found, wanted = mapping_at(stored, "securityContext"), mapping_at(desired, "securityContext")
    for field in ("runAsNonRoot", "readOnlyRootFilesystem"):
        if wanted.get(field) is True and found.get(field) is not True:
            yield Difference(f"{path}.{field}", found.get(field))
    for field in ("allowPrivilegeEscalation", "privileged"):
        if wanted.get(field) is False and found.get(field) is not False:
            yield Difference(f"{path}.{field}", found.get(field))
    if wanted.get("runAsUser") and not found.get("runAsUser"):
        yield Difference(f"{path}.runAsUser", found.get("runAsUser"))
    for field in ("seccompProfile", "appArmorProfile"):
        if _confines(wanted, field) and not _confines(found, field):
            yield Difference(f"{path}.{field}", found.get(field))
    yield from _lost_capabilities(path, found, wanted)


def _lost_capabilities(path: str, found: Object, wanted: Object) -> Iterator[Difference]:
    if "capabilities" not in wanted:
        return
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
