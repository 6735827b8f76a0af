"""A cluster in memory: what an API server and its controllers make of a pool's plans. No I/O.

Written after what a real API server (Kubernetes 1.37) stored: its defaults, what it leaves out, how
server-side apply merges lists and drops fields. Only as much as a pool's objects need.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from buildpool import naming
from buildpool.api import Pool
from buildpool.certificates import cache_secrets, client_ref, noted_clients
from buildpool.controller.observe import LISTED
from buildpool.observation import Observation
from buildpool.plan import Plan
from buildpool.removal import Removal
from buildpool.resources import (
    JSON,
    Object,
    Ref,
    component_of,
    has_guard,
    is_terminating,
    ref_of,
)
from buildpool.resources.objects import fingerprint
from buildpool.wanted import wanted_refs
from samples import HOME, NOW, a_pod, planned

LIST_KEYS = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
APPLIED = "applied by us"
"""Stands for ``managedFields``: what we applied last."""


@dataclass
class MemoryCluster:
    """Objects and pods by name."""

    objects: dict[Ref, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    bad_images: set[str] = field(default_factory=set)
    """Builders with one of these never become ready."""
    full: set[str] = field(default_factory=set)
    """Builders for whose pod there is no node."""
    now: datetime = NOW
    version: int = 1

    def __getitem__(self, name: str) -> Object:
        """An object by ``Kind/name``, to be looked at or edited by a test."""
        kind, _, wanted = name.partition("/")
        return next(o for ref, o in self.objects.items() if (ref.kind, ref.name) == (kind, wanted))

    def names(self, kind: str) -> list[str]:
        """The names of all objects of a kind."""
        return sorted(ref.name for ref in self.objects if ref.kind == kind)

    def observe(self, pool: Pool) -> Observation:
        """What a pass may see: wanted and noted names, and what is listed by label."""
        seen = set(wanted_refs(pool, home=HOME))
        noted = noted_clients(pool, self.objects, home=HOME)
        seen |= {client_ref(pool, name) for name in noted}
        listed = {
            ref: obj
            for ref, obj in self.objects.items()
            if ref.kind in LISTED
            and obj["metadata"].get("labels", {}).get(naming.LABEL_POOL) == pool.key.name
        }
        if any(component_of(obj) == naming.COMPONENT_CACHE for obj in listed.values()):
            seen |= set(cache_secrets(pool))
        seen |= set(listed)
        live = {ref: copy.deepcopy(self.objects[ref]) for ref in seen & self.objects.keys()}
        pods = self.pods.values()
        builders = tuple(p for p in pods if component_of(p) == naming.COMPONENT_BUILDER)
        caches = tuple(p for p in pods if component_of(p) == naming.COMPONENT_CACHE)
        return Observation(live=live, pods=builders, cache_pods=caches)

    def act(self, todo: Plan | Removal) -> None:
        """Carries out a plan as the API server would."""
        for change in todo.apply if isinstance(todo, Plan) else ():
            self.objects[change.ref] = self._stored(change.object)
        for deletion in todo.delete:
            gone = self.objects.pop(deletion.ref)
            assert gone["metadata"]["uid"] == deletion.uid, "the precondition of the delete"
            for pod in self._pods_of(gone):
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"

    def drain(self) -> None:
        """Builds have finished: terminating pods go."""
        self.pods = {name: pod for name, pod in self.pods.items() if not is_terminating(pod)}

    def roll(self) -> None:
        """What the controllers and the kubelet do, until nothing moves."""
        for deployment in self.objects.values():
            if deployment["kind"] == "Deployment":
                self._roll(deployment)

    def step(self, pool: Pool) -> Plan:
        """One pass, and all that follows from it."""
        _, todo = planned(pool, self.observe(pool), now=self.now)
        self.act(todo)
        self.roll()
        self.drain()
        return todo

    def settle(self, pool: Pool) -> list[Plan]:
        """Passes until there is nothing to do; the plans that had something to do."""
        plans: list[Plan] = []
        while (todo := self.step(pool)).apply or todo.delete:
            plans.append(todo)
            assert len(plans) < 50, f"it never settles: {todo}"
        return plans

    def _pods_of(self, obj: Object) -> list[Object]:
        if obj["kind"] != "Deployment":
            return []
        prefix = obj["metadata"]["name"] + "-"
        selected = obj["spec"]["selector"]["matchLabels"].items()
        return [
            pod
            for name, pod in self.pods.items()
            if name.startswith(prefix)
            and component_of(pod) == component_of(obj)
            and (naming.LABEL_BUILDER, pod["metadata"]["labels"].get(naming.LABEL_BUILDER))
            in (*selected, (naming.LABEL_BUILDER, None))
        ]

    def _roll(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        name, image = deployment["metadata"]["name"], template["spec"]["containers"][0]["image"]
        suffix = fingerprint(template)[:10]
        serves = image not in self.bad_images and name not in self.full
        old = [
            pod for pod in self._pods_of(deployment) if not pod["metadata"]["name"].endswith(suffix)
        ]
        if deployment["spec"]["strategy"]["type"] == "Recreate" or serves:
            for pod in old:
                del self.pods[pod["metadata"]["name"]]
            old = []
        if not deployment["spec"]["replicas"]:
            deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"]}
            self.pods = {n: p for n, p in self.pods.items() if p not in self._pods_of(deployment)}
            return
        crash = ("CrashLoopBackOff", "back-off 10s restarting failed container=buildkitd")
        pod = a_pod(
            name,
            suffix=suffix,
            image=image,
            component=component_of(deployment),
            guarded=has_guard(template),
            waiting=None if serves or name in self.full else crash,
            unschedulable="0/3 nodes are available: 3 Insufficient cpu."
            if name in self.full
            else None,
        )
        self.pods[pod["metadata"]["name"]] = pod
        serving = [
            p for p in old if any(c["status"] == "True" for c in p["status"]["conditions"][3:])
        ]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(old) + 1,
            "updatedReplicas": 1,
            "availableReplicas": len(serving) + serves,
        }

    def _stored(self, desired: Object) -> Object:
        live = self.objects.get(ref_of(desired))
        self.version += 1
        server = {
            "uid": f"uid-{self.version}",
            "generation": 1,
            "creationTimestamp": "2026-01-01T12:00:00Z",
        }
        base: Object = {"metadata": server} if live is None else copy.deepcopy(live)
        new: Object = _merged(_dropped(base, base.pop(APPLIED, {}), desired), desired)
        new = _defaulted(_pruned(new))
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(self.version)
        metadata["generation"] += live is not None and live.get("spec") != new.get("spec")
        return {**new, APPLIED: copy.deepcopy(desired)}


def settled(pool: Pool) -> MemoryCluster:
    """A cluster in which the pool is as its spec wants it."""
    cluster = MemoryCluster()
    cluster.settle(pool)
    return cluster


def _key(name: str, item: Object) -> tuple[JSON, ...]:
    return tuple(item.get(key) for key in LIST_KEYS[name])


def _dropped(live: JSON, last: JSON, desired: JSON, name: str = "") -> JSON:
    """``live`` without what we once applied and now want no more."""
    if isinstance(live, dict) and isinstance(last, dict):
        desired = desired if isinstance(desired, dict) else {}
        kept: Object = {}
        for key, value in live.items():
            if key in last and (key in desired or isinstance(value, dict | list)):
                value = _dropped(value, last[key], desired.get(key), key)
            elif key in last:
                continue
            if value or key in desired or key not in last:
                kept[key] = value
        return kept
    if isinstance(live, list) and name in LIST_KEYS:
        ours = {_key(name, item): item for item in last}
        wanted = {_key(name, item): item for item in desired or ()}
        return [
            _dropped(item, ours.get(_key(name, item), {}), wanted.get(_key(name, item)))
            for item in live
            if _key(name, item) not in ours or _key(name, item) in wanted
        ]
    return [] if isinstance(live, list) else live


def _merged(live: JSON, desired: JSON, name: str = "") -> JSON:
    if isinstance(desired, dict) and name != "selector":
        live = live if isinstance(live, dict) else {}
        return live | {key: _merged(live.get(key), value, key) for key, value in desired.items()}
    if isinstance(desired, list) and name in LIST_KEYS:
        items = {_key(name, item): item for item in live or ()}
        for item in desired:
            items[_key(name, item)] = _merged(items.get(_key(name, item)), item)
        return list(items.values())
    return copy.deepcopy(desired)


def _pruned(value: JSON) -> JSON:
    """What a round through Go's types leaves of an object: empty text, lists and maps go."""
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _pruned(entry)
        for key, entry in value.items()
        if not (
            entry is None or entry == [] or (key, entry) in (("value", ""), ("matchLabels", {}))
        )
    }


def _defaulted(obj: Object) -> Object:
    match obj["kind"]:
        case "Deployment":
            obj["spec"].setdefault("progressDeadlineSeconds", 600)
            pod = obj["spec"]["template"]["spec"]
            for key, value in _POD_DEFAULTS.items():
                pod.setdefault(key, copy.deepcopy(value))
            if "serviceAccountName" in pod:
                pod["serviceAccount"] = pod["serviceAccountName"]
            for part in _parts(pod):
                for key, value in _PART_DEFAULTS.items():
                    if key in part:
                        part[key] = {**value, **part[key]}
                if "image" in part:
                    part.update({**_CONTAINER_DEFAULTS, **part})
        case "Service":
            obj["spec"] = {**copy.deepcopy(_SERVICE_DEFAULTS), **obj["spec"]}
        case "PersistentVolumeClaim":
            obj["spec"].setdefault("volumeMode", "Filesystem")
            obj["spec"].setdefault("storageClassName", "standard")
            obj.setdefault("status", {"phase": "Bound"})
    return obj


def _parts(pod: Object) -> Iterator[Object]:
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        yield container
        yield from (e["valueFrom"] for e in container.get("env", ()) if "valueFrom" in e)
    yield from pod["volumes"]


_POD_DEFAULTS: Object = {
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
}
_CONTAINER_DEFAULTS: Object = {
    "imagePullPolicy": "IfNotPresent",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PART_DEFAULTS: Object = {
    "secretKeyRef": {"optional": False},
    "configMapKeyRef": {"optional": False},
    "secret": {"defaultMode": 420},
    "configMap": {"defaultMode": 420},
    "startupProbe": {"successThreshold": 1},
    "readinessProbe": {"successThreshold": 1},
}
_SERVICE_DEFAULTS: Object = {
    "clusterIP": "10.96.161.164",
    "clusterIPs": ["10.96.161.164"],
    "internalTrafficPolicy": "Cluster",
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "sessionAffinity": "None",
}
