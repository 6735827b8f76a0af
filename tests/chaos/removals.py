"""In which order a pool is deleted, the operator killed and the Lease taken: a function of a seed.

Pure: no clock and no cluster. Pauses are no times: each act comes once something has been seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Act(StrEnum):
    """What befalls a pool on which a build runs, by the words of the report."""

    DELETE = "the pool is deleted in the foreground"
    KILL = "kill -9 the operator"
    TAKE = "somebody else takes the Lease"


class Moment(StrEnum):
    """What has to be seen before the next act, by the words of the report."""

    AT_ONCE = "at once"
    STEP = "the build has come to its next step"
    LED = "an operator has led"
    MARKED = "the pool has a deletion timestamp"
    LEAVES = "the builder's pod is told to go"
    TOLD = "the pool says which pod it waits for"


ALWAYS: Final = (Moment.AT_ONCE, Moment.STEP, Moment.LED)
"""What can be seen of a pool that was not deleted."""
DELETED: Final = (*ALWAYS, Moment.MARKED, Moment.LEAVES, Moment.TOLD)
"""What can be seen of one that was."""
AGAIN: Final = ((), (Act.KILL,), (Act.TAKE,))
"""What may happen twice."""
SHORT: Final = (4, 5)
"""The seeds of the short form: deleted first and in the midst, killed with its pod and without."""
LONGEST_THEFT: Final = 6
"""Seconds: shorter than in earnest, where nobody may lead for 15."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One act, and what it comes after."""

    after: Moment
    act: Act
    draw: float
    """From 0 up to 1: in which way."""

    @property
    def takes_the_pod(self) -> bool:
        """Of a killed operator: whether its pod goes, too. Its successor then has to wait until the
        Lease has run out."""
        return self.draw < 0.5

    @property
    def seconds(self) -> int:
        """Of a theft: how long the operators have to respect it."""
        return 1 + int(self.draw * LONGEST_THEFT)

    def __str__(self) -> str:
        """For the report."""
        how = {
            Act.KILL: " and its pod" if self.takes_the_pod else "",
            Act.TAKE: f" for {self.seconds} s",
        }
        return f"{self.after}: {self.act}{how.get(self.act, '')}"


def order(seed: int) -> tuple[Turn, ...]:
    """The turns of a seed: the deletion once, the others once or twice."""
    chance = random.Random(seed)
    acts = [*Act, *chance.choice(AGAIN)]
    chance.shuffle(acts)
    deleted = acts.index(Act.DELETE)
    return tuple(
        Turn(chance.choice(DELETED if number > deleted else ALWAYS), act, chance.random())
        for number, act in enumerate(acts)
    )


def steps(turns: tuple[Turn, ...]) -> int:
    """How many steps the build needs: one to begin with, and those that are waited for."""
    return 1 + sum(turn.after is Moment.STEP for turn in turns)
