"""The NetworkPolicy that keeps clients from going past the gateway."""

from __future__ import annotations

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.objects.refs import Object
from buildpool.core.resources.common import pool_metadata, sealed


def builder_policy(pool: Pool, *, installed_in: str) -> Object | None:
    """Only the gateway and the operator reach the pool's builders; None with Direct routing.

    A builder trusts every certificate of its pool. Whether a client still is one, whose turn it is
    and what it may do, only the gateway asks (docs/adr/0022). ``installed_in`` is the
    namespace of both.
    """
    if pool.spec.routing is not Routing.GATEWAY:
        return None
    return sealed(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": pool_metadata(
                pool, naming.builder_policy(pool.key), component=naming.COMPONENT_BUILDER
            ),
            "spec": {
                "podSelector": {"matchLabels": naming.builder_selector(pool.key)},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        "ports": [{"protocol": "TCP", "port": naming.PORT}],
                        "from": [
                            _pods_of(naming.COMPONENT_GATEWAY, installed_in=installed_in),
                            _pods_of(naming.COMPONENT_OPERATOR, installed_in=installed_in),
                        ],
                    }
                ],
            },
        }
    )


def _pods_of(component: str, *, installed_in: str) -> Object:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": installed_in}},
        "podSelector": {"matchLabels": naming.installation_selector(component)},
    }
