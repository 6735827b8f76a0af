"""Whether a live object still says what we want, and where it first does not.

The API server adds defaults and other controllers add fields: so this asks whether the *desired*
part is there, field by field, and names the first difference, which becomes the message of an
Event. It must find a lasting difference only where another apply would mend it, or a pass would
write for ever. Quantities need no care: the models keep them as the API server spells them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

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


class Difference(NamedTuple):
    """A field that a live object lacks or has otherwise."""

    path: str
    found: JSON
    """What is there; None where nothing is."""


def first_difference(live: Object, desired: Object) -> str | None:
    """The path of the first field of ``desired`` that ``live`` lacks or has otherwise, or None."""
    found = next(differences(live, desired), None)
    return None if found is None else found.path


def differences(live: Object, desired: Object) -> Iterator[Difference]:
    """Every field of ``desired`` that ``live`` lacks or has otherwise, in the order of paths."""
    return _compare(live, desired, path="", field="")


def _compare(live: JSON, desired: JSON, *, path: str, field: str) -> Iterator[Difference]:
    if live is None and desired in (None, "", {}, []):
        # The API server leaves out what is empty; but zero and false are there or were removed.
        return
    match desired:
        case dict():
            if not isinstance(live, dict):
                yield Difference(path or ".", live)
                return
            for key in sorted(desired):
                inner = f"{path}.{key}".lstrip(".")
                yield from _compare(live.get(key), desired[key], path=inner, field=key)
            if field in ATOMIC_MAPS:
                for key in sorted(live.keys() - desired.keys()):
                    yield Difference(f"{path}.{key}", live[key])
        case list():
            yield from _compare_lists(live, desired, path=path, field=field)
        case _:
            if live != desired:
                yield Difference(path, live)


def _compare_lists(
    live: JSON, desired: list[JSON], *, path: str, field: str
) -> Iterator[Difference]:
    if not isinstance(live, list):
        yield Difference(path, live)
        return
    keys = MERGE_KEYS.get(field)
    if keys is None or any(key not in item for item in desired for key in keys):
        if len(live) != len(desired):
            yield Difference(path, live)
            return
        pairs = [(f"[{index}]", live[index], item) for index, item in enumerate(desired)]
    else:
        by_key = {_label(item, keys): item for item in live}
        pairs = [(_label(item, keys), by_key.get(_label(item, keys)), item) for item in desired]
    for label, there, wanted in pairs:
        yield from _compare(there, wanted, path=f"{path}{label}", field="")


def _label(item: Object, keys: tuple[str, ...]) -> str:
    """What an item is told apart by, as it stands in a path."""
    return f"[{', '.join(str(item.get(key)) for key in keys)}]"
