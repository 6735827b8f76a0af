"""Which shared caches are added to a build: what is known of it, put before ``sharing``."""

from __future__ import annotations

from datetime import datetime

from buildpool.buildkit.solve_requests import Solve
from buildpool.core.api import Inject
from buildpool.core.api.brief import ClientBrief
from buildpool.core.routing.affinity import Traits
from buildpool.core.routing.sharing import (
    NOTHING,
    Share,
    Wish,
    caches_of,
    repository_of,
    share,
    variant_of,
)
from buildpool.gateway.pools.served import ServedPool


def share_of(
    served: ServedPool, client: ClientBrief, traits: Traits, solve: Solve, *, now: datetime
) -> Share:
    """What is added to a build that begins now. Notes that it exports what it shall export."""
    cache = served.brief.cache
    repository = repository_of(cache, traits) if cache is not None else None
    if cache is None or repository is None or solve.is_internal or client.inject is Inject.NONE:
        return NOTHING
    wish = Wish(
        imports=bool(solve.imports),
        exports=bool(solve.exports),
        is_no_cache=solve.is_no_cache,
        is_exact=solve.is_exact,
    )
    variant = variant_of(cache, traits)
    exports = client.inject is Inject.FULL and not wish.exports
    number = None
    if variant:
        variants = served.caches.variants(repository)
        number = variants.number_of(variant, now=now, exports=exports)
    caches = caches_of(cache, repository, variant, number)
    shared = share(cache, caches, client, wish, exported=served.caches.exported, now=now)
    served.caches.note_exports(shared.exports, now)
    return shared
