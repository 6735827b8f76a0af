"""A pool that the gateway serves, with all that is needed to serve it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from buildpool.core.api.brief import Brief
from buildpool.core.naming import PoolKey
from buildpool.core.pki import KeyPair


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """One pool with ``Gateway`` routing."""

    brief: Brief
    server: KeyPair
    """The certificate that the gateway shows the pool's clients."""
    upstream: KeyPair
    """The certificate that the gateway shows the pool's builders."""
    trust: bytes = field(repr=False)
    """PEM of the pool's authorities, which vouch for clients and builders alike."""

    cancel: str = ""
    """What users ask for of builds that run (``core.api.cancellation``), as it is written."""
    acknowledgement: str = ""
    """What the operator wants to hear once the pool is served so (``core.api.brief``)."""

    @property
    def key(self) -> PoolKey:
        """Which pool."""
        return self.brief.key

    def known_as(self, names: tuple[str, ...]) -> Self:
        """The same pool, under these names only."""
        if names == self.brief.server_names:
            return self
        return replace(self, brief=self.brief.model_copy(update={"server_names": names}))
