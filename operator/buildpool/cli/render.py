"""``buildpool render``: what a pool would consist of, as YAML, without a cluster."""

from __future__ import annotations

import yaml

from buildpool.core import naming
from buildpool.core.api import Pool, parse_pool
from buildpool.core.naming import Installation
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.plan import planned
from buildpool.core.planning.situation import Situation
from buildpool.process import utc_now


def rendered(text: str, *, home: str, image: str) -> str:
    """The objects of all pools in a manifest; empty where there is none."""
    documents = [d for d in yaml.safe_load_all(text) if d and d.get("kind") == naming.KIND]
    return "".join(
        _rendered(parse_pool(d, is_stored=False), home=home, image=image) for d in documents
    )


def _rendered(pool: Pool, *, home: str, image: str) -> str:
    """The objects of a pool that is applied to an empty cluster now."""
    _, plan = planned(Situation(pool, Observation(), Installation(home, image), utc_now()))
    return "".join(
        "---\n" + yaml.safe_dump(change.object, sort_keys=False) for change in plan.apply
    )
