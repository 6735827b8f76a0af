"""What every raw object says of itself: which it is, whose, and whether it is on its way out.

Must never hold anything about one particular kind. What others write may hold anything anywhere:
``mapping_at`` and its like read it without raising.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.naming import PoolKey

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


def pool_ref(pool: PoolKey) -> Ref:
    """The reference of a pool itself."""
    return Ref(naming.KIND, pool.namespace, pool.name)


def ref_of(obj: Object) -> Ref:
    """The reference of an object at hand."""
    metadata = obj["metadata"]
    return Ref(obj["kind"], metadata["namespace"], metadata["name"])


def is_owned(obj: Object, pool: Pool) -> bool:
    """Whether this very pool made the object, not a namesake that lived before."""
    return pool.uid in owners_of(obj)


def maker_of(obj: Object) -> str:
    """The uid of the pool that made an object; empty where it does not say."""
    return text_at(obj, "metadata", "annotations", naming.ANNOTATION_POOL_UID)


def namespace_of_pool(obj: Object) -> str:
    """Where the pool was that made an object; empty where it does not say.

    A copy that somebody has restored in another namespace still names the old one.
    """
    return text_at(obj, "metadata", "labels", naming.LABEL_POOL_NAMESPACE)


def is_of_pool(obj: Object, pool: PoolKey) -> bool:
    """Whether an object says that it is of a pool of this name, whatever its own name is."""
    return text_at(obj, "metadata", "labels", naming.LABEL_POOL) == pool.name


def owners_of(obj: Object) -> frozenset[str]:
    """The uids of all to whom an object says it belongs: the pool that made it, and owners."""
    owners = mappings_at(obj, "metadata", "ownerReferences")
    return frozenset(filter(None, (maker_of(obj), *(text_at(owner, "uid") for owner in owners))))


def component_of(obj: Object) -> str:
    """Which part of its pool an object is; empty where it does not say."""
    return text_at(obj, "metadata", "labels", "app.kubernetes.io/component")


def is_builder(obj: Object) -> bool:
    """Whether an object is the Deployment of a builder."""
    return bool(obj["kind"] == "Deployment" and component_of(obj) == naming.COMPONENT_BUILDER)


def is_terminating(obj: Object) -> bool:
    """Whether the object is on its way out."""
    return "deletionTimestamp" in mapping_at(obj, "metadata")


def value_at(value: JSON, *path: str) -> JSON:
    """What stands at a path in a raw object; None where there is no such path."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def mapping_at(value: JSON, *path: str) -> Object:
    """The mapping at a path in a raw object; empty where there is anything else."""
    found = value_at(value, *path)
    return found if isinstance(found, dict) else {}


def mappings_at(value: JSON, *path: str) -> tuple[Object, ...]:
    """The mappings in the list at a path in a raw object; none where there is anything else."""
    found = value_at(value, *path)
    return (
        tuple(each for each in found if isinstance(each, dict)) if isinstance(found, list) else ()
    )


def text_at(value: JSON, *path: str) -> str:
    """The text at a path in a raw object; empty where there is anything else."""
    found = value_at(value, *path)
    return found if isinstance(found, str) else ""


def number_at(value: JSON, *path: str) -> int | None:
    """The whole number at a path in a raw object; None where there is anything else."""
    found = value_at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def moment_at(value: JSON, *path: str) -> datetime | None:
    """The moment at a path in a raw object, as Kubernetes writes it; None for anything else."""
    try:
        return datetime.fromisoformat(text_at(value, *path)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
