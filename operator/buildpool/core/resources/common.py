"""What all objects of a pool share: how they are named, labelled, owned and fingerprinted.

Must never hold anything about one particular kind.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, NamedTuple, TypeAlias

from buildpool.core import naming
from buildpool.core.api import Pool

JSON: TypeAlias = Any
"""A JSON value: the one place where the type system ends."""
Object: TypeAlias = dict[str, JSON]
"""A Kubernetes object as the API sends and takes it."""

RESTRICTED_USER: Final = 65532
"""Who the containers run as that are no build daemon; the user of the operator's own image."""


class Ref(NamedTuple):
    """Which object: kind, namespace, name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def ref_of(obj: Object) -> Ref:
    """The reference of an object at hand."""
    metadata = obj["metadata"]
    return Ref(obj["kind"], metadata["namespace"], metadata["name"])


def pool_metadata(
    pool: Pool, name: str, *, component: str, labels: dict[str, str] | None = None
) -> Object:
    """Metadata of an object beside its pool, owned by it: it goes when the pool goes."""
    return {
        "name": name,
        "namespace": pool.key.namespace,
        "labels": {
            **naming.pool_labels(pool.key),
            "app.kubernetes.io/component": component,
            **(labels or {}),
        },
        "ownerReferences": [
            {
                "apiVersion": naming.API_VERSION,
                "kind": naming.KIND,
                "name": pool.key.name,
                "uid": pool.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def restricted() -> Object:
    """A security context with all that Pod Security calls restricted, for these containers."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": RESTRICTED_USER,
        "runAsGroup": RESTRICTED_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def sealed(obj: Object) -> Object:
    """The object with a fingerprint of itself, so that a later pass sees what the last one applied.

    A live object can differ from its plan in two ways: it was edited (the fields tell), or the plan
    no longer has a field it once had (only the fingerprint tells).
    """
    annotations = obj["metadata"].get("annotations", {})
    return {
        **obj,
        "metadata": {
            **obj["metadata"],
            "annotations": {**annotations, naming.ANNOTATION_APPLIED: fingerprint(obj)},
        },
    }


def was_applied_as(live: Object, desired: Object) -> bool:
    """Whether the last thing applied was this very object, whatever happened to it since."""
    annotation = naming.ANNOTATION_APPLIED
    annotations = live["metadata"].get("annotations") or {}
    return bool(annotations.get(annotation) == desired["metadata"]["annotations"][annotation])


def fingerprint(value: JSON) -> str:
    """Sixteen hexadecimal digits that change when the value does."""
    return digest(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest(content: bytes) -> str:
    """The first sixteen hexadecimal digits of the SHA-256 of this content."""
    return hashlib.sha256(content).hexdigest()[:16]


def is_owned(obj: Object, pool: Pool) -> bool:
    """Whether this very pool made the object, not a namesake that lived before."""
    metadata = obj["metadata"]
    if metadata.get("annotations", {}).get(naming.ANNOTATION_POOL_UID) == pool.uid:
        return True
    return any(owner["uid"] == pool.uid for owner in metadata.get("ownerReferences", ()))


def component_of(obj: Object) -> str:
    """Which part of its pool an object is; empty where it does not say."""
    labels = obj["metadata"].get("labels") or {}
    return str(labels.get("app.kubernetes.io/component", ""))


def is_builder(obj: Object) -> bool:
    """Whether an object is the Deployment of a builder."""
    return bool(obj["kind"] == "Deployment" and component_of(obj) == naming.COMPONENT_BUILDER)


def is_terminating(obj: Object) -> bool:
    """Whether the object is on its way out."""
    return "deletionTimestamp" in obj["metadata"]
