"""What is known of a build before it has a builder: what it is of, and which builder suits it."""

from __future__ import annotations

from typing import Final

from buildpool.buildkit.solve_requests import Solve
from buildpool.core.routing.affinity import Traits, key_of
from buildpool.gateway.ext_proc.calls import Call
from buildpool.gateway.pools.served import ServedPool

CONTEXT_SECONDS: Final = 0.1
"""How long a solve that names no source and no image waits for its session, which opens at the
same time."""


async def traits_of(call: Call, served: ServedPool, client: str, solve: Solve) -> Traits:
    """What the build of a solve is of. Waits a little where only its session says."""
    contexts = served.contexts
    if solve.source or solve.images or solve.is_internal:
        context = contexts.known(call.identity, solve.session)
    else:
        context = await contexts.soon_known(call.identity, solve.session, seconds=CONTEXT_SECONDS)
    return Traits(
        source=solve.source,
        part=solve.part,
        platforms=solve.platforms,
        inputs=solve.inputs,
        image=solve.images[0] if solve.images else "",
        context=context,
        client=client,
    )


def affinity_key(served: ServedPool, traits: Traits) -> str | None:
    """What builds that shall share a builder have in common; None where nothing says."""
    key = key_of(traits, served.brief.affinity)
    return None if key is None else f"{key[0].value}:{key[1]}"
