"""The builders of a pool as they are: from live objects and what daemons say to what is decided on.

Pure. A builder is one Deployment; which one, how long and why it is to go stands in its
annotations, so that a restarted operator knows as much as the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from buildpool.core import naming
from buildpool.core.api import Pool, RetireReason, Routing
from buildpool.core.api.quantity import format_bytes, parse_bytes
from buildpool.core.api.status import format_time
from buildpool.core.objects.pods import has_daemon, is_ready, serves
from buildpool.core.objects.refs import Object, Ref, moment_at
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.resources.deployment import revision_of
from buildpool.core.scaling import FRESH, Builder
from buildpool.core.words import Finding


@dataclass(frozen=True, slots=True)
class Member:
    """One builder with all that was seen of it."""

    name: str
    deployment: Object
    pods: tuple[Object, ...]
    """The pods that are to stay: one, or for a while its successor beside it."""
    builds: tuple[RunningBuild, ...]
    """What is known to run on it."""
    served: int
    """Builds it has started, as far as was seen."""
    builder: Builder
    is_held: bool = False
    """Whether it runs something else than it shall, and is not to be replaced for that yet."""

    @property
    def ref(self) -> Ref:
        """Its Deployment."""
        return Ref("Deployment", self.deployment["metadata"]["namespace"], self.name)

    @property
    def is_current(self) -> bool:
        """Whether it runs what the spec wants."""
        flaw = self.builder.flaw
        return flaw is None or flaw.reason is not RetireReason.OUTDATED

    @property
    def revision(self) -> str:
        """What it runs."""
        return revision_of(self.deployment)


def member_of(
    pool: Pool,
    index: int,
    deployment: Object,
    pods: tuple[Object, ...],
    *,
    loads: Mapping[str, Load],
    memory: Mapping[str, int],
    revision: str,
    waits: bool,
    now: datetime,
) -> Member:
    """One builder, by its Deployment and its pods that are to stay.

    ``loads`` and ``memory`` are those of all pods, by uid and by name; ``revision`` is what
    builders shall run, and ``waits`` whether it is not yet a reason to replace them.
    """
    name = naming.builder(pool.key, index)
    asked = [loads.get(pod["metadata"]["uid"]) for pod in pods if has_daemon(pod)]
    is_current = revision_of(deployment) == revision
    known = [load for load in asked if load is not None]
    metadata = deployment["metadata"]
    created = moment_at(metadata, "creationTimestamp") or now
    retired = moment_at(metadata, "annotations", naming.ANNOTATION_RETIRED)
    # Who is retired already, for a reason of its own, and who has no daemon waits for nothing: the
    # one must not serve again, and the other could not start with what it was made for.
    lives = any(is_ready(pod) or has_daemon(pod) for pod in pods)
    waits = waits and retired is None and lives
    before = next((b for b in pool.status.builders if b.name == name), None)
    # A daemon that does not answer has served no fewer than before.
    served = sum(load.served for load in known) if known else (before and before.served) or 0
    # As long as it stands in the Service, what its daemon says can change at any moment.
    is_settled = len(known) == len(asked) and not (retired and any(map(serves, pods)))
    return Member(
        name=name,
        deployment=deployment,
        is_held=not is_current and waits,
        pods=pods,
        builds=tuple(sorted((b for load in known for b in load.builds), key=lambda b: b.ref)),
        served=served,
        builder=Builder(
            index=index,
            created=created,
            is_ready=any(map(is_ready, pods)),
            builds=sum(len(load.builds) for load in known) if len(known) == len(asked) else None,
            fresh=sum(_is_fresh(build, now) for load in known for build in load.builds)
            if pool.spec.routing is Routing.GATEWAY
            else 0,
            as_of=min((load.as_of for load in known), default=now) if is_settled else None,
            flaw=_flaw(
                pool,
                is_current or waits,
                age_started=created,
                served=served,
                memory=max((memory.get(pod["metadata"]["name"], 0) for pod in pods), default=0),
                now=now,
            ),
            retired=retired,
            overdue=before.overdue_since if before else None,
        ),
    )


def _is_fresh(build: RunningBuild, now: datetime) -> bool:
    """Whether a build began a moment ago. By a clock that is wrong, none did."""
    return build.started is not None and abs(now - build.started) < FRESH


def _flaw(
    pool: Pool, is_current: bool, *, age_started: datetime, served: int, memory: int, now: datetime
) -> Finding[RetireReason] | None:
    """Why a builder is to be replaced, if it is; what comes first matters most."""
    recycle = pool.spec.builders.recycle
    if not is_current:
        return Finding(RetireReason.OUTDATED, "it does not run what the spec wants any more")
    if recycle.max_age is not None and age_started + recycle.max_age <= now:
        return Finding(RetireReason.TOO_OLD, f"it was created at {format_time(age_started)}")
    if recycle.max_builds is not None and served >= recycle.max_builds:
        return Finding(RetireReason.TOO_MANY_BUILDS, f"it has served {served} builds")
    if recycle.max_memory is not None and memory > parse_bytes(recycle.max_memory):
        return Finding(RetireReason.TOO_MUCH_MEMORY, f"its pod takes {format_bytes(memory)}")
    return None


def revision_of_pod(pod: Object) -> str:
    """What a pod was made to run; empty where it does not say."""
    annotations = pod["metadata"].get("annotations") or {}
    return str(annotations.get(naming.ANNOTATION_REVISION, ""))
