"""``buildpool run``: one operator process, from the first connection to the last."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack

import kopf
from prometheus_client import disable_created_metrics, start_http_server

from buildpool import naming
from buildpool.errors import BuildpoolError, NotFoundError
from buildpool.handlers import Operator, kopf_settings, registry
from buildpool.health import health_server
from buildpool.kube.cluster import Cluster, connect
from buildpool.kube.leadership import Election
from buildpool.metrics import Metrics
from buildpool.settings import Settings

log = logging.getLogger(__name__)


async def operate(settings: Settings, *, stop: asyncio.Event, metrics: Metrics) -> bool:
    """Runs the operator; ``stop`` ends it while it waits to lead. False if it lost leadership."""
    async with connect(metrics) as cluster:
        operator = Operator(settings, cluster, metrics)

        async def work() -> None:
            await _require_crd(cluster, settings)
            metrics.leader.set(1)
            # A group: one part that fails ends the whole process, which then starts afresh.
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(operator.sentinel.run()),
                    group.create_task(operator.inspector.run()),
                    group.create_task(operator.sweeper.run()),
                ]
                await _kopf(settings, operator)
                for task in background:
                    task.cancel()

        election = Election(cluster, namespace=settings.namespace, identity=settings.identity)
        async with AsyncExitStack() as stack:
            if settings.health_port:
                # Before it leads: who waits for the leadership is healthy, too.
                server = health_server(settings.health_port, operator.tender.oldest_pass)
                await stack.enter_async_context(server)
            return await election.lead(work, stop)


async def main(settings: Settings) -> bool:
    """Runs the operator until a signal; False if it lost the leadership."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = Metrics()
    if settings.metrics_port:
        start_http_server(settings.metrics_port, registry=metrics.registry)
    return await operate(settings, stop=stop, metrics=metrics)


async def _require_crd(cluster: Cluster, settings: Settings) -> None:
    """Without its CRD there is nothing to watch, and Kopf would wait for it in silence."""
    namespace = next(iter(settings.watch_namespaces), settings.namespace)
    try:
        await cluster.select(naming.KIND, namespace, {})
    except NotFoundError as error:
        raise BuildpoolError(
            f"the cluster does not know {naming.KIND}; install the CRD: "
            f"kubectl apply --server-side -f crds/{naming.PLURAL}.{naming.GROUP}.yaml"
        ) from error


async def _kopf(settings: Settings, operator: Operator) -> None:
    """Runs until a signal: from here on, Kopf has the signals."""
    await kopf.operator(
        registry=registry,
        settings=kopf_settings(),
        memo=operator,
        # By itself, Kopf would ask for the name of the user, and the image's has none.
        identity=settings.identity,  # type: ignore[arg-type]
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
        standalone=True,
    )
