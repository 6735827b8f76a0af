"""What is asked about a build once it has ended: its steps, and what became of its builder.

Best effort: a daemon that is gone says nothing, and the cluster may never say why.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from buildpool.buildkit import Daemon, DaemonAccess, DaemonError
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.reports.builds import BuildRecord

GONE_SECONDS: Final = 10.0
"""Time in which the cluster says why a builder is gone, if it ever does."""
MAX_AT_ONCE: Final = 8
"""Daemons that are asked at once: each costs a handshake."""


@dataclass(frozen=True, slots=True)
class Details:
    """Completes builds that have ended."""

    pools: ServedPools
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))

    async def __call__(self, build: BuildRecord) -> None:
        """Adds what can be found out."""
        if build.result == "lost":
            why = await self.pools.trouble(build.builder, patience=GONE_SECONDS)
            build.trouble = why or build.trouble
            return
        served = self.pools.find(build.pool)
        if served is None:
            return
        access = DaemonAccess(served.config.trust, served.config.upstream)
        async with self._turns:
            daemon = Daemon(build.builder.address, access)
            try:
                build.steps = await daemon.steps(build.ref)
            except DaemonError:
                return
            finally:
                await daemon.close()
