"""The build log: one line for each build that goes through this gateway, and its numbers.

It decides nothing: what a build may do was decided before it stands here. What its daemon says of
it, and what became of a builder that is gone, is asked for afterwards: no client waits for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import grpc

from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Target
from buildpool.gateway.metrics import GatewayMetrics

_NAMES: Final = {str(code.value[0]): code.name for code in grpc.StatusCode}
log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class BuildRecord:
    """One build, as far as it is known."""

    ref: str
    pool: PoolKey
    client: str
    builder: Target
    started: datetime
    waited: timedelta
    imports: tuple[str, ...]
    """The caches that were added for it to import."""
    exports: tuple[str, ...]
    """The caches that were added for it to export."""
    is_internal: bool
    ended: datetime | None = None
    status: str | None = None
    """How it ended, as gRPC counts; None where its client left before."""
    trouble: str | None = None
    """What became of its builder, where it failed for that."""
    steps: tuple[int, int] | None = None
    """Steps that were cached, and all; None where its daemon did not say."""
    is_cancelled: bool = False
    """Whether somebody who may change the pool has ended it."""

    @property
    def duration(self) -> timedelta:
        """How long it ran; nothing where it runs still."""
        return (self.ended or self.started) - self.started

    @property
    def result(self) -> str:
        """How it ended, in one word."""
        if self.trouble:
            return "lost"
        if self.is_cancelled:
            return "cancelled"
        if self.status is None:
            return "abandoned"
        return "succeeded" if self.status == "0" else "failed"


Complete = Callable[[BuildRecord], Awaitable[None]]
"""Completes what is known of a build that has ended."""


class BuildLog:
    """The builds that run. For one event loop."""

    def __init__(self, metrics: GatewayMetrics, *, complete: Complete) -> None:
        self._metrics = metrics
        self._builds: dict[tuple[PoolKey, str], BuildRecord] = {}
        self._complete = complete
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, build: BuildRecord) -> None:
        """A build begins."""
        self._builds[build.pool, build.ref] = build

    def find(self, pool: PoolKey, ref: str) -> BuildRecord | None:
        """A build that runs; None for one that began before this process did."""
        return self._builds.get((pool, ref))

    def close(self, build: BuildRecord, *, now: datetime) -> None:
        """A build has ended, or its client has left."""
        # Clients choose refs: another one may go by it now.
        if self._builds.get((build.pool, build.ref)) is build:
            del self._builds[build.pool, build.ref]
        build.ended = now
        if build.is_internal:
            return
        self._metrics.built(build.pool, build.client, build.result, build.duration)
        task = asyncio.create_task(self._write(build))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, build: BuildRecord) -> None:
        await self._complete(build)
        if build.steps is not None:
            cached, steps = build.steps
            self._metrics.stepped(build.pool, build.client, cached=cached, steps=steps)
        log_build(build)


def log_build(build: BuildRecord) -> None:
    """Writes the line of a build that has ended."""
    fields = {
        "pool": str(build.pool),
        "build": build.ref,
        "client": build.client,
        "builder": build.builder.name,
        "waited": round(build.waited.total_seconds(), 3),
        "duration": round(build.duration.total_seconds(), 3),
        "result": build.result,
        "status": _NAMES.get(build.status or "", build.status),
        "trouble": build.trouble,
        "cachedSteps": build.steps[0] if build.steps else None,
        "steps": build.steps[1] if build.steps else None,
        "imports": ",".join(build.imports) or None,
        "exports": ",".join(build.exports) or None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    words = " ".join(f"{name}={value}" for name, value in known.items())
    log.info("build %s", words, extra={"buildRecord": known})
