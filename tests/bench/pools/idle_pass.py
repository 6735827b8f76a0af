"""Times the pure part of an idle pass, with whatever checkout is imported; a program of its own.

    PYTHONPATH=<checkout>/operator python idle_pass.py WORLD ROUNDS

``WORLD`` is a file with the objects of a pool that is as it should be. Prints the milliseconds of
each round, and how much there was to do, as JSON. May import nothing but ``buildpool``, since any
checkout may be that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

WARM_UP = 5
HOME, IMAGE, GATEWAY = "buildpool-system", "r.example/buildpool:v1", "buildpool-gateway"
Pass = Callable[[dict[str, Any]], bool]
"""Parses, plans and reports on a world; whether there was nothing to do."""


def pass_over(now: datetime) -> Pass:
    """A pass as the checkout makes it: the first shape whose names are there."""
    for shape in (of_a_situation, flat):
        try:
            return shape(now)
        except ImportError:
            continue
    raise SystemExit("this checkout has a shape that is not known here")


def of_a_situation(now: datetime) -> Pass:
    """What a pass knows is one value."""
    from buildpool.core.api import parse_pool
    from buildpool.core.naming import Installation
    from buildpool.core.objects.refs import ref_of
    from buildpool.core.observed.load import Load
    from buildpool.core.observed.observation import Observation
    from buildpool.core.planning.plan import planned
    from buildpool.core.planning.situation import Situation
    from buildpool.core.reporting.outcome import Outcome
    from buildpool.core.reporting.report import report_pass

    def done(world: dict[str, Any]) -> bool:
        pool = parse_pool(world["pool"])
        seen = _observed(world, Observation, Load, ref_of, now)
        s, todo = planned(Situation(pool, seen, Installation(HOME, IMAGE, GATEWAY), now))
        return report_pass(s, todo, Outcome()).events == () and todo.is_empty

    return done


def flat(now: datetime) -> Pass:
    """All modules side by side, as they were until 862d1ac."""
    from buildpool.api import parse_pool
    from buildpool.load import Load
    from buildpool.observation import Observation
    from buildpool.outcome import Outcome
    from buildpool.plan import plan
    from buildpool.resources import ref_of
    from buildpool.verdict import conclude

    def done(world: dict[str, Any]) -> bool:
        pool = parse_pool(world["pool"])
        seen = _observed(world, Observation, Load, ref_of, now)
        where = {"home": HOME, "gateway": GATEWAY, "now": now}
        todo = plan(pool, seen, image=IMAGE, **where)
        return conclude(pool, seen, todo, Outcome(), **where).events == () and todo.is_empty

    return done


def _observed(
    world: dict[str, Any], observation: Any, load: Any, ref_of: Any, now: datetime
) -> Any:
    pods = tuple(world["pods"])
    return observation(
        live={ref_of(obj): obj for obj in world["objects"]},
        pods=pods,
        loads={pod["metadata"]["uid"]: load((), as_of=now) for pod in pods},
    )


def main(file: str, rounds: str) -> None:
    """Prints what was measured."""
    world = json.loads(Path(file).read_text())
    one_pass = pass_over(datetime.fromisoformat(world["now"]))
    times, idle = [], True
    for number in range(WARM_UP + int(rounds)):
        started = time.perf_counter()
        idle &= one_pass(world)
        took = time.perf_counter() - started
        if number >= WARM_UP:
            times.append(1000 * took)
    json.dump({"milliseconds": times, "idle": idle}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
