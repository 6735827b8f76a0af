"""Whether a live object still says what we want, and where it first does not.

The API server adds defaults and other controllers add fields: so this asks whether the *desired*
part is there, field by field, and names the first difference, which becomes the message of an
Event. It must find a lasting difference only where another apply would mend it, or a pass would
write for ever. Quantities need no care: the models keep them as the API server spells them.
"""

from __future__ import annotations

from typing import Final

from buildpool.core.objects.refs import JSON, Object

MERGE_KEYS: Final = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that the API server merges by key: items of others may stand among ours. The others are
atomic and must be equal; so are the ports of a NetworkPolicy, which have no name."""
ATOMIC_MAPS: Final = frozenset({"matchLabels", "namespaceSelector", "podSelector", "selector"})
"""Maps that are replaced whole: one more label, and a Service selects nothing."""


def first_difference(live: Object, desired: Object) -> str | None:
    """The path of the first field of ``desired`` that ``live`` lacks or has otherwise, or None."""
    return _compare(live, desired, path="", field="")


def _compare(live: JSON, desired: JSON, *, path: str, field: str) -> str | None:
    if live is None and desired in (None, "", {}, []):
        # The API server leaves out what is empty; but zero and false are there or were removed.
        return None
    match desired:
        case dict():
            if not isinstance(live, dict):
                return path or "."
            for key in sorted(desired):
                inner = f"{path}.{key}".lstrip(".")
                found = _compare(live.get(key), desired[key], path=inner, field=key)
                if found:
                    return found
            surplus = sorted(live.keys() - desired.keys()) if field in ATOMIC_MAPS else []
            return f"{path}.{surplus[0]}" if surplus else None
        case list():
            return _compare_lists(live, desired, path=path, field=field)
        case _:
            return None if live == desired else path


def _compare_lists(live: JSON, desired: list[JSON], *, path: str, field: str) -> str | None:
    if not isinstance(live, list):
        return path
    keys = MERGE_KEYS.get(field)
    if keys is None or any(key not in item for item in desired for key in keys):
        if len(live) != len(desired):
            return path
        pairs = [(f"[{index}]", live[index], item) for index, item in enumerate(desired)]
    else:
        by_key = {_label(item, keys): item for item in live}
        pairs = [(_label(item, keys), by_key.get(_label(item, keys)), item) for item in desired]
    for label, there, wanted in pairs:
        found = _compare(there, wanted, path=f"{path}{label}", field="")
        if found:
            return found
    return None


def _label(item: Object, keys: tuple[str, ...]) -> str:
    """What an item is told apart by, as it stands in a path."""
    return f"[{', '.join(str(item.get(key)) for key in keys)}]"
