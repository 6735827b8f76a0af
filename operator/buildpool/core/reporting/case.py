"""What conditions are judged by: a pass, the builders as they are after it, and common checks.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from buildpool.core.api import BuilderState, BuilderStatus, Reason
from buildpool.core.planning.plan import Plan
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.conflicts import about_taken
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.words import Finding

PATIENT: Final = frozenset(
    {
        Reason.BUILDERS_STARTING,
        Reason.CACHE_RESTING,
        Reason.CACHE_STARTING,
        Reason.CACHE_UNKNOWN,
        Reason.DRAINING,
        Reason.GATEWAY_LOADING,
        Reason.TERMINATING,
    }
)
"""Reasons for not being ready that nobody needs to do anything about."""
_STUCK: Final = frozenset(reason.value for reason in Reason if reason not in PATIENT)


@dataclass(frozen=True)
class Case:
    """What is judged: a pass, and the builders as they are after it."""

    s: Situation
    plan: Plan
    outcome: Outcome
    builders: Sequence[BuilderStatus]
    size: int
    """How many builders there shall be."""
    has_valid_certificates: bool
    """Whether all certificates that there are now are valid."""

    @cached_property
    def serving(self) -> Sequence[BuilderStatus]:
        """The builders that are to stay."""
        return [b for b in self.builders if b.state is not BuilderState.DRAINING]

    @cached_property
    def flawed(self) -> Sequence[BuilderStatus]:
        """Those of them that are to be replaced."""
        names = {member.name for member in self.s.members if member.builder.flaw is not None}
        return [builder for builder in self.serving if builder.name in names]

    @cached_property
    def wanted(self) -> Sequence[BuilderStatus]:
        """Those of them that are as the spec wants them."""
        return [builder for builder in self.serving if builder not in self.flawed]

    @property
    def always(self) -> int:
        """How many builders the spec wants whatever the load is."""
        spec = self.s.pool.spec
        return min(self.size, spec.least if spec.replicas is None else spec.replicas)

    @cached_property
    def ready(self) -> int:
        """How many builders take builds."""
        return sum(builder.ready for builder in self.builders)


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a condition holds, and why."""

    holds: bool
    why: Finding[Reason]


Check: TypeAlias = Callable[[Case], Claim | None]


def is_stuck(builder: BuilderStatus) -> bool:
    """Whether a builder will not come to serve by itself."""
    return not builder.ready and builder.reason in _STUCK


def holds(reason: Reason, message: str) -> Claim:
    """The condition is True."""
    return Claim(True, Finding(reason, message))


def fails(reason: Reason, message: str) -> Claim:
    """The condition is False."""
    return Claim(False, Finding(reason, message))


def words_of(failures: Sequence[Failure]) -> str:
    """What became of each, in one text."""
    return " ".join(str(failure) for failure in failures)


def conflict(case: Case) -> Claim | None:
    """A name is taken on which other objects of the pool depend."""
    if not case.plan.is_blocked:
        return None
    message = f"{about_taken(case.s, case.plan.conflicts)} Nothing was changed."
    return fails(Reason.NAME_CONFLICT, message)


def object_refused(case: Case) -> Claim | None:
    """An object could not be written or removed."""
    failures = case.outcome.failures
    return fails(failures[0].reason, words_of(failures)) if failures else None


def reference_missing(case: Case) -> Claim | None:
    """The spec names something that does not exist."""
    absent = sorted(case.s.observation.absent)
    if not absent:
        return None
    is_secret = absent[0].kind == "Secret"
    names = ", ".join(str(ref) for ref in absent)
    return fails(
        Reason.SECRET_NOT_FOUND if is_secret else Reason.CONFIG_MAP_NOT_FOUND,
        f"The spec names {names}, which does not exist; create it, and the builders start.",
    )
