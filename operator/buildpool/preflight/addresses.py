"""Where the operator connects to when it asks a registry, and where it does not.

A pool's author says whom the operator asks, and a registry says where its tokens are; the operator
stands where neither of them may. So each name is looked up once for a look, what it leads to is
judged, and only what was judged is connected to: another answer of the DNS changes nothing. Never
sends anything.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from buildpool.core.errors import BuildpoolError
from buildpool.preflight.urls import name_of
from buildpool.preflight.values import Peer

Network: TypeAlias = IPv4Network | IPv6Network

LOOK_UP: Final = timedelta(seconds=3)
"""How long the DNS may take for one name."""
LOOK_UPS: Final = 32
"""Names that can be looked up at once. A look-up that nobody waits for any more still holds its
thread until the system gives up, which can take half a minute."""
NEVER: Final = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # itself
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: the metadata services of clouds
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
    )
)
"""What no registry can be at: from the operator's pod, it is the pod itself or its node."""
_NAT64: Final = ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ip_network("::/96")

_DNS: Final = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="preflight-dns")
"""Threads of their own: in those of the event loop, slow names would hold up all else."""


def addresses_of(name: str) -> list[str]:
    """What the system knows of a name; takes as long as it takes. Raises OSError and ValueError."""
    kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
    infos = socket.getaddrinfo(name, None, type=kind, flags=flags)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class AddressRefused(BuildpoolError):  # noqa: N818 - an answer
    """All addresses of a name are such that they are not asked."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which addresses the operator connects to."""

    never: tuple[Network, ...] = NEVER
    """Networks in which nobody is asked."""
    denied: tuple[Network, ...] = ()
    """Networks in which nobody is asked but the registries that the operator set up itself."""
    look_up: Callable[[str], Sequence[str]] = addresses_of
    """The addresses of a name; in a thread, for it may take long."""

    def objection(self, address: str, peer: Peer) -> str | None:
        """Why the peer is not asked at an address; None where it may be asked."""
        forms = _forms(address)
        if not forms or _is_within(forms, self.never):
            return "which leads to the operator's own pod or node"
        if peer.entry is None and not peer.by_realm:
            return None
        if _is_within(forms, self.denied):
            return "in a network in which this operator asks nobody (--deny-network)"
        if peer.must_be_public and not forms[-1].is_global:
            return "a private address, though the registry itself has a public one"
        return None


class Addresses(AbstractResolver):
    """The names of one look and their addresses; what the HTTP client resolves names with."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._found: dict[str, tuple[str, ...]] = {}

    def of(self, url: URL) -> tuple[str, ...]:
        """The addresses that may be asked for a URL; empty before it was looked up."""
        return self._found.get(name_of(url), ())

    def is_public(self, url: URL) -> bool:
        """Whether a URL that was looked up has an address on the Internet, whatever else it has."""
        return any(_forms(address)[-1].is_global for address in self.of(url))

    async def look_up(self, peer: Peer, url: URL) -> None:
        """Finds the addresses of a peer. Raises AddressRefused, or OSError in words for people."""
        name = name_of(url)
        found = self._found.get(name) or await self._looked_up(name)
        objections = {address: self._reach.objection(address, peer) for address in found}
        allowed = tuple(address for address, why in objections.items() if why is None)
        if not allowed:
            address, why = next(iter(objections.items()), ("no address", "says the DNS"))
            raise AddressRefused(f"is at {address}, {why}")
        self._found[name] = allowed

    async def _looked_up(self, name: str) -> Sequence[str]:
        if _address(name) is not None:
            return (name,)
        ask = partial(self._reach.look_up, name)
        try:
            async with asyncio.timeout(LOOK_UP.total_seconds()):
                return await asyncio.get_running_loop().run_in_executor(_DNS, ask)
        except ValueError:  # UnicodeError is one
            raise OSError(None, "it is no host name") from None
        except TimeoutError:
            raise OSError(None, "DNS does not answer in time") from None

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - of any
    ) -> list[ResolveResult]:
        """What was found and may be asked; for the HTTP client, which looks up nothing itself."""
        found = self._found.get(host.rstrip("."), ())
        if not found:
            raise OSError(None, "it was not looked up")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _forms(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """An address, and after it the one of version 4 that it stands for; nothing for no address."""
    address = _address(text)
    if address is None:
        return ()
    if isinstance(address, IPv4Address):
        return (address,)
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and (address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)):
        embedded = IPv4Address(int(address) & 0xFFFFFFFF)
    return (address,) if embedded is None else (address, embedded)


def _is_within(addresses: Iterable[IPv4Address | IPv6Address], networks: Iterable[Network]) -> bool:
    return any(address in network for address in addresses for network in networks)
