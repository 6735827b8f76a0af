"""What builders' pods take of memory, asked of the metrics API outside of the passes.

That API is somebody else's program behind the API server, and the first to be down when a cluster
is in trouble. So a pass gets the last answer, and never waits for one. Needs one list for each
namespace in which a pool asks for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from buildpool.core import naming, pauses
from buildpool.core.api.quantity import parse_bytes
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import JSON
from buildpool.kube.cluster import Cluster

INTERVAL_SECONDS: Final = 60.0
"""Seconds between two questions for one namespace; as often as a metrics server measures."""
PATIENCE_SECONDS: Final = 2.0
"""Seconds that an answer may take, tries again included."""
MAX_AGE_SECONDS: Final = 300.0
"""Seconds after which an answer counts no more."""
LAST_RETRY_SECONDS: Final = 600.0
"""Seconds between two questions, at most, while there is no answer; doubled from
``INTERVAL_SECONDS``."""
AT_ONCE: Final = 4
"""Namespaces asked for at a time."""
log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Namespace:
    due: float = 0.0
    failures: int = 0
    as_of: float = 0.0
    usage: dict[str, int] = field(default_factory=dict)
    """Bytes, by pod."""


class MemoryPoller:
    """What the pods of pools take that ask for it. For one event loop."""

    def __init__(self, cluster: Cluster, *, chance: Callable[[], float] = random.random) -> None:
        """``chance`` gives numbers from 0 up to 1, by which pauses are spread."""
        self._cluster = cluster
        self._chance = chance
        self._wanted: set[PoolKey] = set()
        self._namespaces: dict[str, _Namespace] = {}
        self._is_new = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def watch(self, pool: PoolKey) -> Mapping[str, int]:
        """The bytes that pods of the pool's namespace took a while ago; from now on it is asked.

        By the names of pods, and those of other pools among them.
        """
        self._wanted.add(pool)
        if pool.namespace not in self._namespaces:
            self._namespaces[pool.namespace] = _Namespace()
            self._is_new.set()
        known = self._namespaces[pool.namespace]
        if asyncio.get_running_loop().time() > known.as_of + MAX_AGE_SECONDS:
            return {}
        return known.usage

    def forget(self, pool: PoolKey) -> None:
        """Asks no more for a pool."""
        self._wanted.discard(pool)
        if all(wanted.namespace != pool.namespace for wanted in self._wanted):
            self._namespaces.pop(pool.namespace, None)

    async def run(self) -> None:
        """Goes on for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            self._is_new.clear()
            due = [name for name, known in self._namespaces.items() if known.due <= clock()]
            await asyncio.gather(*(self._ask(name) for name in due))
            moments = [known.due for known in self._namespaces.values()]
            pause = max(0.0, min(moments, default=clock() + INTERVAL_SECONDS) - clock())
            try:
                async with asyncio.timeout(pause):
                    await self._is_new.wait()
            except TimeoutError:
                continue

    async def _ask(self, namespace: str) -> None:
        labels = naming.installation_selector(naming.COMPONENT_BUILDER)
        clock = asyncio.get_running_loop().time
        async with self._slots:
            known = self._namespaces.get(namespace)
            if known is None:
                return  # forgotten while it waited
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    found = await self._cluster.select("PodMetrics", namespace, labels)
                known.usage, known.as_of, known.failures = _usage(found), clock(), 0
            except Exception as error:  # noqa: BLE001 - whatever it is, it is asked again
                known.failures += 1
                if known.failures == 1:
                    _log(namespace, error)
            pause = pauses.growing(known.failures, first=INTERVAL_SECONDS, last=LAST_RETRY_SECONDS)
            known.due = clock() + pauses.spread(pause, chance=self._chance())


def _usage(found: Iterable[JSON]) -> dict[str, int]:
    usage = {}
    for pod in found:
        try:
            sizes = (container["usage"]["memory"] for container in pod["containers"])
            usage[pod["metadata"]["name"]] = sum(map(parse_bytes, sizes))
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            log.debug("A pod's metrics cannot be read: %r", error)
    return usage


def _log(namespace: str, error: Exception) -> None:
    is_known = isinstance(error, KubernetesError | TimeoutError)
    told = str(error) or f"no answer within {PATIENCE_SECONDS:g} s"
    log.warning(
        "Namespace %s: builders.recycle.maxMemory rests: %s",
        namespace,
        told,
        exc_info=None if is_known else error,
    )
