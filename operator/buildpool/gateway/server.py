"""One router process, wired together: from the first look at the cluster to the last request.

It answers Envoy only once it knows all pools, and gives slots only once it has heard the daemons: a
router that starts again must neither take a pool away nor give away slots that are taken. Who had
one goes on at once: a daemon waits five seconds for the session of a build.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from contextlib import suppress
from typing import Final

import grpc.aio
from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from prometheus_client import CollectorRegistry

from buildpool.buildkit import Daemon
from buildpool.core import naming
from buildpool.core.api import PoolStatus
from buildpool.core.api.status import GatewayStatus
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Backlog
from buildpool.gateway.access_log import AccessLog
from buildpool.gateway.ext_proc.processor import Processor
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.directory import Directory
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.reports.builds import BuildLog
from buildpool.gateway.reports.details import Details
from buildpool.gateway.reports.status import StatusWriter
from buildpool.gateway.slots.store import ConnectionStore
from buildpool.gateway.xds.discovery import Discovery
from buildpool.gateway.xds.publisher import Publisher
from buildpool.kube.cluster import Cluster, connect
from buildpool.kube.metrics import RequestMetrics
from buildpool.process import health_pages, on_signal, serve_metrics, utc_now
from buildpool.settings import GatewaySettings

HEARING: Final = 5.0
"""Seconds that daemons have to tell what they run before the first slot is given."""
MAX_MESSAGE: Final = 64 << 20
"""Bytes: the largest definition, and the configuration of some thousand pools."""
PAUSE: Final = 2.0
"""Seconds until the API server is asked again."""
HUNG: Final = 30.0
"""Seconds after which a process whose event loop stands still ends, for another to begin."""
LAST_WORDS: Final = 2.0
"""Seconds for the requests that are being answered when the process is told to end."""
log: Final = logging.getLogger(__name__)


async def main(settings: GatewaySettings) -> None:
    """Serves until a signal."""
    stop, registry = asyncio.Event(), CollectorRegistry()
    on_signal(stop.set)
    metrics = GatewayMetrics(registry)
    serve_metrics(settings.metrics_port, registry)
    async with connect(RequestMetrics(registry)) as cluster:
        await Router(settings, cluster, metrics).run(stop)


async def watch_over_the_loop() -> None:
    """Ends the process, with a trace of all threads, once nothing gets its turn any more.

    Not the kubelet: a container that it restarts is told so by ``preStop``, which drains Envoy.
    """
    try:
        while True:
            faulthandler.dump_traceback_later(HUNG, exit=True)
            await asyncio.sleep(HUNG / 6)
    finally:
        faulthandler.cancel_dump_traceback_later()


class Router:
    """The parts of one router process."""

    def __init__(
        self, settings: GatewaySettings, cluster: Cluster, metrics: GatewayMetrics
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._is_answering = False
        self._directory = Directory(
            cluster, home=settings.namespace, namespaces=settings.watch_namespaces
        )
        self._nothing = GatewayStatus(name=settings.identity)
        self._status_writer = StatusWriter(cluster, self._nothing, self._entry, clock=utc_now)
        memory = ConnectionStore(settings.memory_file, now=utc_now())
        self._pools = ServedPools(
            self._directory,
            Daemon,
            clock=utc_now,
            memory=memory,
            told=self._told,
            left=self._left,
        )
        self._discovery = Discovery(
            on_rejected=metrics.rejected_configurations.inc,
            on_connected=metrics.envoys.set,
        )
        self._publisher = Publisher(
            self._discovery,
            port=settings.port,
            drain_time=settings.drain_time,
            on_refused=self._refused,
        )
        build_log = BuildLog(metrics, complete=Details(self._pools))
        self._processor = Processor(self._pools, build_log, metrics, clock=utc_now)
        self._access_log = AccessLog(self._pools, metrics)

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop``; raises what any part of it fails with."""
        self._directory.subscribe(self._refresh)
        pages = {"/healthz": lambda: None, "/readyz": self._not_ready}
        async with health_pages(self._settings.health_port, pages):
            parts = [
                asyncio.create_task(part)
                for part in (
                    self._directory.run(),
                    self._pools.run(),
                    self._status_writer.run(),
                    self._publisher.run(),
                    self._serve(stop),
                    self._take_back(stop),
                    watch_over_the_loop(),
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

    def _not_ready(self) -> str | None:
        is_ready = self._is_answering and self._discovery.is_settled
        return None if is_ready else "Envoy has not taken all pools yet"

    async def _serve(self, stop: asyncio.Event) -> None:
        await self._directory.synced.wait()
        self._publish()
        self._pools.listens(is_over=False)
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", -1),
        ]
        server = grpc.aio.server(options=options)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(self._processor, server)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._discovery, server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self._access_log, server)
        server.add_insecure_port(f"127.0.0.1:{self._settings.router_port}")
        await server.start()
        self._is_answering = True
        log.info("The gateway serves %d pools.", len(self._pools.configs))
        try:
            await self._hear()
            self._pools.listens(is_over=True)
            await stop.wait()
        finally:
            self._is_answering = False
            await server.stop(LAST_WORDS)

    async def _hear(self) -> None:
        """Waits for the daemons to tell what they run, if they do so soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARING):
                while any(self._unheard(served.brief.key) for served in self._pools.each()):
                    await self._pools.next_change()

    def _unheard(self, pool: PoolKey) -> bool:
        known = self._pools.loads.loads(pool).keys()
        return any(b.is_serving and b.uid not in known for b in self._directory.builders(pool))

    async def _take_back(self, stop: asyncio.Event) -> None:
        """What an earlier process of this pod has told of its queue is not so any more."""
        while True:
            try:
                await self._tell_anew()
            except KubernetesError as error:
                log.warning("Cannot read what was told of the queues: %s", error)
                await asyncio.sleep(PAUSE)
            else:
                await stop.wait()
                return

    async def _tell_anew(self) -> None:
        for namespace in self._settings.watch_namespaces or ("",):
            for raw in await self._cluster.select(naming.KIND, namespace, {}):
                status = PoolStatus.read(raw.get("status"))
                if any(entry.name == self._settings.identity for entry in status.gateways):
                    metadata = raw["metadata"]
                    self._status_writer.remember([PoolKey(metadata["namespace"], metadata["name"])])

    def _refresh(self, pool: PoolKey) -> None:
        self._pools.refresh(pool)
        self._publish()

    def _left(self, pool: PoolKey) -> None:
        self._metrics.forget(pool)
        self._publish()

    def _publish(self) -> None:
        self._metrics.pools.set(len(self._pools.configs))
        if self._directory.synced.is_set():
            self._publisher.update(self._pools.configs)

    def _refused(self, pool: PoolKey, why: str | None) -> None:
        if why is not None:
            log.warning("%s: %s", pool, why)
        self._status_writer.changed(pool)

    def _told(self, pool: PoolKey) -> None:
        served = self._pools.find(pool)
        if served is not None:
            self._metrics.waiting(pool, served.waiting)
        self._status_writer.changed(pool)

    def _entry(self, pool: PoolKey) -> GatewayStatus:
        """What the pool's status shall say of this pod."""
        served = self._pools.find(pool)
        backlog = Backlog() if served is None else served.scheduler.backlog
        return self._nothing.model_copy(
            update={
                "waiting": backlog.waiting,
                "since": backlog.since,
                "refused": self._publisher.refusal(pool),
            }
        )
