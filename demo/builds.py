"""The builds of the tour: the first, many at once, and one that finds everything in the cache."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from demo.clients import Client
from demo.lab import Lab, LabError

AT_ONCE: Final = 8
"""Builds that are started at the same moment."""
ROOM: Final = 4
"""Slots that the pool has for them."""


@dataclass(frozen=True, slots=True)
class Round:
    """One build, and what became of its RUN steps."""

    what: str
    cached: int
    steps: int
    seconds: float


def one_build(what: str, client: Client, *options: str) -> Round:
    """A build with docker buildx."""
    started = time.monotonic()
    progress = client.buildx(*options)
    seconds = time.monotonic() - started
    steps = set(re.findall(r"^(#\d+) \[.*\] RUN ", progress, re.MULTILINE))
    cached = set(re.findall(r"^(#\d+) CACHED$", progress, re.MULTILINE))
    return Round(what, len(steps & cached), len(steps), seconds)


def many_at_once(lab: Lab, client: Client, pool: str, namespace: str) -> tuple[list[float], int]:
    """Builds by both clients, started together: how long each took, and how many waited at most."""

    def build(number: int) -> float:
        started = time.monotonic()
        (client.buildctl_build if number % 2 else client.buildx)("--no-cache")
        return time.monotonic() - started

    waiting = 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        builds = [threads.submit(build, number) for number in range(AT_ONCE)]
        while not all(each.done() for each in builds):
            path = "jsonpath={.status.waiting}"
            said = lab.kubectl("get", "bkp", pool, "-n", namespace, "-o", path)
            waiting = max(waiting, int(said or 0))
            time.sleep(0.3)
        try:
            return sorted(each.result() for each in builds), waiting
        except subprocess.TimeoutExpired as error:
            raise LabError(f"a build did not end: {error}") from error


def table(rounds: Sequence[Round]) -> Table:
    """The rounds, as people read them."""
    columns = "docker buildx build", "RUN steps CACHED", "seconds"
    shown = Table(*columns, box=None, title="One project, no cache flag", title_justify="left")
    for found in rounds:
        shown.add_row(found.what, f"{found.cached} of {found.steps}", f"{found.seconds:.1f}")
    return shown
