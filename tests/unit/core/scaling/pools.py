"""Pools of builders as the decisions see them, and a small world that carries decisions out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from buildpool.core.api import PoolSpec, RetireReason
from buildpool.core.api.warmth import Warmth
from buildpool.core.scaling import SETTLE, Builder, Decision, LastDecision, decide
from buildpool.core.words import Finding
from samples import DAY, NOW

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
IDLE_AFTER = 10 * MINUTE
MAX_BUILD = timedelta(hours=2)
OUTDATED = Finding(RetireReason.OUTDATED, "The image changed.")


def a_spec(
    *,
    replicas: int | None = None,
    slots: int = 2,
    surge: int = 1,
    unavailable: int = 0,
    idle_after: str = "10m",
    **scaling: Any,
) -> PoolSpec:
    """A spec as a user writes it; what is left over is ``scaling``. A minimum of 0 is allowed."""
    raw: dict[str, Any] = {
        "replicas": replicas,
        "builders": {
            "slots": slots,
            "rollout": {"maxSurge": surge, "maxUnavailable": unavailable},
        },
        "scaling": {"idleAfter": idle_after, **scaling},
    }
    smallest = raw["scaling"].get("min", 1)
    spec = PoolSpec.model_validate(raw | {"scaling": raw["scaling"] | {"min": smallest or 1}})
    # No routing can wake a pool yet, so that no spec is valid with a minimum of 0.
    scaled = spec.scaling.model_copy(update={"min": smallest})
    return spec.model_copy(update={"scaling": scaled})


def a_builder(index: int = 0, builds: int | None = 0, **overrides: Any) -> Builder:
    """A builder that is ready and a day old; the others are a minute younger each."""
    fields = {"created": NOW - DAY + index * MINUTE, "is_ready": True, "as_of": NOW, **overrides}
    return Builder(index=index, builds=builds, **fields)


def builders(*builds: int | None, **overrides: Any) -> list[Builder]:
    """Builders 0, 1 and so on, with so many builds each."""
    return [a_builder(index, each, **overrides) for index, each in enumerate(builds)]


def decided(
    spec: PoolSpec,
    pool: Sequence[Builder],
    *,
    taken: Iterable[int] = (),
    memory: LastDecision | None = None,
    warmth: Warmth | None = None,
    now: datetime = NOW,
) -> Decision:
    """The decision about a pool of which nothing is remembered, if nothing else is said."""
    numbers = frozenset(taken)
    return decide(
        spec, pool, taken=numbers, memory=memory or LastDecision(), warmth=warmth, now=now
    )


def applied(pool: Sequence[Builder], decision: Decision, *, now: datetime = NOW) -> list[Builder]:
    """The pool once the decision has been carried out. New builders are not ready."""
    retired: dict[int, datetime | None] = {retirement.index: now for retirement in decision.retire}
    retired |= dict.fromkeys(decision.restore)
    kept = [builder for builder in pool if builder.index not in decision.remove]
    return [
        *(replace(each, retired=retired.get(each.index, each.retired)) for each in kept),
        *(a_builder(index, created=now, is_ready=False, as_of=now) for index in decision.add),
    ]


def serving(pool: Iterable[Builder]) -> list[Builder]:
    return [builder for builder in pool if builder.retired is None]


def current(pool: Iterable[Builder]) -> list[Builder]:
    return [builder for builder in serving(pool) if builder.flaw is None]


def ready(pool: Iterable[Builder]) -> int:
    """How many builders take builds."""
    return sum(builder.is_ready for builder in serving(pool))


def indexes(pool: Iterable[Builder]) -> set[int]:
    return {builder.index for builder in pool}


def is_empty(decision: Decision) -> bool:
    """Whether nothing is to be done."""
    return not (decision.add or decision.restore or decision.retire or decision.remove)


# --- any pool there may be -----------------------------------------------------------------------


@st.composite
def specs(draw: st.DrawFn, *, replicas: bool = True) -> PoolSpec:
    """Small specs of every shape."""
    smallest = draw(st.integers(0, 4))
    surge = draw(st.integers(0, 3))
    return a_spec(
        replicas=draw(st.none() | st.integers(0, 6)) if replicas else None,
        slots=draw(st.integers(1, 4)),
        surge=surge,
        unavailable=draw(st.integers(0 if surge else 1, 3)),
        idle_after=draw(st.sampled_from(["1s", "30s", "10m"])),
        min=smallest,
        max=draw(st.integers(max(1, smallest), 8)),
        targetUtilization=draw(st.sampled_from([1, 33, 50, 80, 99, 100])),
    )


_ages = st.sampled_from(
    [timedelta(), SECOND, SETTLE, MINUTE, IDLE_AFTER, MAX_BUILD, MAX_BUILD + IDLE_AFTER, DAY]
)
_offsets = st.sampled_from([-MINUTE, -SECOND, timedelta(), SECOND])
_moments = st.builds(lambda age, offset: NOW - age + offset, _ages, _offsets)


@st.composite
def pools(draw: st.DrawFn) -> list[Builder]:
    """Up to eight builders of every kind, in any order."""
    return [
        Builder(
            index=index,
            created=NOW - draw(_ages),
            is_ready=draw(st.booleans()),
            builds=(builds := draw(st.sampled_from([0, 0, 1, 2, 5, None]))),
            fresh=draw(st.integers(0, builds or 0)),
            as_of=draw(st.none() | _moments),
            flaw=draw(st.sampled_from([None, None, OUTDATED])),
            retired=draw(st.none() | st.none() | _moments),
            overdue=draw(st.none() | _moments),
        )
        for index in draw(st.lists(st.integers(0, 11), max_size=8, unique=True))
    ]


# --- a world -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Truth:
    """What really is the case with a builder, whatever anybody knows of it."""

    index: int
    created: datetime
    revision: int
    is_ready: bool = False
    builds: int = 0
    is_silent: bool = False
    retired: datetime | None = None


@dataclass
class World:
    """A cluster with one pool. Decisions are carried out as they should be: a builder is removed
    only if nobody touched it since it was looked at, which is what its resource version says."""

    spec: PoolSpec
    now: datetime = NOW
    revision: int = 0
    """Builders of another one have a flaw."""
    is_broken: bool = False
    """Whether builders of the present revision never become ready."""
    memory: LastDecision = field(default_factory=LastDecision)
    builders: dict[int, Truth] = field(default_factory=dict)
    killed: list[Truth] = field(default_factory=list)
    """Builders that were removed while builds ran on them."""

    @classmethod
    def of(cls, spec: PoolSpec, pool: Iterable[Builder], memory: LastDecision) -> World:
        """A world with this pool; its builders with a flaw are of revision 1."""
        truths = (
            Truth(
                index=builder.index,
                created=builder.created,
                revision=0 if builder.flaw is None else 1,
                is_ready=builder.is_ready,
                builds=builder.builds or 0,
                is_silent=builder.builds is None,
                retired=builder.retired,
            )
            for builder in pool
        )
        return cls(spec, memory=memory, builders={truth.index: truth for truth in truths})

    def observed(self) -> list[Builder]:
        """What an operator sees now."""
        return [
            Builder(
                index=truth.index,
                created=truth.created,
                is_ready=truth.is_ready,
                builds=None if truth.is_silent else truth.builds,
                as_of=None if truth.is_silent else self.now,
                flaw=None if truth.revision == self.revision else OUTDATED,
                retired=truth.retired,
                overdue=self._reported(truth),
            )
            for truth in self.builders.values()
        ]

    def _reported(self, truth: Truth) -> datetime | None:
        """When it was told that a builder's builds are overdue: at once."""
        late = truth.retired + MAX_BUILD if truth.retired else None
        return late if late and late <= self.now else None

    def decided(self, seen: Sequence[Builder] | None = None) -> Decision:
        pool = self.observed() if seen is None else seen
        return decided(self.spec, pool, memory=self.memory, now=self.now)

    def apply(self, decision: Decision, seen: Sequence[Builder]) -> None:
        """Carries out what somebody decided who saw this."""
        was = {builder.index: builder for builder in seen}
        untouched = {
            index
            for index, truth in self.builders.items()
            if index in was and (truth.created, truth.retired) == _version(was[index])
        }
        self.memory = LastDecision(decision.size, decision.calm)
        for retirement in decision.retire:
            if retirement.index in untouched:
                self.builders[retirement.index].retired = self.now
        for index in untouched.intersection(decision.restore):
            self.builders[index].retired = None
        for index in untouched.intersection(decision.remove):
            gone = self.builders.pop(index)
            if gone.builds:
                self.killed.append(gone)
        for index in decision.add:
            self.builders.setdefault(index, Truth(index, self.now, self.revision))

    def step(self) -> Decision:
        """One pass of one operator."""
        seen = self.observed()
        decision = self.decided(seen)
        self.apply(decision, seen)
        return decision

    def start_builders(self) -> None:
        """Builders become ready, if they can."""
        for truth in self.builders.values():
            if not (self.is_broken and truth.revision == self.revision):
                truth.is_ready = True

    def start_build(self, number: int) -> None:
        """A build begins on one of the builders that can be reached."""
        reached = [
            truth
            for truth in self.builders.values()
            if truth.is_ready and (truth.retired is None or self.now < truth.retired + SETTLE)
        ]
        if reached:
            reached[number % len(reached)].builds += 1

    def end_build(self, number: int) -> None:
        busy = [truth for truth in self.builders.values() if truth.builds]
        if busy:
            busy[number % len(busy)].builds -= 1

    def one(self, number: int) -> Truth | None:
        """Any of the builders."""
        truths = list(self.builders.values())
        return truths[number % len(truths)] if truths else None


def _version(builder: Builder) -> tuple[datetime, datetime | None]:
    return builder.created, builder.retired
