"""What there is of a pool, beside the connections to this gateway. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from buildpool.core.routing.values import Target


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a connection builds."""

    builder: Target
    is_favourite: bool | None = None
    """Whether it is the one that its key likes most; None where nothing was chosen now."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is there of a pool, beside its connections."""

    builders: Sequence[Target] = ()
    """All that there are, those that take no new builds included."""
    builds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Refs of the builds that daemons say they run, by the uid of their pods. Those that were not
    heard, or not lately, are missing."""
    slots: int = 1
    """Builds at once on one builder."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """By client."""
    is_complete: bool = True
    """Whether ``builds`` has what runs on all builders, but for those that do not answer."""

    def builder(self, uid: str) -> Target | None:
        """One of them; None where it is gone."""
        return next((builder for builder in self.builders if builder.uid == uid), None)

    def runner_of(self, ref: str) -> Target | None:
        """The builder whose daemon says that it runs a build; None where none says so."""
        return self.builder(next((uid for uid, refs in self.builds.items() if ref in refs), ""))

    @property
    def serving(self) -> tuple[Target, ...]:
        """Those that are ready to take new builds."""
        return tuple(builder for builder in self.builders if builder.is_serving)

    @property
    def heard(self) -> frozenset[str]:
        """The uids of the builders whose daemons say what they run."""
        return frozenset(self.builds)

    @property
    def takers(self) -> tuple[Target, ...]:
        """Those of ``serving`` that new builds are given to.

        A builder that is not heard may be dead, or too busy to answer: it is used only where there
        is no other.
        """
        serving, heard = self.serving, self.heard
        return tuple(builder for builder in serving if builder.uid in heard) or serving
