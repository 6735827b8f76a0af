"""From the pools that there are to what Envoy shall have, in as few updates as can be.

Each update of a listener costs Envoy some MiB until its drain time is over, so that changes are
gathered. One bad chain would have the whole listener refused: a name that two pools want goes to
one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from envoy.config.listener.v3.listener_pb2 import Listener

from buildpool.buildkit import protobuf
from buildpool.core import naming
from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.xds import resources
from buildpool.gateway.xds.limits import LIMITS, Limits
from buildpool.gateway.xds.subscriptions import CLUSTER, LISTENER, SECRET, Resource, Snapshot

QUIET_SECONDS: Final = 0.2
"""Time without a change after which changes are published."""
LATEST_SECONDS: Final = 1.0
"""Time after the first change after which changes are published, though more may come."""


@dataclass(slots=True)
class _Parts:
    """The resources of one pool, and what they are made of."""

    config: PoolConfig
    chain: bytes
    """Its filter chain, as the listener has it."""
    resources: Mapping[str, Mapping[str, Resource]]
    gone: float | None = None
    """Since when the pool is not served any more: its connections may still be there."""


class Publisher:
    """Makes what Envoy shall have of the pools. For one event loop."""

    def __init__(
        self,
        publish: Callable[[Snapshot], None],
        *,
        port: int,
        drain_time: timedelta,
        on_refused: Callable[[PoolKey, str | None], None],
        limits: Limits = LIMITS,
    ) -> None:
        """``drain_time`` is Envoy's; ``limits`` are those of each pool.

        ``on_refused`` gets the pool that does not get a name that it wants, and why; None once it
        does, or is gone.
        """
        self._publish_snapshot = publish
        self._drain_time = drain_time
        self._on_refused = on_refused
        self._limits = limits
        self._configs: Mapping[PoolKey, PoolConfig] = {}
        self._published: Mapping[PoolKey, PoolConfig] | None = None
        """Those of the last snapshot; None before the first."""
        self._parts: dict[PoolKey, _Parts] = {}
        self._frame = resources.listener((), port=port, limits=limits).SerializeToString()
        """The listener, before its chains."""
        self._chains: list[bytes] = []
        self._listener = Resource.of_content(LISTENER, self._frame)
        """Made of these chains."""
        self._refused: Mapping[PoolKey, str] = {}
        self._holders: Mapping[str, PoolKey] = {}
        """Which pool has which name."""
        self._taken: dict[PoolKey, str] = {}
        """What Envoy serves each pool with, as the operator wants to hear it."""
        self._untaken: set[PoolKey] = set()
        """The pools that Envoy has not taken yet as they were published last."""
        self._changed = asyncio.Event()

    def update(self, configs: Mapping[PoolKey, PoolConfig]) -> None:
        """These are the pools to be served, all of them. The first time at once."""
        if self._published is None:
            self._configs = dict(configs)
            self._publish()
        elif self._configs != configs:  # a pool changes with each of its builds, but not for Envoy
            self._configs = dict(configs)
            self._changed.set()

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing has changed since the last snapshot."""
        return self._published is self._configs

    def served_with(self, pool: PoolKey) -> str | None:
        """The acknowledgement of what Envoy serves a pool with; None before it does."""
        return self._taken.get(pool)

    def take(self, has: Callable[[Snapshot], bool]) -> Iterator[PoolKey]:
        """Notes of which pools Envoy ``has`` all by now, and names these."""
        if not self._untaken or not has({LISTENER: {resources.LISTENER: self._listener}}):
            return
        for key in sorted(self._untaken):
            parts = self._parts[key]
            if has(parts.resources):
                self._untaken.discard(key)
                self._taken[key] = parts.config.acknowledgement
                yield key

    def refusal(self, pool: PoolKey) -> str | None:
        """Why a pool does not get a name that it wants; None where it has them all."""
        return self._refused.get(pool)

    async def run(self) -> None:
        """Publishes what has changed. Never returns."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_forgotten()):
                    await self._changed.wait()
            latest = monotonic() + LATEST_SECONDS
            while self._changed.is_set() and monotonic() < latest:
                self._changed.clear()
                await asyncio.sleep(QUIET_SECONDS)
            self._changed.clear()
            self._publish()

    def _until_forgotten(self) -> float | None:
        """Seconds until something is left of a pool that nobody needs any more."""
        gone = [parts.gone for parts in self._parts.values() if parts.gone is not None]
        if not gone:
            return None
        return max(0.0, min(gone) + self._drain_time.total_seconds() - monotonic())

    def _publish(self) -> None:
        now, self._published = monotonic(), self._configs
        served = self._fitting()
        for key, config in served.items():
            known = self._parts.get(key)
            if known is None or known.config != config:
                self._parts[key] = _parts(config, known, self._limits)
            else:
                known.gone = None
        for key, parts in tuple(self._parts.items()):
            if key in served:
                continue
            parts.gone = parts.gone or now
            if now - parts.gone >= self._drain_time.total_seconds():
                del self._parts[key]
        listener = self._listener_of([self._parts[key].chain for key in sorted(served)])
        snapshot: dict[str, dict[str, Resource]] = {
            CLUSTER: {},
            SECRET: {},
            LISTENER: {resources.LISTENER: listener},
        }
        for parts in self._parts.values():
            for kind, found in parts.resources.items():
                snapshot[kind] |= found
        self._taken = {key: taken for key, taken in self._taken.items() if key in served}
        self._untaken = {
            key for key, config in served.items() if self._taken.get(key) != config.acknowledgement
        }
        self._publish_snapshot(snapshot)

    def _listener_of(self, chains: list[bytes]) -> Resource:
        """The listener: another one only where a chain has changed, as it is large."""
        if chains != self._chains:
            # Put together, not made again: all pools have a part in it.
            content = b"".join((self._frame, *chains))
            self._chains, self._listener = chains, Resource.of_content(LISTENER, content)
        return self._listener

    def _fitting(self) -> dict[PoolKey, PoolConfig]:
        """The pools, each with the names that nobody else has.

        Nobody can take the names that say which pool they mean. Of the others, those that were
        there first keep theirs; where nothing is known of that, the oldest pool has it.
        """
        holders = {
            name: key
            for name, key in self._holders.items()
            if key in self._configs and name in self._configs[key].brief.server_names
        }
        for key, config in self._configs.items():
            names = config.brief.server_names
            holders |= {name: key for name in names if naming.is_name_of(key, name)}
        served, refused = {}, {}
        for key, config in sorted(self._configs.items(), key=lambda item: _seniority(item[1])):
            wanted = config.brief.server_names
            foreign = {name: holders.setdefault(name, key) for name in wanted}
            kept = tuple(name for name in wanted if foreign[name] == key)
            served[key] = config.known_as(kept)
            for name in wanted:
                if foreign[name] != key:
                    refused[key] = (
                        f"gateway.hostnames: {name} is a name of pool {foreign[name]} already, "
                        "to which it leads; remove it from one of the two"
                    )
                    break
        before, self._refused, self._holders = self._refused, refused, holders
        for key in sorted({*before, *refused}):
            if before.get(key) != refused.get(key):
                self._on_refused(key, refused.get(key))
        return served


def _seniority(config: PoolConfig) -> tuple[bool, datetime | None, PoolKey]:
    created = config.brief.created
    return created is None, created, config.key


def _chain(config: PoolConfig, limits: Limits) -> bytes:
    """The filter chain of a pool, as the listener has it."""
    content = resources.chain(config, limits).SerializeToString(deterministic=True)
    return protobuf.field(Listener.FILTER_CHAINS_FIELD_NUMBER, content)


def _parts(config: PoolConfig, before: _Parts | None, limits: Limits) -> _Parts:
    """The parts of a pool. Its chain, which takes milliseconds, is kept where it is the same."""
    cluster = resources.cluster(config)
    secrets = resources.secrets(config)
    if before is not None and before.config.brief.server_names == config.brief.server_names:
        chain = before.chain
    else:
        chain = _chain(config, limits)
    return _Parts(
        config,
        chain,
        {
            CLUSTER: {cluster.name: Resource.of(CLUSTER, cluster)},
            SECRET: {secret.name: Resource.of(SECRET, secret) for secret in secrets},
        },
    )
