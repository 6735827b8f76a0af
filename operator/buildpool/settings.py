"""How one operator process is set up: every knob with its unit, default and consequence.

Plain values. The command line reads them from flags and environment; nothing else looks there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from buildpool import __version__

DEFAULT_IMAGE: Final = f"buildpool:{__version__}"
"""What the project's own Dockerfile is built as."""


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
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose pools are tended; empty: all."""
    health_port: int = 8081
    """TCP port of ``/healthz``, with or without leadership; 0 turns it off."""
    metrics_port: int = 8080
    """TCP port of ``/metrics``; 0 turns it off."""
    max_passes: int = 8
    """Passes that may run at once. More is faster after a restart and harder on the API server."""
    secret_reads_per_second: float = 10.0
    """How many Secrets are looked at again per second at most, to notice that one was changed or
    deleted. We may not watch Secrets (docs/adr/0009), so this is the price of noticing."""
