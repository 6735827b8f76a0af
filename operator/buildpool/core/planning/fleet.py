"""The builders of a pool as they are: from live objects and what daemons say to what is decided on.

Pure. A builder is one Deployment; which one, how long and why it is to go stands in its
annotations, so that a restarted operator knows as much as the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from buildpool.core import naming
from buildpool.core.api import Pool, RetireReason
from buildpool.core.api.quantity import format_bytes, parse_bytes
from buildpool.core.api.status import format_time
from buildpool.core.objects.pods import has_daemon, has_ended, is_ready, name_of_builder, serves
from buildpool.core.objects.refs import Object, Ref, is_builder, is_owned, is_terminating
from buildpool.core.observed.load import RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.certificates import builder_ref, bundle_at, cache_secrets
from buildpool.core.resources import builder_revision, cache_revision, managed_registry
from buildpool.core.resources.deployment import revision_of
from buildpool.core.scaling import Builder, Flaw


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


def desired_revision(pool: Pool, observation: Observation, *, image: str) -> str:
    """What builders shall run now; empty where their certificate is not there yet."""
    certificate = bundle_at(observation, builder_ref(pool))
    if certificate is None:
        return ""
    return builder_revision(pool, image=image, certificate=certificate)


def members_of(
    pool: Pool, observation: Observation, *, revision: str, now: datetime
) -> tuple[Member, ...]:
    """The builders of a pool that are not being deleted, by their number.

    ``revision`` is what they shall run.
    """
    found = (
        _member(pool, index, deployment, observation, revision, now)
        for index, deployment in _deployments(pool, observation)
        if not is_terminating(deployment)
    )
    return tuple(sorted(found, key=lambda member: member.builder.index))


def taken_numbers(pool: Pool, observation: Observation) -> frozenset[int]:
    """The numbers of builders of which something is on its way out.

    A pod that stays though its Deployment is gone takes no number: a new Deployment adopts it.
    """
    leaving = (pod for pod in observation.pods if is_terminating(pod))
    names = {
        *(name_of_builder(pod) for pod in leaving),
        *(ref.name for ref, obj in observation.live.items() if is_builder(obj)),
    }
    return frozenset(
        index for name in names if (index := naming.builder_index(pool.key, name)) is not None
    )


def everyone_runs(pool: Pool, observation: Observation, *, revision: str, image: str) -> bool:
    """Whether every daemon, draining ones too, and the cache have read the present certificates."""
    cache = _wanted_cache(pool, observation, image=image)
    deployments = (revision_of(deployment) for _, deployment in _deployments(pool, observation))
    pods = (_revision_of_pod(pod) for pod in observation.pods if not has_ended(pod))
    return all(found == revision for found in (*deployments, *pods)) and all(
        _revision_of_pod(pod) == cache for pod in observation.cache_pods if not has_ended(pod)
    )


def _wanted_cache(pool: Pool, observation: Observation, *, image: str) -> str:
    managed = managed_registry(pool)
    certificate = bundle_at(observation, cache_secrets(pool)[0])
    if managed is None or certificate is None:
        return ""
    return cache_revision(pool, managed, image=image, certificate=certificate)


def _deployments(pool: Pool, observation: Observation) -> Iterator[tuple[int, Object]]:
    for ref, obj in observation.live.items():
        if is_builder(obj) and is_owned(obj, pool):
            index = naming.builder_index(pool.key, ref.name)
            if index is not None:
                yield index, obj


def _member(
    pool: Pool,
    index: int,
    deployment: Object,
    observation: Observation,
    revision: str,
    now: datetime,
) -> Member:
    name = naming.builder(pool.key, index)
    pods = tuple(
        pod for pod in observation.pods if name_of_builder(pod) == name and not is_terminating(pod)
    )
    loads = [observation.loads.get(pod["metadata"]["uid"]) for pod in pods if has_daemon(pod)]
    known = [load for load in loads if load is not None]
    builds = tuple(sorted((b for load in known for b in load.builds), key=lambda b: b.ref))
    metadata = deployment["metadata"]
    created = _moment(metadata.get("creationTimestamp")) or now
    retired = _moment((metadata.get("annotations") or {}).get(naming.ANNOTATION_RETIRED))
    told = next((b for b in pool.status.builders if b.name == name), None)
    # Who does not answer has served no fewer than before.
    served = sum(load.served for load in known) if known else (told and told.served) or 0
    # As long as it stands in the Service, what its daemon says can change at any moment.
    is_settled = len(known) == len(loads) and not (retired and any(map(serves, pods)))
    return Member(
        name=name,
        deployment=deployment,
        pods=pods,
        builds=builds,
        served=served,
        builder=Builder(
            index=index,
            created=created,
            is_ready=any(map(is_ready, pods)),
            builds=len(builds) if len(known) == len(loads) else None,
            as_of=min((load.as_of for load in known), default=now) if is_settled else None,
            flaw=_flaw(
                pool,
                revision_of(deployment) == revision,
                age_started=created,
                served=served,
                memory=_memory(pods, observation),
                now=now,
            ),
            retired=retired,
            overdue=told.overdue_since if told else None,
        ),
    )


def _flaw(
    pool: Pool, is_current: bool, *, age_started: datetime, served: int, memory: int, now: datetime
) -> Flaw | None:
    """Why a builder is to be replaced, if it is; what comes first matters most."""
    recycle = pool.spec.builders.recycle
    if not is_current:
        return Flaw(RetireReason.OUTDATED, "it does not run what the spec wants any more")
    if recycle.max_age is not None and age_started + recycle.max_age <= now:
        return Flaw(RetireReason.TOO_OLD, f"it was created at {format_time(age_started)}")
    if recycle.max_builds is not None and served >= recycle.max_builds:
        return Flaw(RetireReason.TOO_MANY_BUILDS, f"it has served {served} builds")
    if recycle.max_memory is not None and memory > parse_bytes(recycle.max_memory):
        return Flaw(RetireReason.TOO_MUCH_MEMORY, f"its pod takes {format_bytes(memory)}")
    return None


def _memory(pods: Sequence[Object], observation: Observation) -> int:
    return max((observation.memory.get(pod["metadata"]["name"], 0) for pod in pods), default=0)


def _revision_of_pod(pod: Object) -> str:
    annotations = pod["metadata"].get("annotations") or {}
    return str(annotations.get(naming.ANNOTATION_REVISION, ""))


def _moment(text: str | None) -> datetime | None:
    """A moment as Kubernetes writes it; None where it is absent or somebody garbled it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError:
        return None
