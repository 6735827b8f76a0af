"""``spec.builders``: what one builder is, as its user writes it.

Pure data with defaults and limits; what CEL cannot judge is in ``validation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, JsonValue

from buildpool.core.api.fields import (
    DurationText,
    LabelKey,
    LabelValue,
    ObjectName,
    QuantityText,
    TextRule,
    UniqueBy,
    preserve_unknown_fields,
)
from buildpool.core.api.model import Model, Rule, exactly_one
from buildpool.core.api.podfields import (
    EnvVar,
    ImagePullPolicy,
    ObjectReference,
    Resources,
    Toleration,
    TopologySpread,
)
from buildpool.core.api.tracing import Tracing


class Security(StrEnum):
    """How a builder is kept apart from its node."""

    ROOTLESS = "Rootless"
    USER_NAMESPACE = "UserNamespace"


class Architecture(StrEnum):
    """Processor architectures, as nodes and images name them."""

    AMD64 = "amd64"
    ARM64 = "arm64"
    ARM = "arm"
    PPC64LE = "ppc64le"
    S390X = "s390x"
    RISCV64 = "riscv64"


BUILDKIT_VERSION: Final = "v0.34.2"
DEFAULT_IMAGES: Final[Mapping[Security, str]] = {
    Security.ROOTLESS: f"moby/buildkit:{BUILDKIT_VERSION}-rootless",
    Security.USER_NAMESPACE: f"moby/buildkit:{BUILDKIT_VERSION}",
}

IMAGE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?$"
_HAS_TAG: Final = TextRule(
    matches="(^|/)[^/:]+:[^/:]+$",
    exempt="@",
    message="the image has no tag",
    remedy="name a fixed version, such as moby/buildkit:v0.34.2-rootless, or a digest",
)
_NOT_FLOATING: Final = TextRule(
    matches=":(latest|master|nightly|rootless|buildx-stable-[0-9]+)(-rootless)?$",
    forbidden=True,
    exempt="@",
    message="the image has a tag that moves to another version on its own",
    remedy="name a fixed version, such as moby/buildkit:v0.34.2-rootless, or add a digest",
)


class EphemeralStorage(Model):
    """Room on the node's own disk; a new pod of the builder starts with an empty cache."""

    size_limit: Annotated[str, QuantityText(minimum="1Gi")] = "20Gi"
    """Size at which the kubelet evicts the builder; garbage collection stays below it."""


class VolumeClaim(Model):
    """A PersistentVolumeClaim for each builder; its cache outlives the pod."""

    storage_class_name: ObjectName | None = None
    """StorageClass; absent: the cluster's default."""
    size: Annotated[str, QuantityText(minimum="1Gi")]
    """Size of the volume; garbage collection stays below it."""


class Storage(Model):
    """Where a builder keeps images, layers and caches: exactly one of the two."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("ephemeral", "volumeClaim", remedy="keep one kind of storage"),
    )

    ephemeral: EphemeralStorage | None = None
    volume_claim: VolumeClaim | None = None

    @property
    def size(self) -> str:
        """The room there is, as a quantity, whichever kind it is of."""
        if self.volume_claim is not None:
            return self.volume_claim.size
        return (self.ephemeral or EphemeralStorage()).size_limit


class History(Model):
    """How long finished builds stay in the daemon's history.

    A record is removed when it exceeds both.
    """

    max_age: Annotated[
        timedelta, DurationText(minimum=timedelta(minutes=1), maximum=timedelta(days=365))
    ] = timedelta(hours=48)
    """Age up to which records stay."""
    max_entries: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Number of records that stay whatever their age."""


class Rollout(Model):
    """How builders are replaced when what they run has changed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            # The default of the whole, which is empty, is judged before those of its fields.
            cel="!has(self.maxSurge) || !has(self.maxUnavailable) || "
            "self.maxSurge + self.maxUnavailable > 0",
            holds=lambda rollout: rollout.max_surge + rollout.max_unavailable > 0,
            message="maxSurge and maxUnavailable are both 0, so nothing could be replaced",
            remedy="set one of them to 1 or more",
            field="maxSurge",
        ),
    )

    max_surge: Annotated[int, Field(ge=0, le=100)] = 1
    """How many builders more than wanted may take builds meanwhile; those that drain do not
    count."""
    max_unavailable: Annotated[int, Field(ge=0, le=100)] = 0
    """How many builders fewer than wanted may take builds meanwhile."""


class Recycle(Model):
    """When a builder has served long enough: it drains and another one takes its place."""

    max_age: Annotated[
        timedelta | None, DurationText(minimum=timedelta(minutes=1), maximum=timedelta(days=365))
    ] = None
    """Age at which a builder is replaced; absent: never."""
    max_builds: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Number of builds after which a builder is replaced; absent: never."""
    max_memory: Annotated[str, QuantityText(minimum="64Mi")] | None = None
    """Memory of the pod, as the metrics API of the cluster reports it, above which a builder is
    replaced; absent: never."""


class Builders(Model):
    """What each builder of the pool is: one pod with one build daemon."""

    image: Annotated[
        Annotated[str, Field(pattern=IMAGE_PATTERN, min_length=1, max_length=512)] | None,
        _HAS_TAG,
        _NOT_FLOATING,
    ] = None
    """Image of the build daemon, with a fixed tag or a digest; absent: the BuildKit release that
    this operator was tested with, of the kind that `security` needs."""
    image_pull_policy: ImagePullPolicy | None = None
    """When the node pulls the image; absent: Kubernetes decides by the tag."""
    image_pull_secrets: Annotated[
        tuple[ObjectReference, ...], Field(max_length=16), UniqueBy("name")
    ] = ()
    """Secrets with the credentials for pulling the image."""
    security: Security = Security.ROOTLESS
    """`Rootless` runs the daemon as user 1000; `UserNamespace` as root of a user namespace."""
    architecture: Architecture = Architecture.AMD64
    """Architecture of the nodes that builders run on. One pool has one."""
    slots: Annotated[int, Field(ge=1, le=100)] = 2
    """How many builds one builder is meant to run at once."""
    max_build_duration: Annotated[
        timedelta, DurationText(minimum=timedelta(minutes=1), maximum=timedelta(hours=24))
    ] = timedelta(hours=2)
    """How long a builder that is to be removed waits for its builds to finish."""
    max_parallelism: Annotated[int, Field(ge=1, le=1024)] | None = None
    """How many build steps one daemon runs at once; absent: no limit."""
    resources: Resources = Resources()
    node_selector: Annotated[Mapping[LabelKey, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = ()
    """Node taints that builders put up with."""
    affinity: Annotated[
        Mapping[str, JsonValue] | None, Field(json_schema_extra=preserve_unknown_fields)
    ] = None
    """Affinity of the pods, as in a Pod."""
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Field(max_length=16)] = ()
    """How builders spread over zones or nodes."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods, for image pull secrets and policies; its token is not mounted."""
    pod_labels: Annotated[Mapping[LabelKey, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """More labels for the pods."""
    pod_annotations: Annotated[
        Mapping[LabelKey, Annotated[str, Field(max_length=8192)]], Field(max_length=64)
    ] = Field(default_factory=dict)
    """More annotations for the pods."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128), UniqueBy("name")] = ()
    """Environment of the build daemon, such as proxies for pulls from registries."""
    tracing: Tracing | None = None
    """Where the daemons send the spans of builds; absent: nowhere, unless `env` says so."""
    storage: Storage = Storage(ephemeral=EphemeralStorage())
    history: History = History()
    rollout: Rollout = Rollout()
    recycle: Recycle = Recycle()
    config: Annotated[str, Field(max_length=16_384)] = ""
    """More `buildkitd.toml`. Refused are keys that the daemon does not know and keys that the
    operator sets itself."""

    @property
    def resolved_image(self) -> str:
        """The image given, or the one that goes with the kind of security."""
        return self.image or DEFAULT_IMAGES[self.security]
