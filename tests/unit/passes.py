"""Passes over a pool as the controller makes them, and what they tell.

Either one pass over a world that is given, or a story: a pool in a cluster in memory, where each
pass reads what the one before has done and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from buildpool.core import naming
from buildpool.core.api import (
    BuilderStatus,
    Condition,
    ConditionType,
    EventReason,
    Pool,
    PoolStatus,
)
from buildpool.core.api.events import Event, EventType
from buildpool.core.objects.pods import has_daemon, name_of_builder
from buildpool.core.objects.refs import Object, is_terminating
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.plan import Plan
from buildpool.core.reporting.losses import Sight, look
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.reporting.report import Report, report_pass
from memory_cluster import MemoryCluster
from samples import NOW, a_pool, planned

READY, PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING
CERTIFICATES, ACCEPTED = ConditionType.CERTIFICATES_READY, ConditionType.ACCEPTED
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def judged(
    pool: Pool, observation: Observation, outcome: Outcome | None = None, now: datetime = NOW
) -> Report:
    """The report of a pass that saw this."""
    situation, todo = planned(pool, observation, now=now)
    return report_pass(situation, todo, outcome or Outcome())


def told(verdict: Report) -> list[tuple[EventType, str]]:
    """Its Events, without their messages."""
    return [(event.type, event.reason.value) for event in verdict.events]


def condition(verdict: Report, kind: ConditionType) -> Condition:
    """One of its conditions."""
    found = verdict.status.condition(kind)
    assert found is not None
    return found


def says(verdict: Report, kind: ConditionType) -> tuple[str, str]:
    """Whether a condition holds, and why."""
    found = condition(verdict, kind)
    return found.status.value, found.reason


def with_status(pool: Pool, verdict: Report) -> Pool:
    """The pool as it is read in the next pass."""
    return replace(pool, status=PoolStatus.read(verdict.status.to_dict()))


def with_pods(observation: Observation, *pods: dict[str, Any]) -> Observation:
    """The same world with other pods, of whose daemons nothing is known yet."""
    return replace(observation, pods=pods)


@dataclass
class Story:
    """A pool that is tended. A pass takes five seconds; pods come and go meanwhile."""

    pool: Pool
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    builds: dict[str, tuple[RunningBuild, ...] | None] = field(default_factory=dict)
    """What runs, by builder; nothing where it is not named; None: its daemon does not answer."""
    events: list[Event] = field(default_factory=list)
    """All that was ever told, the oldest first."""
    sights: Mapping[str, Sight] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The time in the story."""
        return self.cluster.now

    def wait(self, time: timedelta) -> None:
        """Nothing happens for a while."""
        self.cluster.now += time

    def change(self, **spec: Any) -> None:
        """A user writes another spec."""
        self.pool = a_pool(status=self.pool.status, **spec)

    def ask(self, rotation: str | None) -> None:
        """A user asks for new certificates, or the operator has carried it out."""
        annotations = {naming.ANNOTATION_ROTATE: rotation} if rotation else {}
        self.pool = replace(self.pool, annotations=annotations)

    def start(self, builder: int, *refs: str) -> None:
        """Builds begin now."""
        name = f"ci-builder-{builder}"
        new = tuple(RunningBuild(ref, self.now) for ref in refs)
        self.builds[name] = (*(self.builds.get(name) or ()), *new)

    def finish(self, builder: int) -> None:
        """All its builds are over."""
        self.builds.pop(f"ci-builder-{builder}", None)

    def silence(self, builder: int) -> None:
        """Its daemon answers no more."""
        self.builds[f"ci-builder-{builder}"] = None

    def pod(self, builder: int) -> Object:
        """The pod of a builder, to be looked at or edited by a test."""
        name = f"ci-builder-{builder}"
        return next(pod for pod in self.cluster.pods.values() if name_of_builder(pod) == name)

    def observe(self) -> Observation:
        """What a pass sees."""
        observation = self.cluster.observe(self.pool)
        loads = {
            pod["metadata"]["uid"]: Load(builds, as_of=self.now)
            for pod in observation.pods
            # One that is told to go is not asked any more.
            if has_daemon(pod) and not is_terminating(pod)
            if (builds := self.builds.get(name_of_builder(pod), ())) is not None
        }
        return replace(observation, loads=loads)

    def look(self) -> Report:
        """One pass, and what the cluster makes of it."""
        seen = self.observe()
        self.sights, lost = look(self.sights, seen)
        situation, todo = planned(self.pool, seen, now=self.now)
        outcome = Outcome(done=_done(todo))
        verdict = report_pass(situation, todo, outcome).after(lost)
        self.cluster.act(todo)
        self.cluster.roll()
        self.cluster.pods = {
            name: pod
            for name, pod in self.cluster.pods.items()
            if not is_terminating(pod) or self.builds.get(name_of_builder(pod))
        }
        self.pool = with_status(self.pool, verdict)
        self.events += verdict.events
        self.cluster.now += 5 * SECOND
        return verdict

    def settle(self, *, most: int = 30) -> Report:
        """Passes until one changes nothing; the last one."""
        for _ in range(most):
            before = self.pool.status
            if self.look().status == before:
                return self.look()
        raise AssertionError(f"it never settles: {self.pool.status}")

    def builder(self, number: int) -> BuilderStatus:
        """What was reported last of a builder."""
        name = f"ci-builder-{number}"
        return next(each for each in self.pool.status.builders if each.name == name)

    def names(self) -> list[str]:
        """The builders that were reported last."""
        return [builder.name for builder in self.pool.status.builders]

    def heard(self, *reasons: EventReason) -> list[str]:
        """The messages of all Events with these reasons."""
        return [event.message for event in self.events if event.reason in reasons]


def told_story(**spec: Any) -> Story:
    """A pool that is as its spec wants it."""
    story = Story(a_pool(**spec))
    story.settle()
    return story


def _done(todo: Plan) -> tuple[Event, ...]:
    changes = (*todo.mark, *todo.apply, *todo.delete)
    return tuple(
        Event(EventType.NORMAL, change.reason, change.message)
        for change in changes
        if change.reason is not None
    )
