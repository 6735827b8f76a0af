"""Factories with overrides: pools, pods, observations and specs as Kubernetes holds them.

Every factory gives the plainest object there is; a test overrides what it speaks about.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import Pool, PoolStatus, parse_pool
from buildpool.core.naming import Installation
from buildpool.core.objects.refs import Object, Ref, ref_of
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Bundle, KeyPair
from buildpool.core.planning import plan
from buildpool.core.planning.plan import Plan
from buildpool.core.planning.situation import Situation
from buildpool.core.resources import builder_deployment, builder_revision, guard

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOME = "buildpool-system"
GATEWAY = "buildpool-gateway"
"""The Service of the gateway there."""
OWN_IMAGE = "r.example/buildpool:v1"
INSTALLATION = Installation(HOME, OWN_IMAGE, GATEWAY)
UID = "1a2b3c4d-0000-4000-8000-000000000001"
OTHER_UID = "9f8e7d6c-0000-4000-8000-000000000009"
CERTIFICATE = Bundle(KeyPair(b"a certificate", b"a key"), trust=b"an authority")
"""What the daemons of golden pools serve with."""
IMAGE = "moby/buildkit:v0.34.2-rootless"


def a_raw_pool(
    *,
    name: str = "ci",
    namespace: str = "builds",
    uid: str = UID,
    generation: int = 1,
    status: PoolStatus | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Object:
    """A BuildKitPool as the API sends it; what is left over is the spec.

    With `Direct` routing and a builder at least, unless it says something else.
    """
    spec = {"routing": "Direct", **spec, "scaling": {"min": 1, **spec.get("scaling", {})}}
    written = status.to_dict() if isinstance(status, PoolStatus) else dict(status or {})
    return {
        "apiVersion": naming.API_VERSION,
        "kind": naming.KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "generation": generation,
            "resourceVersion": "1",
            **(metadata or {}),
        },
        "spec": spec,
        "status": written,
    }


def a_pool(**overrides: Any) -> Pool:
    """A valid pool; overrides as for ``a_raw_pool``."""
    return parse_pool(a_raw_pool(**overrides))


def clients(*names: str) -> dict[str, Any]:
    """``spec.access`` with these clients."""
    return {"clients": [{"name": name} for name in names]}


def a_pod(
    builder: str = "ci-builder-0",
    *,
    suffix: str = "7c9d8b6f5d-x2x7k",
    ready: bool | None = None,
    terminating: bool = False,
    phase: str = "Running",
    unschedulable: str | None = None,
    waiting: tuple[str, str] | None = None,
    running: bool = True,
    ended: Mapping[str, Any] | None = None,
    restarts: int = 0,
    init: bool = False,
    image: str = IMAGE,
    component: str = naming.COMPONENT_BUILDER,
    guarded: bool = False,
    serving: bool = True,
) -> Object:
    """A builder's pod with its status as scheduler and kubelet write it.

    ``waiting`` is reason and message; ``ended`` is how the container ended last; ``component`` may
    be the cache, whose Deployment then is ``builder``; ``guarded``: it reads a managed cache.
    """
    if ready is None:
        ready = phase == "Running" and not (unschedulable or waiting or ended)
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Initialized", "status": "True"},
        {"type": "ContainersReady", "status": str(ready)},
        {"type": "Ready", "status": str(ready)},
    ]
    status: Object = {"phase": phase, "qosClass": "BestEffort", "conditions": conditions}
    if unschedulable is not None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        status |= {"phase": "Pending", "conditions": [condition | {"message": unschedulable}]}
    else:
        status["initContainerStatuses" if init else "containerStatuses"] = [
            {
                "name": "volume-owner" if init else _MAIN[component],
                "image": image,
                "imageID": "",
                "ready": ready,
                "restartCount": restarts,
                "state": _state(waiting, running=running),
                "lastState": {"terminated": dict(ended)} if ended else {},
            }
        ]
    metadata: Object = {
        "name": f"{builder}-{suffix}",
        "namespace": "builds",
        "uid": f"pod-{builder}-{suffix}",
        "labels": {
            naming.LABEL_POOL: "ci",
            **({naming.LABEL_BUILDER: builder} if component == naming.COMPONENT_BUILDER else {}),
            "app.kubernetes.io/component": component,
            "pod-template-hash": suffix.split("-")[0],
            naming.LABEL_SERVING: str(serving).lower(),
        },
    }
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    spec = {"initContainers": [{"name": guard.CONTAINER}] if guarded else []}
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


_MAIN = {
    naming.COMPONENT_BUILDER: "buildkitd",
    naming.COMPONENT_CACHE: "registry",
    naming.COMPONENT_GATEWAY: "router",
}


def _state(waiting: tuple[str, str] | None, *, running: bool) -> Object:
    if waiting is not None:
        reason, message = waiting
        return {"waiting": {"reason": reason, "message": message}}
    return {"running": {"startedAt": "2026-01-01T11:59:00Z"}} if running else {}


def a_load(builds: int = 0, *, as_of: datetime = NOW, served: int = 0) -> Load:
    """What a daemon with so many builds says."""
    started = as_of - timedelta(seconds=30)
    return Load(tuple(RunningBuild(f"build-{n}", started) for n in range(builds)), as_of, served)


def foreign(ref: Ref, *, uid: str | None = None, **fields: Any) -> Object:
    """An object that is not the pool's: nobody's, or that of the pool with this uid."""
    metadata: Object = {"name": ref.name, "namespace": ref.namespace, "uid": f"{ref}"}
    metadata |= {"resourceVersion": "7", "generation": 1}
    if uid is not None:
        metadata["ownerReferences"] = [{"kind": naming.KIND, "name": "ci", "uid": uid}]
    return {"kind": ref.kind, "metadata": metadata, **fields}


def an_observation(*objects: Object, **overrides: Any) -> Observation:
    """What one pass has seen: these live objects, and whatever else is overridden."""
    return Observation(live={ref_of(obj): obj for obj in objects}, **overrides)


def a_situation(
    pool: Pool, observation: Observation | None = None, *, now: datetime = NOW, **overrides: Any
) -> Situation:
    """What one pass knows: by the usual operator, unless that is overridden."""
    overrides.setdefault("installation", INSTALLATION)
    return Situation(pool, observation or Observation(), now=now, **overrides)


def planned(
    pool: Pool, observation: Observation | None = None, *, now: datetime = NOW, **overrides: Any
) -> tuple[Situation, Plan]:
    """The plan, once everything it needs is issued, and the situation then."""
    return plan.planned(a_situation(pool, observation, now=now, **overrides))


_names = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
_labels = st.dictionaries(_names, st.sampled_from(["", "a", "b-1"]), max_size=2)
_sizes = st.sampled_from(["1Gi", "1536Mi", "20Gi", "0.5Ti", "3e9"])
_amounts = st.dictionaries(
    st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", "500m", "1024Mi", "0"]), max_size=2
)
_sources = st.one_of(
    st.fixed_dictionaries({"secret": st.fixed_dictionaries({"name": _names})}),
    st.fixed_dictionaries({"configMap": st.fixed_dictionaries({"name": _names})}),
)
_env = st.one_of(
    st.fixed_dictionaries({"name": _names}, optional={"value": st.sampled_from(["", "x"])}),
    st.fixed_dictionaries(
        {
            "name": _names,
            "valueFrom": st.fixed_dictionaries(
                {
                    "secretKeyRef": st.fixed_dictionaries(
                        {"name": _names, "key": _names}, optional={"optional": st.booleans()}
                    )
                }
            ),
        }
    ),
)
_affinities = st.sampled_from(
    [
        {},
        {"nodeAffinity": {}},
        {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {}}}
                ]
            }
        },
    ]
)
_builders = st.fixed_dictionaries(
    {},
    optional={
        "security": st.sampled_from(["Rootless", "UserNamespace"]),
        "architecture": st.sampled_from(["amd64", "arm64"]),
        "image": st.sampled_from(["r.example/buildkit:v1", "r.example/buildkit:v2"]),
        "imagePullPolicy": st.sampled_from(["Always", "IfNotPresent"]),
        "imagePullSecrets": st.lists(
            st.fixed_dictionaries({"name": _names}), max_size=2, unique_by=lambda s: s["name"]
        ),
        "maxBuildDuration": st.sampled_from(["1m", "3h", "24h"]),
        "maxParallelism": st.integers(1, 9),
        "resources": st.fixed_dictionaries({}, optional={"requests": _amounts}),
        "nodeSelector": _labels,
        "tolerations": st.lists(
            st.fixed_dictionaries({"key": _names}, optional={"value": st.sampled_from(["", "x"])}),
            max_size=2,
        ),
        "affinity": _affinities,
        "topologySpreadConstraints": st.lists(
            st.fixed_dictionaries(
                {
                    "maxSkew": st.just(1),
                    "topologyKey": _names,
                    "whenUnsatisfiable": st.sampled_from(["DoNotSchedule", "ScheduleAnyway"]),
                }
            ),
            max_size=2,
            unique_by=lambda c: (c["topologyKey"], c["whenUnsatisfiable"]),
        ),
        "serviceAccountName": _names,
        "podLabels": _labels,
        "podAnnotations": _labels,
        "env": st.lists(_env, max_size=3, unique_by=lambda e: e["name"]),
        "storage": st.one_of(
            st.fixed_dictionaries({"ephemeral": st.fixed_dictionaries({"sizeLimit": _sizes})}),
            st.fixed_dictionaries({"volumeClaim": st.fixed_dictionaries({"size": _sizes})}),
        ),
    },
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "routing": st.sampled_from(["Direct", "Gateway"]),
        "builders": _builders,
        "registries": st.lists(
            st.fixed_dictionaries({"host": _names}, optional={"caBundle": _sources}),
            max_size=2,
            unique_by=lambda r: r["host"],
        ),
        "cache": st.sampled_from(
            [
                {},
                {"registry": {"managed": {}}},
                {"registry": {"managed": {"storage": {"size": "1Gi"}, "retention": "3d"}}},
                {"registry": {"ref": "r.example/caches"}},
            ]
        ),
        "access": st.lists(_names, min_size=1, max_size=3, unique=True).map(
            lambda names: clients(*names)
        ),
    },
)
"""Specs that are valid, and small."""

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3)
    ),
    max_leaves=8,
)
"""What an answer may hold."""
_odd_labels = st.dictionaries(
    st.sampled_from(
        [naming.LABEL_POOL, naming.LABEL_POOL_NAMESPACE, "app.kubernetes.io/component", "x"]
    ),
    any_json,
)
any_object = any_json | st.fixed_dictionaries(
    {
        "metadata": any_json
        | st.fixed_dictionaries(
            {},
            optional={
                "name": any_json,
                "namespace": any_json,
                "uid": any_json,
                "resourceVersion": any_json,
                "labels": any_json | _odd_labels,
                "annotations": any_json,
            },
        )
    },
    optional={
        "kind": any_json,
        "status": any_json | st.dictionaries(st.sampled_from(["conditions", "phase"]), any_json),
        "containers": any_json,
    },
)
"""An object of anybody's, whatever its kind: no round may end at it."""


def a_builder_deployment(
    pool: Pool, index: int = 0, *, certificate: Bundle = CERTIFICATE
) -> Object:
    """The Deployment of a builder."""
    revision = builder_revision(pool, image=OWN_IMAGE, certificate=certificate)
    return builder_deployment(
        pool, index, image=OWN_IMAGE, certificate=certificate, revision=revision
    )
