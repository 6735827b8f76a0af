"""``status``: what the operator reports about a pool.

Pure data. Read leniently, for another version of the operator may have written it: what cannot be
read is dropped, and reported anew in the next pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from buildpool.core.api.fields import UniqueBy
from buildpool.core.api.model import Model, Moment

MAX_TEXT_CHARACTERS: Final = 4096
MAX_BUILDERS: Final = 256
"""Builders that a status names."""
MAX_RUNNING: Final = 8
"""Builds that a status names of one builder,"""
MAX_RUNNING_OF_ALL: Final = 128
"""and of all, where it names more than one of each."""
MAX_MESSAGE_CHARACTERS: Final = 1024
"""Characters of a message of a condition or an Event; Events take no more."""


def format_time(moment: datetime) -> str:
    """A moment as Kubernetes writes it: UTC, whole seconds."""
    with suppress(OverflowError):  # at either end of time, where hours do not matter
        moment = moment.astimezone(UTC)
    # Not by strftime: it writes years before 1000 with fewer digits.
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _shorten(text: object) -> object:
    if isinstance(text, str) and len(text) > MAX_TEXT_CHARACTERS:
        return text[: MAX_TEXT_CHARACTERS - 1] + "…"
    return text


Time = Annotated[
    Moment,
    PlainSerializer(format_time, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Text = Annotated[str, BeforeValidator(_shorten), Field(max_length=MAX_TEXT_CHARACTERS)]
"""Text of any length, cut to what the status has room for: a status must never be refused."""
Name = Annotated[str, Field(max_length=253)]
BuildName = Annotated[str, Field(max_length=256)]
"""A ref of BuildKit's: ``buildkit.wire`` reads no longer ones."""
Count = Annotated[int, Field(ge=0)]
NOT_OBSERVED: Final = -1
"""Generation of no spec: the API server fills it in until an operator has looked at the pool."""


class ConditionStatus(StrEnum):
    """Whether what a condition says holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class _Reported(Model):
    """Part of the status: fields of other versions are dropped."""

    model_config = ConfigDict(extra="ignore")


class Condition(_Reported):
    """One aspect of the pool's state, in the form all of Kubernetes uses."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What the condition speaks about."""
    status: ConditionStatus
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one word; docs/reference/reasons.md explains each."""
    message: Text = ""
    """Why, in a sentence."""
    observed_generation: Count | None = None
    """Generation of the spec that the condition is about."""
    last_transition_time: Time | None = None
    """When the status last changed."""


class BuilderState(StrEnum):
    """Where a builder is in its life."""

    STARTING = "Starting"
    SERVING = "Serving"
    DRAINING = "Draining"


class RunningStatus(_Reported):
    """One build that runs."""

    ref: BuildName
    """BuildKit's own name of it."""
    since: Time | None = None
    """When it began, by the clock of the builder's node; absent where the daemon does not say."""


class BuilderStatus(_Reported):
    """One builder."""

    name: Name
    """Name of its Deployment."""
    state: BuilderState = BuilderState.STARTING
    """`Starting` until it takes builds; `Draining` once it takes no more and is to be removed."""
    ready: bool
    """Whether it takes builds."""
    revision: Annotated[str, Field(max_length=63)]
    """Hash of what it runs."""
    builds: Count | None = None
    """Builds that run on it; absent where its daemon does not say."""
    running: Annotated[tuple[RunningStatus, ...], Field(max_length=MAX_RUNNING)] = ()
    """Some of them, the oldest first."""
    served: Count | None = None
    """Builds that it has started, as far as the operator saw."""
    overdue: Annotated[tuple[BuildName, ...], Field(max_length=64)] = ()
    """Builds on it that outlive `builders.maxBuildDuration`."""
    overdue_since: Time | None = None
    """When the last of them was reported."""
    reason: Annotated[str, Field(max_length=1024)] | None = None
    """Why it takes no builds, or is to be removed, in one word."""
    message: Text | None = None
    """The same in a sentence."""


class ScalingStatus(_Reported):
    """How many builders the pool is to have now, and why."""

    size: Count
    """Number of builders it is to have."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why so many, in one word."""
    message: Text = ""
    """The same in a sentence."""
    since: Time | None = None
    """When the size last changed."""
    calm_since: Time | None = None
    """Since when fewer builders would have been enough."""
    peak: Count | None = None
    """How many would have been enough since then."""


class ClientStatus(_Reported):
    """One client."""

    name: Name
    """Name of the client."""
    secret: Name
    """Secret with its certificate."""
    not_after: Time
    """When its certificate expires."""


class CertificatesStatus(_Reported):
    """When the certificates expire that are no client's; of several, the first."""

    builder: Time | None = None
    """When the builders' certificate expires."""
    gateway: Time | None = None
    """The same for the gateway, with `Gateway` routing."""
    cache: Time | None = None
    """The same for a managed cache."""


class CacheStatus(_Reported):
    """The shared cache, and the flags with which a client uses it."""

    registry: Text
    """Where caches lie; a project's own path follows."""
    buildctl: Text
    """Flags for `buildctl build`; the shell variable `REPOSITORY` names the project, `BRANCH` its
    branch."""
    buildx: Text
    """Flags for `docker buildx build`, likewise."""
    recipes: Name | None = None
    """ConfigMap with the same flags, for pipelines; absent where another object has its name."""
    used: Text | None = None
    """Disk space that a managed cache takes."""
    refs: Count | None = None
    """Number of caches in a managed one."""


class AuthorityStatus(_Reported):
    """The authority that vouches for builders and clients of the pool."""

    not_after: Time
    """When its certificate expires."""
    phase: Annotated[str, Field(max_length=63)] | None = None
    """Which phase a change of the authority is in; absent while there is none."""
    since: Time | None = None
    """Since when all Secrets follow that phase; absent for a moment, or while one does not."""


class QueueStatus(_Reported):
    """What waits of one client."""

    client: Name
    """Name of the client."""
    waiting: Count
    """Its builds that wait for a slot."""


class GatewayStatus(_Reported):
    """What one pod of the gateway tells about the pool. Written by it alone."""

    name: Name
    """Name of the pod."""
    waiting: Count = 0
    """Builds that wait there for a slot."""
    queue: Annotated[tuple[QueueStatus, ...], Field(max_length=64), UniqueBy("client")] = ()
    """The same by client. Clients take turns, by their weight."""
    since: Time | None = None
    """Since when they wait and none has got one."""
    shared: Count = 0
    """Builds that run there in the slot of another one, such as all but one target of a bake."""
    refused: Text | None = None
    """Why it does not serve the pool; absent where it does."""
    serves: Annotated[str, Field(max_length=63)] | None = None
    """Fingerprint of what it serves the pool with; absent until its Envoy has taken the pool."""


class PoolStatus(_Reported):
    """What the operator observed and did."""

    observed_generation: Annotated[int, Field(ge=NOT_OBSERVED)] = NOT_OBSERVED
    """Generation of the spec that this status is about; -1 until an operator has looked."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), UniqueBy("type")] = ()
    """The pool's state, by aspect."""
    ready: Annotated[str, Field(max_length=16)] | None = None
    """Builders ready and wanted, such as `2/2`."""
    replicas: Count = 0
    """Number of builders that exist."""
    ready_replicas: Count = 0
    """Number of builders that take builds."""
    busy: Annotated[str, Field(max_length=16)] | None = None
    """Builds that run and slots there are, such as `3/4`."""
    busy_slots: Count = 0
    """Number of builds that run, those on builders that drain included."""
    slots: Count = 0
    """Number of builds that the builders which take builds are meant to run at once."""
    waiting: Count = 0
    """Number of builds that wait for a slot; with `Direct` routing none does."""
    blocked_since: Time | None = None
    """Since when none of them has got one, if that is so long that it was reported."""
    requests_refused: Annotated[tuple[Text, ...], Field(max_length=8)] = ()
    """What annotations of the pool ask for that cannot be done, and what helps."""
    gateways: Annotated[tuple[GatewayStatus, ...], Field(max_length=64), UniqueBy("name")] = ()
    """What the gateway reports, by pod; absent if it does not serve the pool."""
    scaling: ScalingStatus | None = None
    selector: Text | None = None
    """Label selector of the builder pods, for autoscalers."""
    endpoint: Text | None = None
    """Address of the pool within the cluster."""
    image: Text | None = None
    """Image that new builders run."""
    builders: Annotated[
        tuple[BuilderStatus, ...], Field(max_length=MAX_BUILDERS), UniqueBy("name")
    ] = ()
    """The builders."""
    clients: Annotated[tuple[ClientStatus, ...], Field(max_length=64), UniqueBy("name")] = ()
    """The clients and their certificates."""
    certificates: CertificatesStatus | None = None
    authority: AuthorityStatus | None = None
    cache: CacheStatus | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any] | None) -> Self:
        """The status found in the cluster; empty where it cannot be read."""
        try:
            return cls.model_validate(raw or {})
        except ValidationError:
            return cls()

    def condition(self, kind: str) -> Condition | None:
        """The condition of one type."""
        return next((found for found in self.conditions if found.type == kind), None)


def set_condition(
    conditions: Iterable[Condition], new: Condition, now: datetime
) -> tuple[Condition, ...]:
    """The conditions, sorted by type, with ``new`` in its place.

    Its transition time is ``now`` only if its status differs from before.
    """
    others = {condition.type: condition for condition in conditions}
    old = others.get(new.type)
    unchanged = old is not None and old.status is new.status
    since = old.last_transition_time if old is not None and unchanged else None
    moment = since or now.replace(microsecond=0)
    others[new.type] = new.model_copy(update={"last_transition_time": moment})
    return tuple(others[kind] for kind in sorted(others))
