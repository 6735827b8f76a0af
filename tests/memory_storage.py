"""How an API server stores what is applied to it: merged with what is there, with its defaults.

Written after what a real one (Kubernetes 1.37) stored: its defaults, what it leaves out, how
server-side apply merges lists and drops fields. Only as much as a pool's objects need. No I/O.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from buildpool.core.objects.refs import JSON, Object

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
ATOMIC_MAPS = ("namespaceSelector", "podSelector", "selector")
APPLIED = "applied by us"
"""Stands for ``managedFields``: what we applied last."""


def stored(live: Object | None, desired: Object, *, version: int, created: str) -> Object:
    """What becomes of an object when ours is applied to it; None: there was none."""
    server = {"uid": f"uid-{version}", "generation": 1, "creationTimestamp": created}
    base: Object = {"metadata": server} if live is None else copy.deepcopy(live)
    new: Object = _merged(_dropped(base, base.pop(APPLIED, {}), desired), desired)
    new = _defaulted(_pruned(new))
    metadata = new["metadata"]
    metadata["resourceVersion"] = str(version)
    metadata["generation"] += live is not None and live.get("spec") != new.get("spec")
    return {**new, APPLIED: copy.deepcopy(desired)}


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
    if isinstance(desired, dict) and name not in ATOMIC_MAPS:
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
            obj["spec"] = _completed_service(obj["spec"])
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


def _completed_service(spec: Object) -> Object:
    """What the API server makes of a Service: addresses, unless it is but another name."""
    if spec["type"] == "ExternalName":
        return {k: v for k, v in spec.items() if k not in _SERVICE_DEFAULTS}
    return {**copy.deepcopy(_SERVICE_DEFAULTS), **spec}
