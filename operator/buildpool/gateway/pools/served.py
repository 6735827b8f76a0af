"""The pools that this gateway serves, each with its scheduler, its builders and their builds.

A pool that the operator no longer tells of stays until its last build has ended, but takes no new
ones. In its first seconds those who wait go on waiting: somebody may have deleted its Secret, which
the operator restores.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

from buildpool.buildkit import BuildEvent, BuildEventKind, DaemonAccess
from buildpool.buildkit.loads import Loads
from buildpool.buildkit.watcher import Connect
from buildpool.buildkit.watcher import Target as Daemon
from buildpool.core.api.brief import Brief, ClientBrief
from buildpool.core.naming import PoolKey
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.values import Target, label_of
from buildpool.gateway.pools.bounds import RequestBounds, RouterBounds
from buildpool.gateway.pools.cache_memory import CacheMemory
from buildpool.gateway.pools.cancellations import Cancellations
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.pools.contexts import SessionContexts
from buildpool.gateway.pools.fleet import Fleet
from buildpool.gateway.pools.records import BuildRecords
from buildpool.gateway.slots.changes import Changes
from buildpool.gateway.slots.refusals import Denied, NotServed
from buildpool.gateway.slots.scheduler import SlotScheduler
from buildpool.gateway.slots.store import ConnectionStore

TICK_SECONDS: Final = 1.0
"""Time between two looks at reservations that nobody used."""
MAX_CONNECTIONS: Final = 4096
"""Connections of a pool from which on those are forgotten that the scheduler does not know."""
RESTORED: Final = timedelta(seconds=15)
"""How soon a Secret that somebody has deleted is surely there again, if the pool is."""
LOGGED_WAIT: Final = timedelta(seconds=1)
"""The shortest wait for a slot that is logged."""
log: Final = logging.getLogger(__name__)


class Source(Protocol):
    """Where it is known which pools and builders there are; ``directory.Directory``."""

    @property
    def configs(self) -> Mapping[PoolKey, PoolConfig]:
        """The pools to be served."""

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        """The builders of a pool, those that take no new builds included."""

    def trouble(self, address: str) -> tuple[str, str] | None:
        """The builder that had this address, and what became of it; None where all is well."""


@dataclass(slots=True)
class ServedPool:
    """One pool, with what is known of its connections. For one event loop."""

    config: PoolConfig
    scheduler: SlotScheduler
    records: BuildRecords
    cancellations: Cancellations
    missing_since: datetime | None = None
    """Since when the operator does not tell of the pool: from then on it takes no new builds."""
    is_closing: bool = False
    """Whether it is given up: who asks for it, or waits, is refused."""
    contexts: SessionContexts = field(default_factory=SessionContexts)
    """The contexts of the sessions of its clients."""
    of_all: RouterBounds = field(default_factory=RouterBounds)
    """What it shares with other pools."""
    bounds: RequestBounds = field(init=False)
    caches: CacheMemory = field(default_factory=CacheMemory)
    """What is known of the shared caches of its builds."""
    _clients: dict[str, ClientBrief] = field(default_factory=dict, init=False)
    """The client of each connection that was let in."""
    _waits: dict[str, timedelta] = field(default_factory=dict, init=False)
    """How long each connection waited whose first build has not begun yet."""

    def __post_init__(self) -> None:
        self.bounds = RequestBounds(self.config.key, self.of_all)

    @property
    def brief(self) -> Brief:
        """The pool as the operator configures it."""
        return self.config.brief

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many builds of each client wait, by their names."""
        found = {client.name: 0 for client in self.brief.clients}
        for identity, waiting in self.scheduler.waiting.items():
            client = self.brief.client(identity)
            if client is not None:
                found[client.name] = waiting
        return found

    def let_in(self, connection: str, client: ClientBrief) -> None:
        """A connection is this client's, until it ends: also where the client is removed."""
        self._clients[connection] = client

    def client_let_in(self, connection: str) -> ClientBrief | None:
        """The client that was let in on a connection; None where none was."""
        return self._clients.get(connection)

    def note_wait(self, connection: str, client: str, waited: timedelta) -> None:
        """A connection waited for a slot. Of several waits before one build, the longest counts."""
        if waited >= LOGGED_WAIT:
            log.info("%s: %s waited %.1f s", self.brief.key, client, waited.total_seconds())
        self._waits[connection] = max(waited, self._waits.get(connection, waited))

    def take_wait(self, connection: str) -> timedelta | None:
        """How long a connection waited before its first build; None for its later builds."""
        return self._waits.pop(connection, None)

    def forget_unknown(self) -> None:
        """Forgets connections that the scheduler does not know: not every end is reported."""
        if len(self._clients) > MAX_CONNECTIONS:
            known = self.scheduler.connections.is_known
            self._clients = {name: client for name, client in self._clients.items() if known(name)}
            self._waits = {name: wait for name, wait in self._waits.items() if known(name)}
            self.scheduler.forget_unknown()

    def end_listeners(self) -> None:
        """Those listen no more to its builds who may not any more."""
        listeners = self.records.listeners
        if self.is_closing:
            listeners.end(NotServed(self.brief.key))
            return
        listeners.end(self._removed(), but={client.identity for client in self.brief.clients})

    def check_listener(self, identity: str) -> None:
        """Whether a client may listen to its builds. Raises NotServed or Denied."""
        if self.is_closing:
            raise NotServed(self.brief.key)
        if self.brief.client(identity) is None:
            raise self._removed()

    def _removed(self) -> Denied:
        return Denied(f"this client is not among access.clients of pool {self.brief.key} any more")

    def leave(self, connection: str) -> None:
        """A connection has ended."""
        self._clients.pop(connection, None)
        self._waits.pop(connection, None)
        self.scheduler.leave(connection)


class ServedPools:
    """All pools of one gateway. For one event loop."""

    def __init__(
        self,
        source: Source,
        connect: Connect,
        *,
        clock: Callable[[], datetime],
        memory: ConnectionStore,
        on_backlog_changed: Callable[[PoolKey], None],
        on_closed: Callable[[PoolKey], None],
        on_completed: Callable[[str, BuildEvent], None] = lambda *_: None,
    ) -> None:
        """``on_closed`` is called when a pool that closes has run its last build.

        ``on_completed`` hears of each build that its daemon says has ended: the uid of the
        daemon's pod, and the event.
        """
        self._memory = memory
        self._source = source
        self._clock = clock
        self._on_backlog_changed = on_backlog_changed
        self._on_closed = on_closed
        self._bounds = RouterBounds()
        self._served: dict[PoolKey, ServedPool] = {}
        self._labels: dict[str, PoolKey] = {}
        self._changes = Changes()
        self._is_complete = True
        self._connect = connect
        self._on_completed = on_completed
        self.loads = Loads(connect, self, clock=clock, on_event=self._on_event)

    @property
    def configs(self) -> Mapping[PoolKey, PoolConfig]:
        """The pools that Envoy has to know, those that close included."""
        return {key: served.config for key, served in self._served.items()}

    def served(self, label: str) -> ServedPool | None:
        """The pool of a filter chain; None where it is not served."""
        key = self._labels.get(label)
        return self._served.get(key) if key is not None else None

    def find(self, pool: PoolKey) -> ServedPool | None:
        """A pool by its key; None where it is not served."""
        return self._served.get(pool)

    def each(self) -> tuple[ServedPool, ...]:
        """All pools."""
        return tuple(self._served.values())

    def refresh(self, pool: PoolKey) -> None:
        """Something of a pool has changed: whether it is served, or its builders."""
        self._changes.tell()
        config, served = self._source.configs.get(pool), self._served.get(pool)
        if config is not None and served is None:
            scheduler = SlotScheduler(
                pool,
                partial(self._state, pool),
                clock=self._clock,
                memory=self._memory,
                told=partial(self._on_backlog_changed, pool),
            )
            daemons, heard = partial(self.loads.daemons, pool), partial(self.heard, pool)
            fleet = Fleet(pool, daemons, self._connect, heard=heard)
            records = BuildRecords(fleet, unheard=self._bounds.unheard)
            served = self._served[pool] = ServedPool(
                config, scheduler, records, Cancellations(self._clock), of_all=self._bounds
            )
            self._labels[label_of(pool)] = pool
        if served is None:
            return
        if config is not None:
            served.config, served.missing_since, served.is_closing = config, None, False
            served.cancellations.ask(config.cancel)
        else:
            now = self._clock()
            served.missing_since = served.missing_since or now
            served.is_closing = now - served.missing_since >= RESTORED
        served.end_listeners()
        if served.is_closing:
            served.scheduler.dismiss()
        if served.is_closing and not served.scheduler.is_busy:
            log.info("%s: is not served any more", pool)
            del self._served[pool], self._labels[label_of(pool)]
            self.loads.forget(pool)
            self._on_backlog_changed(pool)
            self._on_closed(pool)
            return
        access = DaemonAccess(served.config.trust, served.config.upstream)
        builders = self._source.builders(pool)
        # A pod that is on its way out waits until no connection to it is left, ours included.
        staying = {each.uid: each.address for each in builders if not each.is_leaving}
        self.loads.watch(pool, staying, access)
        served.records.fleet.leave(
            {each.uid: Daemon(each.address, access) for each in builders if each.is_leaving}
        )
        served.scheduler.dispatch()

    def wake(self, pool: PoolKey) -> None:
        """A daemon has said that builds have started or ended."""
        self._changes.tell()
        served = self._served.get(pool)
        if served is not None:
            served.scheduler.dispatch()

    def _on_event(self, pool: PoolKey, uid: str, event: BuildEvent) -> None:
        if event.kind is BuildEventKind.COMPLETE:
            self._on_completed(uid, event)
        if (served := self._served.get(pool)) is not None:
            served.records.tell(uid, event)

    def hold_slots(self) -> None:
        """From now on no slot is given: it is not known yet which slots are taken."""
        self._set_complete(False)

    def release_slots(self) -> None:
        """From now on slots are given: all daemons had time to say what they run."""
        self._set_complete(True)

    def hand_over(self) -> None:
        """From now on no slot is given and nothing is forgotten: the next process goes on.

        Conversations end with this process, and what they are about goes on. Each that ends would
        make room here for one that waits; the next process would take that one for one that builds.
        """
        self._is_complete = False
        self._memory.retain()

    async def heard(self, pool: PoolKey) -> None:
        """Waits, where slots are held, for daemons of a pool that have not said what they run."""
        while not self._is_complete and self.has_silent_daemons(pool):
            await self.next_change()

    def has_silent_daemons(self, pool: PoolKey) -> bool:
        """Whether daemons have not said what they run, of builders that take builds."""
        known = self.loads.loads(pool).keys()
        return any(b.is_serving and b.uid not in known for b in self._source.builders(pool))

    def _set_complete(self, is_complete: bool) -> None:
        self._changes.tell()
        self._is_complete = is_complete
        for served in self._served.values():
            served.scheduler.dispatch()

    async def next_change(self) -> None:
        """Waits until something of any pool has changed."""
        await self._changes.next()

    def known_trouble(self, builder: Target) -> str:
        """What became of a builder; empty where it is not known, or it is well."""
        found = self._source.trouble(builder.address)
        return "" if found is None else found[1]

    async def trouble(self, builder: Target, *, patience: float) -> str:
        """What became of a builder, once the cluster says; empty after ``patience`` seconds."""
        find = lambda: self.known_trouble(builder) or None  # noqa: E731
        return await self._changes.until(find, patience=patience) or ""

    async def run(self) -> None:
        """Keeps up with daemons and reservations. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.loads.run())
            try:
                await self._tick()
            finally:
                self.hand_over()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for key, served in tuple(self._served.items()):
                if served.missing_since is not None:
                    self.refresh(key)
                elif served.scheduler.connections.has_connections:
                    served.scheduler.dispatch()
                served.forget_unknown()

    def _state(self, pool: PoolKey) -> PoolState:
        served = self._served.get(pool)
        if served is None:  # it has closed under a request that waited
            raise NotServed(pool)
        builders = self._source.builders(pool)
        if served.missing_since is not None:  # the operator may be about to remove them
            builders = tuple(replace(builder, is_serving=False) for builder in builders)
        return PoolState(
            builders=builders,
            builds={
                uid: frozenset(build.ref for build in load.builds)
                for uid, load in self.loads.loads(pool).items()
            },
            slots=served.brief.slots,
            weights={client.identity: client.weight for client in served.brief.clients},
            is_complete=self._is_complete,
        )
