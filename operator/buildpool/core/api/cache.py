"""``spec.cache`` and ``spec.frontends``: what builds share, and what may build.

Pure data with defaults and limits; the one source of the CRD and of the reference.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from buildpool.core.api.builders import IMAGE_PATTERN
from buildpool.core.api.fields import HOST, DurationText, ObjectName, QuantityText, ReadableHost
from buildpool.core.api.model import Model, Rule, exactly_one
from buildpool.core.api.podfields import ObjectReference, Resources

_PATH: Final = r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
"""A repository below a registry, as the OCI distribution specification spells it."""


class CacheStorage(Model):
    """The PersistentVolumeClaim of the managed registry."""

    storage_class_name: ObjectName | None = None
    """StorageClass; absent: the cluster's default."""
    size: Annotated[str, QuantityText(minimum="64Mi")] = "50Gi"
    """Size of the volume. Before it is full, the caches that were not used for the longest time
    are removed."""


class ManagedRegistry(Model):
    """A registry of the pool's own, which nobody without a certificate of the pool can reach."""

    image: Annotated[str, Field(pattern=IMAGE_PATTERN, min_length=1, max_length=512)] = (
        "registry:3.1.2"
    )
    """Image of the CNCF distribution registry, version 3."""
    storage: CacheStorage = CacheStorage()
    retention: Annotated[
        timedelta, DurationText(minimum=timedelta(hours=1), maximum=timedelta(days=3650))
    ] = timedelta(days=14)
    """How long a cache stays that no build imports or exports."""
    scrub: Annotated[timedelta, DurationText(minimum=timedelta(0), maximum=timedelta(days=365))] = (
        timedelta(days=1)
    )
    """How often each layer is read again, to find damage before a build does; `0s`: never. What is
    new is read in any case."""
    resources: Resources = Resources()
    """Compute resources of the registry's container."""
    keeper_resources: Resources = Resources(
        requests={"cpu": "10m", "memory": "64Mi"}, limits={"cpu": "1", "memory": "512Mi"}
    )
    """Compute resources of the keeper, which looks after the cache. It takes some 2 MiB of memory
    for each thousand blobs."""
    guard_resources: Resources = Resources(
        requests={"cpu": "10m", "memory": "64Mi"}, limits={"cpu": "1", "memory": "256Mi"}
    )
    """Compute resources of the guard beside each builder. No layer passes through it."""


MAX_LOCATION_CHARACTERS: Final = 237
"""Characters of a location below which the gateway can keep repositories: their names have up to
255, of which it adds at least 18."""


class Layout(StrEnum):
    """How caches are told apart in a registry that is there."""

    REPOSITORIES = "Repositories"
    """Each project has a repository below ``ref``."""
    TAGS = "Tags"
    """All caches are tags of ``ref``."""


class CacheRegistry(Model):
    """Where the shared cache is kept: in a registry of the pool's own, or in one that is there."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("managed", "ref", remedy="keep one registry"),
        Rule(
            cel="!has(self.credentials) || has(self.ref)",
            holds=lambda registry: registry.credentials is None or registry.ref is not None,
            message="credentials belong to ref",
            remedy="the managed registry knows its builders by certificate; remove them",
            field="credentials",
        ),
        Rule(
            cel="self.layout == 'Repositories' || has(self.ref)",
            holds=lambda registry: registry.layout is Layout.REPOSITORIES or bool(registry.ref),
            message="layout belongs to ref",
            remedy="the managed registry has repositories; remove it",
            field="layout",
        ),
    )

    managed: ManagedRegistry | None = None
    ref: Annotated[
        Annotated[str, Field(pattern=f"^{HOST}/{_PATH}$", min_length=3, max_length=255)] | None,
        ReadableHost(),
    ] = None
    """A repository in a registry that is there, `host[:port]/path`: caches go below it. How to
    reach its host, such as its private CA, is said by an entry of `registries`."""
    layout: Layout = Layout.REPOSITORIES
    """Where the caches of projects lie in `ref`: `Repositories`: each project has one below it,
    `Tags`: all are tags of `ref` itself, for registries that have no repositories below others, or
    none that nobody has created before."""
    credentials: ObjectReference | None = None
    """Secret of type `kubernetes.io/dockerconfigjson` with which the operator asks that registry
    whether the cache can be written. Builders have no credentials: clients bring their own."""


class Inject(StrEnum):
    """What the gateway adds to builds whose clients say nothing of a cache."""

    FULL = "Full"
    IMPORT = "Import"
    NONE = "None"


class Cache(Model):
    """What builders share, so that one finds what another has built."""

    registry: CacheRegistry | None = None
    """Where it is kept; absent: there is no shared cache."""
    inject: Inject = Inject.FULL
    """What the gateway adds to builds that do not say themselves: `Full`: they import the shared
    cache and export to it, `Import`: they only import, `None`: neither. What a client says of
    imports or exports is left as it is, and so is `--no-cache`."""
    export_interval: Annotated[
        timedelta, DurationText(minimum=timedelta(0), maximum=timedelta(days=1))
    ] = timedelta(minutes=1)
    """How often, at most, the gateway has one cache of a project exported."""


class Frontends(Model):
    """What may turn a client's files into a build."""

    allowed: (
        Annotated[
            tuple[
                Annotated[str, Field(pattern=f"^({HOST}/)?{_PATH}$", min_length=1, max_length=255)],
                ...,
            ],
            Field(max_length=64),
        ]
        | None
    ) = None
    """Repositories of frontend images, without a tag, that a `# syntax=` line or a client may
    name, such as `docker/dockerfile`; an empty list: none. Absent: every image that builders can
    pull. The built-in Dockerfile frontend is always there."""
