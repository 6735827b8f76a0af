"""The fields of a pod that a pool lets its user set, spelled as Kubernetes spells them.

A small typed choice, not a PodTemplateSpec: what is not here belongs to the operator. Pure data.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from buildpool.core.api.fields import DataKey, LabelKey, LabelValue, ObjectName, QuantityText
from buildpool.core.api.model import Model, Rule, exactly_one


class ImagePullPolicy(StrEnum):
    """When the node pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class ObjectReference(Model):
    """An object in the pool's namespace, by name."""

    name: ObjectName
    """Name of the object."""


class KeyReference(Model):
    """One key of a Secret or ConfigMap in the pool's namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: DataKey
    """Key within it."""
    optional: bool = False
    """Whether the builder starts without it when it is missing."""


class EnvSource(Model):
    """Where the value of an environment variable comes from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("secretKeyRef", "configMapKeyRef", remedy="keep one source"),
    )

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""


class EnvVar(Model):
    """One environment variable of the daemon: a name with one of the two, or with neither."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.value) && has(self.valueFrom))",
            holds=lambda env: env.value is None or env.value_from is None,
            message="value and valueFrom exclude each other",
            remedy="keep one of them",
        ),
    )

    name: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.-]*$", min_length=1, max_length=253)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """Its value."""
    value_from: EnvSource | None = None
    """Where its value comes from, instead of `value`."""


class Resources(Model):
    """Compute resources of one builder. No build step has limits of its own."""

    requests: Annotated[Mapping[LabelKey, Annotated[str, QuantityText()]], Field(max_length=16)] = (
        Field(default_factory=dict)
    )
    """What the scheduler reserves on the node: `cpu`, `memory`, `ephemeral-storage`, …"""
    limits: Annotated[Mapping[LabelKey, Annotated[str, QuantityText()]], Field(max_length=16)] = (
        Field(default_factory=dict)
    )
    """What the builder may use at most. Out of memory, the daemon can die with its builds."""


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A node taint that builders put up with."""

    key: LabelKey | None = None
    """Key of the taint; absent: every key, with operator `Exists`."""
    operator: TolerationOperator | None = None
    """`Equal` (as when absent) compares the value too."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint; absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """How long a running builder stays on a node with a `NoExecute` taint; absent: for ever."""


class WhenUnsatisfiable(StrEnum):
    """What to do when a spread cannot be kept."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class NodeInclusionPolicy(StrEnum):
    """Whether nodes that the pod cannot run on count in a spread."""

    HONOR = "Honor"
    IGNORE = "Ignore"


class TopologySpread(Model):
    """How the pool's builders spread over zones or nodes. The operator adds the label selector."""

    max_skew: Annotated[int, Field(ge=1, le=100)]
    """How many builders more than the emptiest domain another may have."""
    topology_key: LabelKey
    """Node label whose values are the domains, such as `topology.kubernetes.io/zone`."""
    when_unsatisfiable: WhenUnsatisfiable
    """Whether a builder waits or runs anyway when the spread cannot be kept."""
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of domains below which the emptiest counts as empty; needs `DoNotSchedule`."""
    node_affinity_policy: NodeInclusionPolicy | None = None
    """Whether nodes that the node selector excludes are left out; absent: `Honor`."""
    node_taints_policy: NodeInclusionPolicy | None = None
    """Whether nodes with taints not tolerated are left out; absent: `Ignore`."""
