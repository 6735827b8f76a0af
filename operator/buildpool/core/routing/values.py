"""What the decisions of the gateway are made from and what they come to. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from buildpool.core import naming
from buildpool.core.naming import PoolKey


@dataclass(frozen=True, slots=True)
class Target:
    """One builder's pod, as the gateway sees it."""

    name: str
    """Of its Deployment, as users know it."""
    uid: str
    """Of its pod."""
    address: str
    """IP and port of its daemon."""
    is_serving: bool = True
    """Whether it takes new builds: Ready, not retired, not on its way out."""
    is_leaving: bool = False
    """Whether its pod is on its way out, and ends once nobody is connected to it."""
    trouble: str = ""
    """Why it is gone or going, in words (``objects.pods.Ending``); empty where nothing is known."""


def label_of(pool: PoolKey) -> str:
    """The name of a pool wherever Envoy needs one: of its filter chain, its cluster, its secrets.

    Neither part can hold a slash.
    """
    return str(pool)


def pool_of(label: str) -> PoolKey:
    """The pool of such a name, as it says; empty parts where it is none."""
    namespace, _, name = label.partition("/")
    return PoolKey(namespace, name)


ROUTE_METADATA: Final = f"{naming.GROUP}.route"
"""The namespace of dynamic metadata that tells Envoy where a request goes. Only the router can
write there: nothing that a client sends becomes an address."""
ROUTE_BUILDER: Final = "builder"
"""The key in it: IP and port."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Who waits, and who needs no slot."""

    waiting: int = 0
    since: datetime | None = None
    """Since when they wait and nobody has got a slot."""
    shared: int = 0
    """Builds that run in the slot of another one: all but one of each connection's."""
