"""How clients use the shared cache: the flags, ready to paste, and a ConfigMap with them.

They are for a shell. Two variables stand in them: ``REPOSITORY``, one per project, and ``BRANCH``,
``main`` where it is not set. The architecture is the pool's. A build exports all it has, with
``mode=max``, for what others want is the stages that the image leaves out; and with
``ignore-error=true``, for no build may fail because of its cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Layout, Pool
from buildpool.core.objects.refs import Object
from buildpool.core.resources.common import pool_metadata, sealed

TRUNK: Final = "main"
"""The branch whose cache serves where a branch has none yet."""
_BRANCH: Final = f'$(printf %s "${{BRANCH:-{TRUNK}}}" | tr -c A-Za-z0-9_. - | cut -c1-100)'
"""A branch as part of a tag. BuildKit fails a build whose cache has a name that it cannot read,
whatever ``ignore-error`` says, and branches have slashes."""

_SHORT_BRANCH: Final = _BRANCH.replace("-c1-100", "-c1-50")
"""The same where the project is in the tag, too: a tag has up to 128 characters."""
_PROJECT: Final = '$(printf %s "${REPOSITORY:?}" | tr -c A-Za-z0-9_. - | cut -c1-60)'
"""A project as part of a tag."""


@dataclass(frozen=True, slots=True)
class Recipes:
    """The flags, for each client."""

    registry: str
    """Where caches lie: ``host/repository`` is followed by a project's own path."""
    buildctl: str
    buildx: str


def cache_location(pool: Pool) -> str | None:
    """Below what all caches of the pool lie; None where it has no shared cache."""
    registry = pool.spec.cache.registry
    if registry is None:
        return None
    return registry.ref or naming.cache_host(pool.key)


def is_flat(pool: Pool) -> bool:
    """Whether all caches of the pool are tags of one repository."""
    registry = pool.spec.cache.registry
    return registry is not None and registry.layout is Layout.TAGS


def cache_recipes(pool: Pool) -> Recipes | None:
    """The flags for the pool's shared cache; None where it has none."""
    location = cache_location(pool)
    if location is None:
        return None
    architecture = pool.spec.builders.architecture.value
    base = f"type=registry,ref={location}"
    if is_flat(pool):
        branches = f"{base}:{_PROJECT}-{architecture}-"
        branch, trunk = branches + _SHORT_BRANCH, branches + TRUNK
    else:
        branches = f"{base}/${{REPOSITORY:?}}:{architecture}-"
        branch, trunk = branches + _BRANCH, branches + TRUNK
    export = f"{branch},mode=max,ignore-error=true"
    return Recipes(
        registry=location,
        buildctl=f"--import-cache {branch} --import-cache {trunk} --export-cache {export}",
        buildx=f"--cache-from {branch} --cache-from {trunk} --cache-to {export}",
    )


def recipes_config(pool: Pool, recipes: Recipes) -> Object:
    """The ConfigMap for pipelines: to be read with ``kubectl``, or mounted."""
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": pool_metadata(
                pool, naming.cache_recipes(pool.key), component=naming.COMPONENT_CACHE
            ),
            "data": {
                "registry": recipes.registry,
                "buildctl": recipes.buildctl,
                "buildx": recipes.buildx,
            },
        }
    )
