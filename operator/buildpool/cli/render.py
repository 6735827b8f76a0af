"""``buildpool render``: what a pool would consist of, as YAML, without a cluster."""

from __future__ import annotations

import asyncio

import yaml

from buildpool.controller.act import issue_all
from buildpool.controller.clock import utc_now
from buildpool.core.api import Pool
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.certificates import authority_of
from buildpool.core.planning.plan import plan


def render(pool: Pool, *, home: str, image: str) -> str:
    """The objects of a pool that is applied to an empty cluster now."""
    now, observation = utc_now(), Observation()
    todo = plan(pool, observation, home=home, image=image, now=now)
    while todo.issue:
        authority = authority_of(pool, observation, home=home)
        issued = asyncio.run(issue_all(todo.issue, authority, now=now))
        observation = observation.with_issued(issued)
        todo = plan(pool, observation, home=home, image=image, now=now)
    return "".join(
        "---\n" + yaml.safe_dump(change.object, sort_keys=False) for change in todo.apply
    )
