"""Prints a pool as the API server holds it when there is nothing to do; a program of its own.

    PYTHONPATH=<checkout>/operator:<checkout>/tests python a_world.py CLIENTS BUILDERS

By the test helpers of whatever checkout that is: its objects are those of that checkout.
"""

from __future__ import annotations

import json
import sys

from memory_cluster import settled
from memory_storage import APPLIED
from samples import a_pool, a_raw_pool, clients


def main(number: str, builders: str) -> None:
    """A pool with so many clients and builders, as JSON."""
    spec = {
        "scaling": {"min": int(builders), "max": int(builders)},
        "access": clients(*(f"client-{n}" for n in range(int(number)))),
    }
    pool = a_pool(**spec)
    cluster = settled(pool)
    stored = [
        {key: value for key, value in obj.items() if key != APPLIED}
        for obj in cluster.observe(pool).live.values()
    ]
    world = {
        "pool": a_raw_pool(status=cluster.status, **spec),
        "objects": stored,
        "pods": list(cluster.pods.values()),
        "now": cluster.now.isoformat(),
    }
    json.dump(world, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
