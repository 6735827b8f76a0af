"""How long a sweep of many blobs in many repositories takes, and how long the lock is held."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.figures import report
from buildpool.sidecars.keeper import removing
from unit.sidecars.kept import Kept
from unit.sidecars.stored import HOUR


async def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    act = removing._for_a_moment

    def timed(things: deque[Any], then: Callable[[Any], object]) -> None:
        begin = time.monotonic()
        act(things, then)
        held.append(time.monotonic() - begin)

    monkeypatch.setattr(removing, "_for_a_moment", timed)
    results = {}
    for blobs, repositories in ((5_000, 50), (20_000, 200), (100_000, 1_000)):
        kept = Kept(tmp_path / str(blobs), scrub=None)
        kept.blob(b"young", "young", age=HOUR)
        for number in range(blobs):
            kept.blob(b"%d" % number, f"app/{number % repositories}")
        held.clear()
        begin = time.monotonic()
        await kept.upkeep.round()
        results[f"{blobs} blobs in {repositories} repositories"] = {
            "round, s": time.monotonic() - begin,
            "lock held in all, s": sum(held),
            "lock held at a time, at most, ms": 1000 * max(held),
        }
    report("sweep", "One round of the keeper that sweeps everything", results)
