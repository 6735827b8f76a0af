"""A pool's shared cache, as values: where it is, how it is reached, what was found there.

Pure. ``preflight`` asks the registry; ``sidecars.keeper`` looks after the managed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from buildpool.core.api import Reason
from buildpool.core.pki import KeyPair


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """A registry to be asked whether a cache can be kept in it, and all that asking needs."""

    host: str
    """``host`` or ``host:port``, as image references begin."""
    repository: str = ""
    """Repository below which caches lie; empty: anywhere."""
    http: bool = False
    """Whether it speaks plain HTTP."""
    trust: bytes | None = field(default=None, repr=False)
    """PEM; authorities that may vouch for it, besides those that the system knows."""
    pair: KeyPair | None = None
    """What the registry is shown where it asks for a client certificate."""
    credentials: Credentials | None = None
    keeper: str | None = None
    """``host:port`` of the managed registry's keeper, which tells of its disk."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a cache cannot be used, for machines and for people."""

    reason: Reason
    message: str
    """One sentence that names the registry and the remedy, without a full stop."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the keeper of a managed cache tells of it. Sizes in bytes."""

    used: int = 0
    capacity: int = 0
    refs: int = 0
    """Caches that are kept: tags, over all repositories."""
    reclaimed: int = 0
    """Freed since the keeper started."""
    damaged: int = 0
    """Blobs that were found damaged and removed, since the keeper started."""
    unhealed: tuple[str, ...] = ()
    """Refs that were removed because of damage and that no build has exported again yet."""
    is_full: bool = False
    """Whether there is no room, and nothing that could be removed to make some."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """What a keeper answered; fields of another version are dropped."""
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        return cls(**(known | {"unhealed": tuple(known.get("unhealed", ()))}))


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What was found when a cache was last asked."""

    trouble: Trouble | None = None
    usage: Usage | None = None
