"""What every raw object says of itself: which it is, whose, and whether it is on its way out.

Must never hold anything about one particular kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from buildpool.core import naming
from buildpool.core.api import Pool

JSON: TypeAlias = Any
"""A JSON value: the one place where the type system ends."""
Object: TypeAlias = dict[str, JSON]
"""A Kubernetes object as the API sends and takes it."""


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
