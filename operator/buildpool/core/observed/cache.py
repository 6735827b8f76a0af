"""A pool's shared cache, as values: where it is, how it is reached, what was found there.

Pure. ``preflight`` asks the registry; ``sidecars.keeper`` looks after the managed one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from buildpool.core.api import Reason
from buildpool.core.observed.usage import Usage
from buildpool.core.pki import KeyPair
from buildpool.core.words import Finding


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError where it cannot be sent: JSON can hold halves of characters."""
        try:
            f"{self.username}{self.password}".encode()
        except UnicodeEncodeError:  # which quotes what it could not encode
            raise ValueError("the username or the password is no valid text") from None


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """A registry to be asked whether a cache can be kept in it, and all that asking needs."""

    host: str
    """``host`` or ``host:port``, as image references begin."""
    repository: str = ""
    """Repository below which caches lie; empty: anywhere."""
    below: str = ""
    """The repository below that one which is tried; empty: that one itself."""
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
class CacheReport:
    """What was found when a cache was last asked."""

    trouble: Finding[Reason] | None = None
    """Why it cannot be used: names the registry and the remedy. None where it can."""
    usage: Usage | None = None
