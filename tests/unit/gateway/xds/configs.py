"""Pools as the gateway is told about them, for tests of what Envoy is told."""

from __future__ import annotations

from typing import Any

from buildpool.core import naming
from buildpool.core.naming import PoolKey
from buildpool.core.pki import KeyPair
from buildpool.core.routing.values import Brief, ClientBrief
from buildpool.gateway.pools.config import Tenant


def a_tenant(
    name: str = "ci",
    *,
    namespace: str = "builds",
    hostnames: tuple[str, ...] = (),
    issue: str = "first",
    **changes: Any,
) -> Tenant:
    """A pool; its certificates, which are none, differ by ``issue``."""
    names = naming.gateway_names(name, namespace)
    brief: dict[str, Any] = {
        "namespace": namespace,
        "name": name,
        "uid": "uid",
        "server_names": (*names, *hostnames),
        "upstream_name": names[-2],
        "slots": 1,
        "max_wait": "5m",
        "clients": (ClientBrief(identity="buildpool://ann", name="ann"),),
    }
    return Tenant(
        Brief(**brief | changes),
        server=KeyPair(f"{issue} certificate".encode(), f"{issue} key".encode()),
        upstream=KeyPair(f"{issue} upstream".encode(), f"{issue} upstream key".encode()),
        trust=f"{issue} authority".encode(),
    )


def told(*tenants: Tenant) -> dict[PoolKey, Tenant]:
    """All pools that there are."""
    return {tenant.key: tenant for tenant in tenants}
