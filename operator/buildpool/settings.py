"""How one operator process is set up: every knob with its unit, default and consequence.

Plain values. The command line reads them from flags and environment; nothing else looks there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from buildpool import __version__
from buildpool.core import naming

DEFAULT_IMAGE: Final = f"buildpool:{__version__}"
"""What the project's own Dockerfile is built as."""
DEFAULT_LEASE: Final = "buildpool-operator"
"""The Lease of an installation that is alone in its namespace."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One operator process."""

    namespace: str
    """The operator's own namespace: pools' authorities and the Lease lie here."""
    identity: str
    """Who this process is in the Lease and in Events; the pod's name."""
    image: str = DEFAULT_IMAGE
    """This program's own image: the guard beside each builder and the keeper beside each managed
    cache run it, so that a pool's nodes must be able to pull it."""
    gateway_service: str = ""
    """Name of the gateway's Service in the operator's own namespace, to which pools with
    ``Gateway`` routing lead; empty: no gateway is installed, and such pools are not ready."""
    cluster_domain: str = naming.USUAL_DOMAIN
    """What the full names of Services end with: the gateway's, to which pools with ``Gateway``
    routing lead, and those in servers' certificates."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose pools are tended; empty: all."""
    lease: str = DEFAULT_LEASE
    """Name of the Lease. Installations that share a namespace and tend other pools each need one of
    their own; processes of one installation must have the same one, during an upgrade, too."""
    denied_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks in which no cache registry and no token service is asked how it is, but for managed
    caches. Loopback, link-local and multicast addresses are never asked."""
    max_rollouts: int = 10
    """How many pools at once replace their builders because the operator was upgraded; 0: all. The
    others wait. What a user changes never waits."""
    health_port: int = 8081
    """TCP port of ``/healthz``, with or without leadership; 0 turns it off."""
    metrics_port: int = 8080
    """TCP port of ``/metrics``; 0 turns it off."""
    max_passes: int = 8
    """Passes that may run at once, and as many again that take long. More is faster after a restart
    and harder on the API server."""
    secret_reads_per_second: float = 10.0
    """How many Secrets are looked at again per second at most, to notice that one was changed or
    deleted. We may not watch Secrets (docs/adr/0009), so this is the price of noticing."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """One router process, beside its Envoy."""

    namespace: str
    """The gateway's own namespace, which is the operator's: what it is told about pools lies here.
    """
    identity: str
    """Who this process is in pools' status; the pod's name."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose pools are served; empty: all."""
    drain_time: timedelta = timedelta(hours=4)
    """Envoy's: how long the connections of a chain that has changed go on. More than the longest
    build."""
    port: int = naming.PORT
    """TCP port on which Envoy takes the connections of clients."""
    sockets: Path = Path("/sockets")
    """Folder of the Unix sockets by which this process and Envoy speak; no one else may read it."""
    trace_endpoint: str = ""
    """URL of a collector that takes OTLP as JSON by HTTP, for spans of builds; empty: for none."""
    memory_file: Path | None = None
    """Where it notes which connection builds where, for the next process; absent: nowhere."""
    health_port: int = 8083
    """TCP port of ``/healthz`` and ``/readyz``; 0 turns it off."""
    metrics_port: int = 8082
    """TCP port of ``/metrics``; 0 turns it off."""
