"""What one pool, and one connection, may have of Envoy, so that others have the rest.

Numbers only: ``resources`` makes Envoy keep them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests about which the router is asked."""

    per_second: int
    """In the long run,"""
    burst: int
    """and at once after a quiet time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of each pool."""

    connections: int = 4_000
    """Connections of its clients at once: no pool can have all that there are."""
    streams: int = 2_000
    """Requests at once on one connection. Each target of a bake has three while it is built."""
    pool_rate: Rate = Rate(1_000, 10_000)
    """Of one pool: it leaves time for other pools."""
    connection_rate: Rate = Rate(300, 4_000)
    """Of one connection: it leaves time for other connections."""
    hello: timedelta = timedelta(seconds=5)
    """Within what time a connection has to say which pool it asks for. The same for all pools."""
    ping_interval: timedelta = timedelta(seconds=30)
    """How often a client is asked whether it is there,"""
    ping_patience: timedelta = timedelta(seconds=20)
    """and within what time it has to answer: so clients are found that are gone without a word."""
    idle: timedelta = timedelta(minutes=10)
    """How long a connection may be open without any request."""
    oldest: timedelta = timedelta(days=1)
    """Age from which on a connection takes no new requests: the longest build
    (``builders.maxBuildDuration``). What runs on it goes on, but no client stays for ever with a
    certificate that has expired."""


LIMITS: Final = Limits()
"""Those of every pool."""
