"""The part of the tour about the shared cache: what one builder has built, the next need not."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from demo.clients import build_options, buildctl, forwarded
from demo.lab import Lab, LabError

REPOSITORY: Final = "demo/parallel"
"""Where the project's caches lie below the pool's registry."""


@dataclass(frozen=True, slots=True)
class Round:
    """One build, and what became of its RUN steps."""

    builder: str
    before: str
    cached: int
    steps: int
    seconds: float


def shared_cache(
    lab: Lab, pool: str, namespace: str, certificates: Path, base: Path | None
) -> list[Round]:
    """Builds on one builder, then twice on another that has nothing: once new, once pruned."""
    lab.kubectl("wait", "bkp", pool, "-n", namespace, "--for=condition=CacheReady")
    build = ["build", *build_options(base), *recipe(lab, pool, namespace)]
    prune = ["prune", "--all"]
    first, second = (f"{pool}-builder-{number}" for number in (0, 1))
    rounds = []
    with forwarded(lab, f"deployment/{first}", namespace) as address:
        client = buildctl(certificates, address)
        rounds.append(_round(lab, first, "everything anew", [*client, *build, "--no-cache"]))
    with forwarded(lab, f"deployment/{second}", namespace) as address:
        client = buildctl(certificates, address)
        for before in ("an empty builder", "pruned again"):
            lab.run(*client, *prune)
            rounds.append(_round(lab, second, before, [*client, *build]))
    failed = [found for found in rounds[1:] if found.cached != found.steps or not found.steps]
    if failed:
        raise LabError(f"the cache was not found: {failed}")
    return rounds


def recipe(lab: Lab, pool: str, namespace: str) -> list[str]:
    """The flags that the pool hands out for buildctl, with this project's name filled in."""
    flags = lab.kubectl(
        *("get", "bkp", pool, "-n", namespace, "-o", "jsonpath={.status.cache.buildctl}")
    )
    return lab.run("sh", "-c", f"REPOSITORY={REPOSITORY}; printf '%s\\n' {flags}").split()


def table(rounds: list[Round]) -> Table:
    """The rounds, as people read them."""
    columns = "builder", "before", "RUN steps CACHED", "seconds"
    shown = Table(*columns, box=None, title="The shared cache", title_justify="left")
    for found in rounds:
        steps = f"{found.cached} of {found.steps}"
        shown.add_row(found.builder, found.before, steps, f"{found.seconds:.1f}")
    return shown


def _round(lab: Lab, builder: str, before: str, command: list[str]) -> Round:
    started = time.monotonic()
    progress = lab.run(*command, merged=True)
    seconds = time.monotonic() - started
    steps = set(re.findall(r"^(#\d+) \[.*\] RUN ", progress, re.MULTILINE))
    cached = set(re.findall(r"^(#\d+) CACHED$", progress, re.MULTILINE))
    return Round(builder, before, len(steps & cached), len(steps), seconds)
