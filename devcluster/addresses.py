"""The addresses of a cluster, in one family of IP. Pure.

A cluster with a node speaks version 4. A control plane alone can speak version 6, and nothing else:
its loopback has 127.0.0.1, as that of any pod, but nothing of the control plane listens there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from devcluster.layout import NODE_ADDRESS, POD_NETWORK, SERVICE_ADDRESS, SERVICE_NETWORK


class Family(StrEnum):
    """A version of IP."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the control plane listens, and what it gives to pods and Services."""

    loopback: str
    """By which its parts reach each other, and the administrator reaches the API server."""
    bound: str
    """Where those of its parts listen that others may reach."""
    node: str
    """The box's own, other than loopback."""
    pods: str
    services: str
    service: str
    """The API server's, as a Service."""

    def url(self, port: int, *, scheme: str = "https") -> str:
        """A URL on the loopback, without a path."""
        host = f"[{self.loopback}]" if ":" in self.loopback else self.loopback
        return f"{scheme}://{host}:{port}"

    @property
    def api_server(self) -> str:
        """Where clients in the box find it."""
        return self.url(6443)


ADDRESSES: Final = {
    Family.IPV4: Addresses(
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - all of the box is meant
        NODE_ADDRESS,
        POD_NETWORK,
        SERVICE_NETWORK,
        SERVICE_ADDRESS,
    ),
    Family.IPV6: Addresses(
        "::1", "::1", "fd00:88::1", "fd00:88:0:1::/64", "fd00:96::/112", "fd00:96::1"
    ),
}
"""The addresses of each family."""
