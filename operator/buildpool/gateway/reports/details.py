"""What is asked about a build once it has ended: its steps, and what became of its builder.

Best effort: a daemon that is gone says nothing, and the cluster may never say why.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from buildpool.buildkit import Access, Daemon, DaemonError
from buildpool.gateway.pools.served import House
from buildpool.gateway.reports.builds import Build

GONE_PATIENCE: Final = 10.0
"""Seconds in which the cluster says why a builder is gone, if it ever does."""


AT_ONCE: Final = 8
"""Daemons that are asked at once: each costs a handshake."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Completes builds that have ended."""

    house: House
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def __call__(self, build: Build) -> None:
        """Adds what can be found out."""
        if build.result == "lost":
            why = await self.house.trouble(build.builder, patience=GONE_PATIENCE)
            build.trouble = why or build.trouble
            return
        room = self.house.room_of(build.pool)
        if room is None:
            return
        access = Access(room.tenant.trust, room.tenant.upstream)
        async with self._turns:
            daemon = Daemon(build.builder.address, access)
            try:
                build.steps = await daemon.steps(build.ref)
            except DaemonError:
                return
            finally:
                await daemon.close()
