"""Pools as the operator configures the gateway for them; their certificates are none."""

from __future__ import annotations

from typing import Any

from buildpool.core import naming
from buildpool.core.api.brief import Brief, ClientBrief
from buildpool.core.naming import PoolKey
from buildpool.core.pki import KeyPair
from buildpool.gateway.pools.config import PoolConfig


def a_config(
    name: str = "ci",
    *,
    namespace: str = "builds",
    hostnames: tuple[str, ...] = (),
    domain: str = naming.USUAL_DOMAIN,
    issue: str = "first",
    acknowledgement: str = "as it is",
    **changes: Any,
) -> PoolConfig:
    """A pool, whose certificates differ by ``issue``."""
    names = naming.gateway_names(name, namespace, domain)
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
    return PoolConfig(
        Brief(**brief | changes),
        server=KeyPair(f"{issue} certificate".encode(), f"{issue} key".encode()),
        upstream=KeyPair(f"{issue} upstream".encode(), f"{issue} upstream key".encode()),
        trust=f"{issue} authority".encode(),
        acknowledgement=acknowledgement,
    )


def by_key(*configs: PoolConfig) -> dict[PoolKey, PoolConfig]:
    """All pools that there are, as the publisher takes them."""
    return {config.key: config for config in configs}
