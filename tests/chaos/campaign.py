"""One campaign: builds go on while a schedule of disruptions is worked through."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from chaos.builds import Clock, Load, since
from chaos.records import Disruption, Record, Result
from chaos.schedule import Step
from chaos.target import Target

HEAD_START: Final = timedelta(seconds=3)
"""How long builds go on before the first disruption."""
SETTLING: Final = timedelta(seconds=300)
"""How long after the last build all may take to be as it should be."""


def run_campaign(
    target: Target, steps: Sequence[Step], folder: Path, *, seed: int, enough: int
) -> Record:
    """Deploys the target, disrupts it under load, and waits until it has settled again.

    ``enough``: see ``work_through``. What fails here is written down and not raised: it is for the
    caller to judge. Bounded by the schedule and by the patience with the last builds. When
    interrupted, it ends all clients.
    """
    target.deploy()
    began = time.monotonic()

    def clock() -> timedelta:
        return since(began)

    load = Load(target.access, folder, seed=seed, clock=clock)
    disruptions: list[Disruption] = []
    try:
        load.start()
        time.sleep(HEAD_START.total_seconds())
        for step, disruption in work_through(target, steps, clock, enough=enough):
            disruptions.append(disruption)
            _say(step, disruption, load)
        load.end()
    finally:
        load.abort()
    return Record(
        target.title, seed, load.builds(), tuple(disruptions), *_settle(target, folder / "last")
    )


def work_through(
    target: Target, steps: Sequence[Step], clock: Clock, *, enough: int
) -> Iterator[tuple[Step, Disruption]]:
    """One step after the other, until ``enough`` disruptions were done, or there is none left.

    What is refused, is not there or fails does not count.
    """
    done = 0
    for step in steps:
        if done == enough:
            return
        time.sleep(step.pause.total_seconds())
        disruption = _disrupt(target, step, clock)
        done += disruption.result is Result.DONE
        yield step, disruption


def _disrupt(target: Target, step: Step, clock: Clock) -> Disruption:
    started = clock()
    act = target.acts().get(step.kind)
    try:
        result, detail = act(step) if act else (Result.NOT_HERE, "")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        result, detail = Result.FAILED, str(error)
    return Disruption(step.kind, started, clock(), result, detail)


def _settle(target: Target, folder: Path) -> tuple[timedelta | None, str]:
    """How long it took, or why it did not come to that."""
    began = time.monotonic()
    try:
        target.settle(SETTLING.total_seconds())
        settled_after = since(began)
        target.must_take(target.access(folder))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return settled_after, ""


def _say(step: Step, disruption: Disruption, load: Load) -> None:
    """A line for whoever waits."""
    builds = load.builds()
    lost = sum(build.is_lost for build in builds)
    took = disruption.ended - disruption.started
    print(
        f"{disruption.started.total_seconds():6.1f} s  {step.number:3}  {step.kind}: "
        f"{disruption.result} {disruption.detail[:80]} ({took.total_seconds():.1f} s); "
        f"builds {len(builds)}, lost {lost}",
        flush=True,
    )
