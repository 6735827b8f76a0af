"""What all objects of a pool share: how they are named, labelled, owned and fingerprinted.

Must never hold anything about one particular kind.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool, Resources
from buildpool.core.objects.refs import JSON, Object

RESTRICTED_USER: Final = 65532
"""Who the containers run as that are no build daemon; the user of the operator's own image."""


def pool_metadata(
    pool: Pool, name: str, *, component: str, labels: dict[str, str] | None = None
) -> Object:
    """Metadata of an object beside its pool, without an owner: builds need it until they end.

    With one, a deletion in the foreground would remove it at once (docs/adr/0024). The pool's
    removal takes it along, and whose it is stands in an annotation.
    """
    return {
        "name": name,
        "namespace": pool.key.namespace,
        "labels": {
            **naming.detached_labels(pool.key),
            "app.kubernetes.io/component": component,
            **(labels or {}),
        },
        "annotations": {**naming.KEPT, naming.ANNOTATION_POOL_UID: pool.uid},
    }


def owned_metadata(
    pool: Pool, name: str, *, component: str, labels: dict[str, str] | None = None
) -> Object:
    """Metadata of what goes first, before any build has ended: owned by the pool, it goes with it.

    By it new builds would come. Whose it is stands in an annotation, too: a deletion that leaves
    what is owned behind (``--cascade=orphan``) takes the owner off.
    """
    return {
        "name": name,
        "namespace": pool.key.namespace,
        "labels": {
            **naming.pool_labels(pool.key),
            "app.kubernetes.io/component": component,
            **(labels or {}),
        },
        "annotations": {naming.ANNOTATION_POOL_UID: pool.uid},
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


def compute(resources: Resources) -> Object:
    """The part of a container that says what it reserves and may use; empty where nothing does."""
    amounts = {kind: amount for kind, amount in resources.to_dict().items() if amount}
    return {"resources": amounts} if amounts else {}


def pulling(pool: Pool) -> Object:
    """The part of a container that says when its image is pulled; empty: the cluster's own way."""
    policy = pool.spec.builders.image_pull_policy
    return {"imagePullPolicy": policy.value} if policy else {}


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


def resting(deployment: Object) -> Object:
    """The same Deployment without pods: to see what the cluster makes of it, or to end them."""
    metadata = {key: value for key, value in deployment["metadata"].items() if key != "annotations"}
    annotations = dict(deployment["metadata"]["annotations"])
    del annotations[naming.ANNOTATION_APPLIED]
    if annotations:
        metadata["annotations"] = annotations
    spec = {**deployment["spec"], "replicas": 0}
    return sealed({**deployment, "metadata": metadata, "spec": spec})


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
