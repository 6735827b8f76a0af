"""What it costs to decide that a pool is as it should be, by how many clients it has. No cluster.

    python -m pytest tests/bench/pools/test_bench_idle_pass.py -q -s

With ``BENCH_AGAINST=<another checkout>``, it takes turns with that one, each on a pool as it would
have it. Prints a table and writes ``build/bench/idle_pass.json``. Nothing is asserted of times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from bench.figures import report
from bench.pools import a_world, idle_pass
from cluster import PROJECT
from samples import GATEWAY, HOME, OWN_IMAGE

CLIENTS = (1, 10, 64)
"""A pool has 64 at most."""
BUILDERS = 2
TURNS, ROUNDS = 4, 15
AGAINST = os.environ.get("BENCH_AGAINST")


def test_an_idle_pass(tmp_path: Path) -> None:
    assert (idle_pass.HOME, idle_pass.IMAGE, idle_pass.GATEWAY) == (HOME, OWN_IMAGE, GATEWAY)
    results: dict[str, dict[str, float]] = {}
    for number in CLIENTS:
        checkouts = {"here": PROJECT} | ({"there": Path(AGAINST)} if AGAINST else {})
        worlds = {
            name: made(tmp_path / f"{name}-{number}.json", checkout, number)
            for name, checkout in checkouts.items()
        }
        times: dict[str, list[float]] = {name: [] for name in checkouts}
        for _ in range(TURNS):
            for name, checkout in checkouts.items():
                times[name] += measured(worlds[name], checkout)
        figures = {}
        for name, found in times.items():
            figures |= {
                f"{name}: median ms": median(found),
                f"{name}: min ms": min(found),
                f"{name}: max ms": max(found),
            }
        if AGAINST:
            figures["median here / there"] = median(times["here"]) / median(times["there"])
            figures["min here / there"] = min(times["here"]) / min(times["there"])
        results[f"{number} clients"] = figures
    report("idle_pass", f"an idle pass over {BUILDERS} builders, {TURNS * ROUNDS} rounds", results)


def made(world: Path, checkout: Path, number: int) -> Path:
    """A pool with so many clients as that checkout would have it, in a file."""
    home = f"{checkout / 'operator'}{os.pathsep}{checkout / 'tests'}"
    done = subprocess.run(
        [sys.executable, a_world.__file__, str(number), str(BUILDERS)],
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    world.write_text(done.stdout)
    return world


def measured(world: Path, checkout: Path) -> list[float]:
    """The milliseconds of each round, in a process of a checkout's."""
    done = subprocess.run(
        [sys.executable, idle_pass.__file__, world, str(ROUNDS)],
        env={**os.environ, "PYTHONPATH": str(checkout / "operator")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["idle"], f"{checkout}: the pool is not idle"
    times: list[float] = found["milliseconds"]
    return times
