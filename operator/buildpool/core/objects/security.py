"""Which rights on its node a pod has by what we apply, and what of that the cluster did not store.

Pure. A cluster may leave out such a field (an older one without user namespaces does so in
silence), or an admission policy may write another: the pod would then have rights that nobody
wanted. What else differs is ``drift``'s alone.
"""

from __future__ import annotations

from typing import Final

from buildpool.core.objects.drift import Difference, differences
from buildpool.core.objects.refs import Object

OF_POD: Final = ("hostUsers", "securityContext")
"""The fields of a pod that are about its rights; a container has only the latter."""


def security_of(deployment: Object) -> Object:
    """The part of a Deployment that says which rights its pods have, and nothing else."""
    pod = deployment["spec"]["template"]["spec"]
    found = {field: pod[field] for field in OF_POD if field in pod}
    for kind in ("containers", "initContainers"):
        found[kind] = [
            {"name": container["name"], "securityContext": container["securityContext"]}
            for container in pod.get(kind, ())
            if "securityContext" in container
        ]
    return {"spec": {"template": {"spec": found}}}


def lost_security(stored: Object, desired: Object) -> tuple[Difference, ...]:
    """What is not stored as it is wanted and is about rights; nothing where no pods come of it."""
    if desired["kind"] != "Deployment":
        return ()
    return tuple(differences(stored, security_of(desired)))


def rests(deployment: Object) -> bool:
    """Whether a Deployment has no pods, and wants none."""
    return not deployment["spec"].get("replicas", 1)


def has_own_users(deployment: Object) -> bool:
    """Whether its pods are safe only in a user namespace of their own."""
    return deployment["spec"]["template"]["spec"].get("hostUsers") is False
