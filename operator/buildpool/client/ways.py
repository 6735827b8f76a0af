"""How a client reaches a pool. Pure.

In the cluster by the pool's Service; else by a host name of the gateway; else by a port-forward,
for which the user's own kubectl is enough.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Final

from buildpool.client.values import Cluster, Connection, Node, Target, Via, Way
from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.api.status import NOT_OBSERVED
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey

NEW_FOR: Final = timedelta(minutes=1)
"""How long a pool counts as new: what it lacks then is waited for."""
LOOPBACK: Final = "127.0.0.1"
_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?")


@dataclass(frozen=True, slots=True)
class Reach:
    """One pool that is connected to: by which client, and which way."""

    pool: Pool
    client: str
    way: Way


def via_of(pool: Pool, *, asked: Via | None, is_inside: bool) -> Via:
    """Which way leads to a pool; ``asked`` is what the user wants."""
    has_name = bool(pool.spec.gateway.hostnames)
    if asked is Via.HOSTNAME and not has_name:
        raise BuildpoolError(
            f"pool {pool.key} has no host name; add one to spec.gateway.hostnames, "
            "or leave out --via=hostname"
        )
    if asked is not None:
        return asked
    if is_inside:
        return Via.SERVICE
    return Via.HOSTNAME if has_name else Via.PORT_FORWARD


def needs_gateway(pool: Pool, via: Via) -> bool:
    """Whether it is the gateway's Service that has to be forwarded."""
    return via is Via.PORT_FORWARD and pool.spec.routing is Routing.GATEWAY


def way_of(pool: Pool, via: Via, *, gateway: Target | None) -> Way:
    """The way to a pool; ``gateway`` is the gateway's Service, where that has to be forwarded."""
    service = f"{naming.service(pool.key)}.{pool.key.namespace}.svc"
    match via:
        case Via.SERVICE:
            return Way(via, service, service)
        case Via.HOSTNAME:
            name = pool.spec.gateway.hostnames[0]
            return Way(via, name, name)
    if needs_gateway(pool, via):
        if gateway is None:
            raise BuildpoolError(
                f"the gateway's Service cannot be found by Service {pool.key}; "
                "name it: --gateway=buildpool-system/buildpool-gateway"
            )
        return Way(via, service, target=gateway)
    if not pool.status.ready_replicas:
        raise BuildpoolError(
            f"pool {pool.key} has no builder that a port-forward could lead to; see why: "
            f"kubectl buildpool explain {pool.key.name} -n {pool.key.namespace}"
        )
    # Each builder's certificate is for the name of the Service, too.
    return Way(via, service, target=Target(pool.key.namespace, naming.service(pool.key)))


def client_of(pool: Pool, asked: str) -> str:
    """Which client of a pool is meant; empty: the only one there is."""
    names = [client.name for client in pool.spec.access.clients]
    if asked and asked not in names:
        raise BuildpoolError(
            f"pool {pool.key} has no client {asked}; it has {', '.join(names)}: name one of them "
            "by --client, or add yours to spec.access.clients"
        )
    if not asked and len(names) > 1:
        raise BuildpoolError(
            f"pool {pool.key} has the clients {', '.join(names)}; name yours by --client"
        )
    return asked or names[0]


def connection_of(
    name: str,
    cluster: Cluster,
    reaches: Sequence[Reach],
    *,
    ports: Mapping[PoolKey, int],
    port: int,
) -> Connection:
    """The connection to some pools. ``ports`` are the forwards'; ``port`` is that of all else."""
    return Connection(name, cluster, tuple(_node(reach, ports, port) for reach in reaches))


def _node(reach: Reach, ports: Mapping[PoolKey, int], port: int) -> Node:
    way, key = reach.way, reach.pool.key
    return Node(
        pool=key,
        client=reach.client,
        platform=",".join(platforms_of(reach.pool)),
        via=way.via,
        host=way.host if way.target is None else LOOPBACK,
        port=port if way.target is None else ports[key],
        server_name=way.server_name,
        target=way.target,
    )


def platforms_of(pool: Pool) -> tuple[str, ...]:
    """What a pool says it builds for: what its daemons' configuration names, or its processors."""
    worker = tomllib.loads(pool.spec.builders.config).get("worker", {}).get("oci", {})
    named = (each for each in worker.get("platforms", ()) if _PLATFORM.fullmatch(each))
    return tuple(named) or (f"linux/{pool.spec.builders.architecture.value}",)


def check_one_builder(connection: Connection) -> None:
    """BuildpoolError: buildx would not use all of these pools as one builder.

    It takes a platform away from a node when a later one has it, and no address twice.
    """
    for earlier, node in combinations(connection.nodes, 2):
        apart = "connect to each by a command and a --name of its own"
        if shared := set(earlier.platform.split(",")) & set(node.platform.split(",")):
            raise BuildpoolError(
                f"pools {earlier.pool} and {node.pool} both build for {min(shared)}, and of one "
                f"builder buildx would use only the last: {apart}"
            )
        if earlier.address == node.address:
            raise BuildpoolError(
                f"pools {earlier.pool} and {node.pool} are both reached at {node.address}, which "
                f"buildx takes once: {apart}, or use --via=port-forward"
            )


def is_being_made(pool: Pool, now: datetime) -> bool:
    """Whether a pool is so new that no operator has looked at it, but may do so in a moment."""
    is_new = pool.created is not None and timedelta(0) <= now - pool.created < NEW_FOR
    return is_new and pool.status.observed_generation == NOT_OBSERVED
