"""What the operator tells the gateway about a pool: a contract between two programs.

Written as JSON into a Secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field

from buildpool.core.api import AffinityKey, Inject
from buildpool.core.api.fields import DurationText
from buildpool.core.api.model import Model, Moment
from buildpool.core.naming import PoolKey

_ANY_DURATION: Final = DurationText(minimum=timedelta(0), maximum=timedelta(days=365))


class _Told(Model):
    """Part of a brief: fields of an operator that is newer than the gateway are dropped."""

    model_config = ConfigDict(extra="ignore")


class ClientBrief(_Told):
    """One client, as the gateway has to know it."""

    identity: str
    """The URI in its certificate."""
    name: str
    weight: int = 1
    inject: Inject = Inject.NONE
    """What is added to its builds."""
    may_export: bool = True
    """Whether it may export to the shared cache by itself."""


class CacheBrief(_Told):
    """The shared cache of a pool, as the gateway has to know it."""

    location: str
    """Below what all caches lie: ``host[:port]`` or ``host[:port]/path``."""
    architecture: str
    is_flat: bool = False
    """Whether all caches are tags of the location; else each project has a repository below it."""
    export_interval: Annotated[timedelta, _ANY_DURATION] = timedelta(0)


class Brief(_Told):
    """All that the operator tells the gateway about a pool, beside its certificates.

    The gateway never reads a spec: the operator decides what one means, and the last that was valid
    stands until there is another. Written as JSON into a Secret (``resources.gateway``).
    """

    namespace: str
    name: str
    uid: str
    """Of the BuildKitPool, for Events."""
    created: Moment | None = None
    """When the BuildKitPool was made: of two that want one name, the older has it."""
    server_names: tuple[str, ...]
    """Names under which clients reach it: what they send as SNI. Lower case."""
    upstream_name: str
    """A name in the certificates of its builders."""
    slots: int
    """Builds at once on one builder."""
    max_wait: Annotated[timedelta, _ANY_DURATION]
    affinity: tuple[AffinityKey, ...] = ()
    clients: Annotated[tuple[ClientBrief, ...], Field(min_length=1)]
    cache: CacheBrief | None = None

    @property
    def key(self) -> PoolKey:
        """Which pool."""
        return PoolKey(self.namespace, self.name)

    def client(self, identity: str) -> ClientBrief | None:
        """The client with this identity; None for one that may not build (any more)."""
        return next((client for client in self.clients if client.identity == identity), None)

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """A brief out of its JSON. Raises ``pydantic.ValidationError``."""
        return cls.model_validate_json(text)


BRIEF_KEY: Final = "pool.json"
"""The key of the Secret below which the brief stands."""


def acknowledgement(*secrets: Mapping[str, Any]) -> str:
    """What a pod of the gateway says of a pool once it serves just what its Secrets hold.

    Made of what is written, not of what either program understands of it, so that two versions come
    to the same. The keys are left out: with its certificate, a key changes, too.
    """
    told = [[secret["data"].get(key) for key in _ACKNOWLEDGED] for secret in secrets]
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


_ACKNOWLEDGED: Final = ("ca.pem", "tls.crt", BRIEF_KEY)
