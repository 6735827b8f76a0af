"""Which disruptions come, when, and in which order: a function of a seed.

Pure: no clock and no cluster. It says what shall happen; ``disruptions`` and ``baseline`` say what
that means to the thing that is disrupted.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What can happen to builders, by the words of the report."""

    SCALE_UP = "scale up"
    SCALE_DOWN = "scale down"
    SCALE_BACK = "scale back to its own size"
    IMAGE = "another image"
    ENV = "another environment"
    CONFIG = "another configuration"
    CERTIFICATES = "rotate certificates"
    AUTHORITY = "rotate authority"
    KILL_OPERATOR = "kill -9 the operator"
    KILL_API = "kill -9 the API server"
    EVICT = "evict a builder's pod"
    DELETE = "delete a builder's pod"
    KILL_ROUTER = "kill -9 a router of the gateway"
    ROLL_GATEWAY = "replace the gateway"


ROUND: Final[Mapping[Kind, int]] = {
    kind: 2 if kind in (Kind.SCALE_UP, Kind.SCALE_DOWN, Kind.EVICT, Kind.DELETE) else 1
    for kind in Kind
    if kind not in (Kind.KILL_ROUTER, Kind.ROLL_GATEWAY)
}
"""How often each kind comes in a round. Each round is shuffled anew."""
RARE: Final = {Kind.KILL_API: 3}
"""What comes in the first of so many rounds only. All that watches the API server, kube-proxy too,
pauses twice as long after each end of a connection, up to a minute, unless two minutes are quiet.
Would it end more often, proxies would lead to pods that are long gone, whoever made them go."""
GATEWAY_ROUND: Final[Mapping[Kind, int]] = {
    **ROUND,
    Kind.KILL_ROUTER: 1,
    Kind.ROLL_GATEWAY: 1,
}
"""The same for a pool behind the gateway."""
LIMIT: Final = 2
"""How many steps there are for each disruption that is to be done. A PodDisruptionBudget may refuse
all evictions, and a plain Deployment has no operator to be killed: one step of five, at most."""
SHORTEST_PAUSE: Final = timedelta(seconds=2.0)
LONGEST_PAUSE: Final = timedelta(seconds=2.8)


@dataclass(frozen=True, slots=True)
class Step:
    """One disruption to come."""

    number: int
    """Counted from 1."""
    kind: Kind
    pause: timedelta
    """Time between the end of the one before and this one."""
    draw: float
    """From 0 up to 1: which pod, or how many builders."""

    def among(self, count: int) -> int:
        """The drawn one of so many, counted from 0."""
        return int(self.draw * count)


def schedule(seed: int, count: int, round_: Mapping[Kind, int] = ROUND) -> tuple[Step, ...]:
    """The first ``count`` disruptions of a seed. A longer schedule only goes on further."""
    chance = random.Random(seed)
    kinds = _kinds(chance, round_)
    return tuple(_step(number, next(kinds), chance) for number in range(1, count + 1))


def _kinds(chance: random.Random, round_: Mapping[Kind, int]) -> Iterator[Kind]:
    for number in itertools.count():
        kinds = [
            kind
            for kind, times in round_.items()
            for _ in range(times)
            if number % RARE.get(kind, 1) == 0
        ]
        chance.shuffle(kinds)
        yield from kinds


def _step(number: int, kind: Kind, chance: random.Random) -> Step:
    span = (LONGEST_PAUSE - SHORTEST_PAUSE) * chance.random()
    return Step(number, kind, SHORTEST_PAUSE + span, chance.random())
