"""The persistent volume of one builder, and what all claims of a pool have in common."""

from __future__ import annotations

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object
from buildpool.core.resources.common import pool_metadata, sealed


def builder_volume(pool: Pool, index: int) -> Object | None:
    """The claim a builder keeps its local cache on; None where its storage is ephemeral."""
    claim = pool.spec.builders.storage.volume_claim
    if claim is None:
        return None
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": pool_metadata(
                pool,
                naming.builder_volume(pool.key, index),
                component=naming.COMPONENT_BUILDER,
                labels={naming.LABEL_BUILDER: naming.builder(pool.key, index)},
            ),
            "spec": claim_spec(claim.size, claim.storage_class_name),
        }
    )


def claim_spec(size: str, storage_class_name: str | None) -> Object:
    """The spec of a claim for one pod at a time; no class: the cluster's default."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage_class_name is not None:
        spec["storageClassName"] = storage_class_name
    return spec
