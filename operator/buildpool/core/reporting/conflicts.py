"""Names that a pool needs and somebody else has: whose they are, and what helps. Pure.

Two pools can need one name: that of a client's Secret is made of two names, and a pool may be
called as another one calls its cache. Nobody may then be told to remove what the other pool needs.
"""

from __future__ import annotations

from collections.abc import Iterable

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Ref, component_of, maker_of, mapping_at
from buildpool.core.planning.certificates import client_ref
from buildpool.core.planning.situation import Situation


def about_taken(s: Situation, refs: Iterable[Ref]) -> str:
    """Why the pool cannot have these names, and how it can."""
    refs = sorted(refs)
    foreign = [ref for ref in refs if _pool_with(s, ref) is None]
    parts = [
        f"{ref} exists and is needed by pool {other}; {_remedy(s, ref, other)}."
        for ref in refs
        if (other := _pool_with(s, ref))
    ]
    if foreign:
        names = ", ".join(map(str, foreign))
        parts.insert(0, f"{names} exists and is not this pool's; rename the pool or remove it.")
    return " ".join(parts)


def about_clients(s: Situation, refs: Iterable[Ref]) -> str:
    """The same for the Secrets of clients, without which the others do."""
    return " ".join(_about_client(s, ref) for ref in sorted(refs))


def _about_client(s: Situation, ref: Ref) -> str:
    other = _pool_with(s, ref)
    whose = f"is needed by pool {other}" if other else "is not this pool's"
    remedy = "rename the client" if other else "rename the client or remove the Secret"
    return f"access.clients{_place(s.pool, ref)}: {ref} exists and {whose}; {remedy}."


def _place(pool: Pool, ref: Ref) -> str:
    """Which of the clients has this Secret."""
    for number, client in enumerate(pool.spec.access.clients):
        if client_ref(pool, client.name) == ref:
            return f"[{number}].name ({client.name})"
    return ""


def _pool_with(s: Situation, ref: Ref) -> PoolKey | None:
    """The other pool that has made an object; None where it was nobody like that."""
    obj = s.observation.live.get(ref)
    if obj is None or not maker_of(obj):
        return None
    other = naming.pool_of(mapping_at(obj, "metadata", "labels"))
    # Of a namesake that lived before, or copied from another namespace: nobody needs it.
    is_there = other is not None and other != s.pool.key and other.namespace == ref.namespace
    return other if is_there else None


def _remedy(s: Situation, ref: Ref, other: PoolKey) -> str:
    client = ref.name.removeprefix(naming.client_certificate(other, ""))
    if component_of(s.observation.live[ref]) == naming.COMPONENT_CLIENT:
        return f"rename this pool, or the client {client} in access.clients of the other one"
    return "rename one of the two pools"
