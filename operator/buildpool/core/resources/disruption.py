"""The PodDisruptionBudget that keeps evictions away from builds."""

from __future__ import annotations

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object
from buildpool.core.resources.common import pool_metadata, sealed


def disruption_budget(pool: Pool) -> Object:
    """No pod on which builds run may be evicted; all others may.

    One object for all builders of a pool, for its selector follows what runs: the pods are labelled
    busy and idle. So a node that is drained waits for its builds, and for nothing else.
    """
    return sealed(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": pool_metadata(
                pool, naming.disruption_budget(pool.key), component=naming.COMPONENT_BUILDER
            ),
            "spec": {
                "maxUnavailable": 0,
                "selector": {
                    "matchLabels": {
                        **naming.builder_selector(pool.key),
                        naming.LABEL_BUSY: "true",
                    }
                },
            },
        }
    )
