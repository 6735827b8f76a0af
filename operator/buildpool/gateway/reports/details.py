"""What is found out about a build once it has ended: its steps, and what became of its builder.

Best effort: a daemon that is gone says nothing, and the cluster may never say why. No daemon is
asked for a build by its ref: BuildKit would keep that record for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from buildpool.buildkit import BuildEvent
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.reports.builds import BuildRecord
from buildpool.gateway.slots.changes import Changes

GONE_SECONDS: Final = 10.0
"""Time in which the cluster says why a builder is gone, if it ever does."""
STEPS_SECONDS: Final = 3.0
"""Time in which a daemon says how many steps a build had; it does so as the build ends."""
MAX_BUILDS: Final = 4096
"""Builds whose steps are kept, for all pools: until their lines are written."""

Steps = tuple[int, int]
"""Steps that were cached, and all."""


class CompletedSteps:
    """The steps of builds that have ended, as their daemons said. For one event loop."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], Steps] = {}
        self._changes = Changes()

    def note(self, uid: str, event: BuildEvent) -> None:
        """The daemon of the pod with this uid says that a build has ended."""
        # Of what a daemon says twice, the later counts. A daemon speaks for its own builds only.
        self._steps.pop((uid, event.build.ref), None)
        self._steps[uid, event.build.ref] = event.steps
        if len(self._steps) > MAX_BUILDS:
            del self._steps[next(iter(self._steps))]
        self._changes.tell()

    async def take(self, uid: str, ref: str) -> Steps | None:
        """The steps of a build, once its daemon says; None where it does not, within seconds."""
        key = uid, ref
        await self._changes.until(lambda: self._steps.get(key), patience=STEPS_SECONDS)
        return self._steps.pop(key, None)


@dataclass(frozen=True, slots=True)
class Details:
    """Completes builds that have ended."""

    pools: ServedPools
    steps: CompletedSteps

    async def __call__(self, build: BuildRecord) -> None:
        """Adds what can be found out."""
        if build.result == "lost":
            why = await self.pools.trouble(build.builder, patience=GONE_SECONDS)
            build.trouble = why or build.trouble
            return
        build.steps = await self.steps.take(build.builder.uid, build.ref)
