"""What a campaign writes down: builds and disruptions, as values.

Times are counted from the start of the campaign.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from chaos.schedule import Kind


class BuildKind(StrEnum):
    """What is built, and by which client."""

    SHORT_BUILDCTL = "buildctl, 1 s"
    SHORT_BUILDX = "buildx, 1 s"
    LONG_BUILDCTL = "buildctl, 30 s"
    LONG_BUILDX = "buildx, 30 s"
    LINKED_BAKE = "buildx bake, linked targets"
    CHECK = "buildx build --check"


@dataclass(frozen=True, slots=True)
class Build:
    """One build that has ended."""

    kind: BuildKind
    started: timedelta
    ended: timedelta
    failure: str = ""
    """Why it is lost; empty: it ended well."""
    output: str = ""
    """The last lines that the client of a lost build printed."""

    @property
    def is_lost(self) -> bool:
        """Whether whoever waited for it has got nothing."""
        return bool(self.failure)

    @property
    def took(self) -> timedelta:
        """How long the client waited."""
        return self.ended - self.started


class Result(StrEnum):
    """What became of a disruption."""

    DONE = "done"
    PROTECTED = "protected"
    """A PodDisruptionBudget refused it: a valid outcome, and no disruption."""
    NOT_HERE = "not here"
    """There is no such thing here."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Disruption:
    """One disruption that was tried."""

    kind: Kind
    started: timedelta
    ended: timedelta
    result: Result
    detail: str = ""
    """What it was done to, or why it failed."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that was seen in one campaign."""

    name: str
    """What was disrupted."""
    seed: int
    builds: tuple[Build, ...]
    disruptions: tuple[Disruption, ...]
    settled_after: timedelta | None
    """How long after the last build all was as it should be; None: it never was."""
    trouble: str = ""
    """Why it was not."""

    @property
    def lost(self) -> tuple[Build, ...]:
        """The builds that did not end well."""
        return tuple(build for build in self.builds if build.is_lost)

    def results(self, *results: Result) -> tuple[Disruption, ...]:
        """The disruptions with one of these results."""
        return tuple(one for one in self.disruptions if one.result in results)
