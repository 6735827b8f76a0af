"""The pools of a gateway whose cluster a test sets."""

from __future__ import annotations

from collections.abc import Mapping

from buildpool.core.api.brief import ClientBrief
from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Target
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.pools.served import RESTORED, ServedPools
from buildpool.gateway.slots.store import ConnectionStore
from daemons import Silent
from samples import NOW

ANN, BOB = "buildpool://ann", "buildpool://bob"
CLIENTS = (ClientBrief(identity=ANN, name="ann"), ClientBrief(identity=BOB, name="bob"))


class PoolsLab:
    """Pools, and the one builder that each has or has not."""

    def __init__(self, *configs: PoolConfig) -> None:
        self.configs: Mapping[PoolKey, PoolConfig] = {config.key: config for config in configs}
        self.has_builder = False
        self.now = NOW
        self.closed: list[PoolKey] = []
        self.memory = ConnectionStore(None, now=NOW)
        self.pools = ServedPools(
            self,
            lambda *_: Silent(),
            clock=lambda: self.now,
            memory=self.memory,
            on_backlog_changed=lambda _: None,
            on_closed=self.closed.append,
        )
        for config in configs:
            self.pools.refresh(config.key)

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        return (Target("ci-builder-0", "uid", "127.0.0.1:1"),) * self.has_builder

    def trouble(self, address: str) -> None:
        return None

    def misses(self, pool: PoolKey) -> None:
        """The operator does not tell of the pool."""
        self.configs = {key: config for key, config in self.configs.items() if key != pool}
        self.pools.refresh(pool)

    def loses(self, pool: PoolKey) -> None:
        """The pool is not served any more: its absence has lasted."""
        self.misses(pool)
        self.now += RESTORED
        self.pools.refresh(pool)
