"""One router process, wired together: from the first look at the cluster to the last request.

It answers Envoy only once it knows all pools, and gives slots only once the daemons have said what
they run: a router that starts again must neither take a pool away nor give away slots that are
taken. What runs goes on at once: a daemon waits five seconds for the session of a build. Nothing is
reported before, either: who builds in the slot of another one, only daemons know.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import grpc.aio
from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from prometheus_client import CollectorRegistry

from buildpool.buildkit import Daemon
from buildpool.core.api.status import GatewayStatus
from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Backlog
from buildpool.gateway.access_log import AccessLog
from buildpool.gateway.ext_proc.processor import Processor
from buildpool.gateway.histories import Histories
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.directory import Directory
from buildpool.gateway.pools.served import ServedPools, Source
from buildpool.gateway.pools.tickets import Tickets
from buildpool.gateway.reports.builds import BuildLog
from buildpool.gateway.reports.details import CompletedSteps, Details
from buildpool.gateway.reports.status import Entry, StatusWriter, queue_of
from buildpool.gateway.reports.traces import traces_to
from buildpool.gateway.slots.store import ConnectionStore
from buildpool.gateway.xds.bootstrap import ROUTER_SOCKET
from buildpool.gateway.xds.discovery import Discovery
from buildpool.gateway.xds.limits import LIMITS, Limits
from buildpool.gateway.xds.publisher import Publisher
from buildpool.gateway.xds.subscriptions import Snapshot
from buildpool.kube.cluster import connect
from buildpool.kube.metrics import RequestMetrics
from buildpool.process import health_pages, on_signal, serve_metrics, utc_now
from buildpool.settings import GatewaySettings

HEARING_SECONDS: Final = 5.0
"""Time that daemons have to say what they run before the first slot is given."""
MAX_MESSAGE_BYTES: Final = 64 << 20
"""Length of a message of Envoy: the largest definition, and what it has of some thousand pools."""
MAX_HEADERS_BYTES: Final = 128 << 10
"""Length of the headers of a request that Envoy brings: it takes 60 KiB of clients, and adds some.
gRPC counts more of each."""
HUNG_SECONDS: Final = 30.0
"""Time after which a process whose event loop stands still ends, for another one to begin."""
GRACE_SECONDS: Final = 2.0
"""Time for the requests that are being answered when a signal ends the process."""
log: Final = logging.getLogger(__name__)


class PoolSource(Source, Protocol):
    """Where the router learns of pools and builders; ``pools.directory.Directory``."""

    synced: asyncio.Event
    """Whether all pools and builders are known."""

    def subscribe(self, callback: Callable[[PoolKey], None]) -> None:
        """Calls back for each pool of which something has changed."""

    async def run(self) -> None:
        """Keeps up with all changes. Never returns."""


class StatusSink(Protocol):
    """Where the router reports what waits; ``reports.status.StatusWriter``."""

    def changed(self, pool: PoolKey) -> None:
        """There may be something else to report of a pool."""

    async def run(self, entry: Entry) -> None:
        """Reports, of each pool that has changed, its ``entry``. Never returns."""


async def main(settings: GatewaySettings) -> None:
    """Serves until a signal."""
    stop, registry = asyncio.Event(), CollectorRegistry()
    on_signal(stop.set)
    metrics = GatewayMetrics(registry)
    serve_metrics(settings.metrics_port, registry)
    async with connect(RequestMetrics(registry)) as cluster:
        namespaces = settings.watch_namespaces
        directory = Directory(cluster, home=settings.namespace, namespaces=namespaces)
        writer = StatusWriter(
            cluster, identity=settings.identity, namespaces=namespaces, clock=utc_now
        )
        watchdog = asyncio.create_task(watch_over_the_loop())
        try:
            await Router(settings, directory, writer, metrics).run(stop)
        finally:
            watchdog.cancel()


async def watch_over_the_loop() -> None:
    """Ends the process, with a trace of all threads, once its event loop stands still.

    The kubelet could do so only after ``preStop``, which drains Envoy.
    """
    try:
        while True:
            faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
            await asyncio.sleep(HUNG_SECONDS / 6)
    finally:
        faulthandler.cancel_dump_traceback_later()


class Router:
    """The parts of one router process."""

    def __init__(
        self,
        settings: GatewaySettings,
        source: PoolSource,
        status: StatusSink,
        metrics: GatewayMetrics,
        *,
        limits: Limits = LIMITS,
    ) -> None:
        """``limits`` are those of each pool."""
        self.answers = asyncio.Event()
        """Whether it answers Envoy: all pools are known."""
        self._settings = settings
        self._source = source
        self._status = status
        self._metrics = metrics
        steps = CompletedSteps()
        self.pools = ServedPools(
            source,
            Daemon,
            clock=utc_now,
            memory=ConnectionStore(settings.memory_file, now=utc_now()),
            on_backlog_changed=self._on_backlog_changed,
            on_closed=self._on_closed,
            on_completed=steps.note,
        )
        """The pools that it serves."""
        self._is_heard = asyncio.Event()
        """Whether the daemons have said what they run, or had time to."""
        self._discovery = Discovery(
            on_rejected=metrics.rejected_configurations.inc,
            on_connected=metrics.envoys.set,
            on_answered=self._on_answered,
        )
        self._publisher = Publisher(
            self._on_published,
            port=settings.port,
            drain_time=settings.drain_time,
            on_refused=self._on_refused,
            limits=limits,
        )
        build_log = BuildLog(metrics, complete=Details(self.pools, steps))
        tickets = Tickets()
        self._processor = Processor(
            self.pools,
            build_log,
            metrics,
            clock=utc_now,
            tickets=tickets,
            traces=traces_to(settings.trace_endpoint, settings.identity, metrics),
        )
        self._histories = Histories(self.pools, tickets, clock=utc_now)
        self._access_log = AccessLog(self.pools, metrics)

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop``; raises what any part of it fails with."""
        self._source.subscribe(self._on_change)
        pages = {"/healthz": lambda: None, "/readyz": self.why_not_ready}
        async with health_pages(self._settings.health_port, pages):
            parts = [
                asyncio.create_task(part)
                for part in (
                    self._source.run(),
                    self.pools.run(),
                    self._report(),
                    self._publisher.run(),
                    self._serve(stop),
                    stop.wait(),
                )
            ]
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)
            for part in parts:
                if not part.cancelled():
                    part.result()

    def why_not_ready(self) -> str | None:
        """What keeps clients from being sent here; None where nothing does."""
        is_ready = self.answers.is_set() and self._discovery.is_settled
        return None if is_ready else "Envoy has not taken all pools yet"

    @property
    def is_settled(self) -> bool:
        """Whether Envoy has taken all pools just as they are known now."""
        return self._publisher.is_up_to_date and self._discovery.is_settled

    async def _report(self) -> None:
        await self._is_heard.wait()
        await self._status.run(self._entry)

    async def _serve(self, stop: asyncio.Event) -> None:
        await self._source.synced.wait()
        self.pools.hold_slots()
        for pool in self._source.configs:
            self.pools.refresh(pool)
        self._publish()
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            # As Envoy takes them of clients: else some are let in, and never come here.
            ("grpc.max_metadata_size", MAX_HEADERS_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_HEADERS_BYTES),
        ]
        server = grpc.aio.server(options=options)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(self._processor, server)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._discovery, server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self._access_log, server)
        server.add_generic_rpc_handlers((self._histories,))
        socket = self._settings.sockets / ROUTER_SOCKET
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        socket.chmod(0o666)  # Envoy may be another user; only its container has the folder, too
        self.answers.set()
        log.info("The gateway serves %d pools.", len(self.pools.configs))
        try:
            await self._daemons_heard()
            self.pools.release_slots()
            self._is_heard.set()
            await asyncio.Event().wait()  # until ``run`` ends it, which waits for what follows
        finally:
            self.answers.clear()
            self.pools.hand_over()  # first: all conversations end here, also those of what runs
            # Where a part has failed, what is held waits for the next process, and not for this.
            await server.stop(GRACE_SECONDS if stop.is_set() else None)

    async def _daemons_heard(self) -> None:
        """Waits until the daemons have said what they run, if they do so soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARING_SECONDS):
                while any(self.pools.has_silent_daemons(pool) for pool in self.pools.configs):
                    await self.pools.next_change()

    def _publish(self) -> None:
        self._metrics.pools.set(len(self.pools.configs))
        self._publisher.update(self.pools.configs)

    def _on_change(self, pool: PoolKey) -> None:
        # Not before all builders are known: what runs on one that is missing would be forgotten.
        if self._source.synced.is_set():
            self.pools.refresh(pool)
            self._publish()

    def _on_closed(self, pool: PoolKey) -> None:
        self._metrics.forget(pool)
        self._publish()

    def _on_published(self, snapshot: Snapshot) -> None:
        self._discovery.publish(snapshot)
        self._on_answered()  # not all that changes is Envoy's to know

    def _on_answered(self) -> None:
        """Has it told of each pool once Envoy serves it as it is."""
        if self._discovery.is_settled:
            for pool in self._publisher.take(self._discovery.has):
                self._status.changed(pool)

    def _on_refused(self, pool: PoolKey, why: str | None) -> None:
        if why is not None:
            log.warning("%s: %s", pool, why)
        self._status.changed(pool)

    def _on_backlog_changed(self, pool: PoolKey) -> None:
        served = self.pools.find(pool)
        if served is not None:
            self._metrics.waiting(pool, served.waiting)
        self._status.changed(pool)

    def _entry(self, pool: PoolKey) -> GatewayStatus:
        """What the pool's status shall say of this pod."""
        served = self.pools.find(pool)
        backlog = Backlog() if served is None else served.scheduler.backlog
        return GatewayStatus(
            name=self._settings.identity,
            waiting=backlog.waiting,
            queue=() if served is None else queue_of(served.waiting),
            since=backlog.since,
            shared=backlog.shared,
            refused=self._publisher.refusal(pool),
            serves=None if served is None else self._publisher.served_with(pool),
        )
