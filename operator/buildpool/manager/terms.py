"""``buildpool run``: one operator process, from the first connection to the last.

It works in terms of leadership. A term ends at once when the Lease is lost, and in good order when
the process is asked to end. After a lost term the process waits for the next. Of the parts that run
beside the passes, one that fails is started again, and the others go on: only what keeps a term
from beginning, such as a missing CRD, is a reason to exit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final, Protocol

import kopf
from prometheus_client import CollectorRegistry

from buildpool.controller.metrics import PoolMetrics
from buildpool.core import naming, pauses
from buildpool.core.errors import BuildpoolError, NotFoundError, RefusedError, UnavailableError
from buildpool.core.objects.refs import Object
from buildpool.kube.cluster import Cluster, connect
from buildpool.kube.leadership import Election
from buildpool.kube.metrics import RequestMetrics
from buildpool.manager import handlers
from buildpool.manager.assembly import Operator, Round
from buildpool.process import health_pages, on_signal, serve_metrics
from buildpool.settings import Settings

FIRST_PAUSE_SECONDS: Final = 5.0
"""Seconds from a term that the API server made impossible to the next try; doubled each time."""
LAST_PAUSE_SECONDS: Final = 30.0
FIRST_RESTART_SECONDS: Final = 1.0
"""Seconds from a part that failed to its next start; doubled each time."""
LAST_RESTART_SECONDS: Final = 60.0
CALM_SECONDS: Final = 300.0
"""Seconds after which what has run so long is no longer thought to fail again and again."""
END_SECONDS: Final = 30.0
"""How long the end of a term may take; Kopf needs two or three."""
MAX_PASS_SECONDS: Final = 600.0
"""A pass that takes longer hangs: every request in it has a time limit."""
log = logging.getLogger(__name__)


class Watch(Protocol):
    """What has pools tended as they come and change."""

    async def __call__(
        self, operator: Operator, stop: asyncio.Event, *, ignored: set[asyncio.Task[Any]]
    ) -> None:
        """Goes on until ``stop``."""


async def operate(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """Runs the operator until ``stop``, term after term. Its metrics are in ``registry``."""
    operator: Operator | None = None
    metrics, requests = PoolMetrics(registry), RequestMetrics(registry)

    def hangs() -> str | None:
        age = operator.loop.oldest_pass() if operator else 0.0
        return f"a pass has been running for {age:.0f} s" if age > MAX_PASS_SECONDS else None

    async with AsyncExitStack() as stack:
        # Before it leads: a process that waits for the leadership is healthy, too.
        await stack.enter_async_context(health_pages(settings.health_port, {"/healthz": hangs}))
        # The Lease has a connection of its own: renewing it never waits behind anything else, and
        # not on one of many connections that may be dead.
        own = await stack.enter_async_context(connect(requests))
        election = Election(
            own, namespace=settings.namespace, identity=settings.identity, name=settings.lease
        )
        failures, clock = 0, asyncio.get_running_loop().time
        while not stop.is_set():
            started = clock()
            # As in a new process: others may have acted meanwhile, so nothing is remembered.
            async with connect(requests) as cluster:
                cluster.only_while(election.is_respected)
                operator = Operator(settings, cluster, metrics)
                try:
                    await election.lead(partial(term, operator, cluster, metrics, stop), stop)
                except UnavailableError:
                    failures = failures + 1 if clock() < started + CALM_SECONDS else 1
                    pause = pauses.growing(
                        failures, first=FIRST_PAUSE_SECONDS, last=LAST_PAUSE_SECONDS
                    )
                    pause = pauses.spread(pause, chance=random.random())  # noqa: S311
                    log.exception("This term has failed, another is tried in %.1f s.", pause)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await stop.wait()


async def main(settings: Settings) -> None:
    """Runs the operator until a signal."""
    stop, registry = asyncio.Event(), CollectorRegistry()
    on_signal(stop.set)
    serve_metrics(settings.metrics_port, registry)
    await operate(settings, stop=stop, registry=registry)


async def term(
    operator: Operator,
    cluster: Cluster,
    metrics: PoolMetrics,
    stop: asyncio.Event,
    *,
    watch: Watch | None = None,
) -> None:
    """Acts until ``stop``, or until the watches end. When cancelled, nothing is done any more.

    ``watch`` tends the pools meanwhile; None: by Kopf.
    """
    parts: set[asyncio.Task[Any]] = set()
    try:
        operator.turns.resume(await pools_of(cluster, operator.settings))
        metrics.leader.set(1)
        others = asyncio.all_tasks()
        parts |= {asyncio.create_task(kept_up(each)) for each in operator.rounds}
        parts.add(asyncio.create_task(stop.wait()))
        watching = asyncio.create_task((watch or _kopf)(operator, stop, ignored=others | parts))
        parts.add(watching)
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            # Kopf ends by itself. The others before it: it would wait for what they have started.
            for part in parts - {watching}:
                part.cancel()
            await asyncio.wait({watching})
    except asyncio.CancelledError:
        # Kopf has to end in its own order (cancelled one by one, its tasks wait for each other for
        # ever), in some seconds, and still lets passes run. None of their requests gets out.
        cluster.cut()
        raise
    finally:
        metrics.leader.set(0)
        overdue = asyncio.get_running_loop().call_later(END_SECONDS, _give_up)
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await operator.loop.end()  # Kopf skips it where it was stopping already
        overdue.cancel()
    for part in parts:
        if not part.cancelled():
            part.result()


async def kept_up(part: Round, *, chance: Callable[[], float] = random.random) -> None:
    """Runs one part for ever: one that fails is started again, and no other notices."""
    failures, clock = 0, asyncio.get_running_loop().time
    while True:
        started = clock()
        try:
            await part.run()
            error: Exception | None = None
        except Exception as raised:  # noqa: BLE001 - whatever it is, pools have to be tended
            error = raised
        failures = failures + 1 if clock() < started + CALM_SECONDS else 1
        pause = pauses.growing(failures, first=FIRST_RESTART_SECONDS, last=LAST_RESTART_SECONDS)
        pause = pauses.spread(pause, chance=chance())
        told = f"{type(part).__name__} has ended and is started again in {pause:.1f} s"
        log.error(told, exc_info=error)
        await asyncio.sleep(pause)


def _give_up() -> None:
    """Should Kopf hang where a term ends, there would never be another one in this process."""
    log.critical("This term does not end within %g s; the process does.", END_SECONDS)
    os._exit(1)


async def pools_of(cluster: Cluster, settings: Settings) -> list[Object]:
    """All pools that are tended.

    Without its CRD there is nothing to watch, and Kopf would wait for it in silence: that ends the
    process.
    """
    pools: list[Object] = []
    for namespace in settings.watch_namespaces or ("",):
        try:
            pools += await cluster.select(naming.KIND, namespace, {})
        except NotFoundError as error:
            raise BuildpoolError(
                f"the cluster does not know {naming.KIND}; install the CRD: "
                f"kubectl apply --server-side -f crds/{naming.PLURAL}.{naming.GROUP}.yaml"
            ) from error
        except RefusedError as error:  # a namespace is gone, and our rights in it
            log.warning("The pools in namespace %s could not be listed: %s", namespace, error)
    return pools


async def _kopf(
    operator: Operator, stop: asyncio.Event, *, ignored: set[asyncio.Task[Any]]
) -> None:
    """Runs until ``stop``."""
    settings = operator.settings
    tasks = await kopf.spawn_tasks(
        registry=handlers.registry,
        settings=handlers.kopf_settings(),
        memo=operator,
        # By itself, Kopf would ask for the name of the user, and the image's has none.
        identity=settings.identity,  # type: ignore[arg-type]
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
        standalone=True,
        stop_flag=stop,
    )
    on_signal(stop.set)  # back from Kopf, which has just taken them, but would not keep them
    try:
        await kopf.run_tasks(tasks, ignored=ignored)
    except Exception as error:
        # Whatever the API server has answered to a watch: it may answer the next one better.
        raise UnavailableError(f"the watches have ended: {error!r}") from error
