"""What a silent collector of traces costs a pool: how soon it serves, builds, and is gone.

Each round a plain pool and a traced one come, build and go, one after the other, in turns:

    ready   from the request to a pool that is Ready
    build   a build of one step on it
    gone    from the deletion to a pool that is gone
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

from bench.builds.test_bench_gateway import timed
from bench.figures import report
from cluster import Api, a_pool, eventually
from e2e.clients import SHORT, client_of, context
from e2e.collectors import silent_collector

ROUNDS = 3
PARTS = ("ready", "build", "gone")


def test_bench_a_pool_whose_collector_is_silent(
    api: Api, shared_namespace: str, tmp_path: Path
) -> None:
    with silent_collector(api, shared_namespace) as collector:
        kinds: dict[str, dict[str, Any]] = {"plain": {}, "traced": {"env": collector.traced()}}
        took: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for number, kind in itertools.product(range(ROUNDS + 1), kinds):
            one = life_of(api, f"{kind}-{number}", shared_namespace, tmp_path, kinds[kind])
            if number:  # the first time images and pages are cold
                took[kind].append(one)
    medians = {
        kind: {part: statistics.median(one[part] for one in ones) for part in PARTS}
        for kind, ones in took.items()
    }
    results = {
        part: {
            **{f"{kind} s": medians[kind][part] for kind in kinds},
            "traced / plain": medians["traced"][part] / medians["plain"][part],
        }
        for part in PARTS
    }
    report("tracing", f"medians of {ROUNDS} rounds, in turns", results)


def life_of(
    api: Api, name: str, namespace: str, folder: Path, builders: dict[str, Any]
) -> dict[str, float]:
    """How long the parts of a pool's life take, in seconds."""

    def start() -> None:
        api.apply(a_pool(name, namespace, builders=builders))
        eventually(
            lambda: api.condition(name, namespace, "Ready").get("status") == "True",
            within=300,
            what=f"{name} is Ready",
        )

    def go() -> None:
        api.must("delete", "bkp", name, "-n", namespace, "--timeout=110s")

    ready = timed(start)
    client = client_of(api, name, namespace, folder / name)
    eventually(client.can_connect, within=60, what=f"{name} can be reached")
    build = timed(lambda: client.build(context(folder / name / "context", SHORT)))
    return {"ready": ready, "build": build, "gone": timed(go)}
