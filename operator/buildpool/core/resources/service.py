"""The Service in front of a pool's builders."""

from __future__ import annotations

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.objects.refs import Object
from buildpool.core.resources.common import owned_metadata, sealed


def pool_service(pool: Pool, *, gateway: str) -> Object:
    """What clients connect to. With the gateway, another name of it (docs/adr/0021).

    Otherwise a plain ClusterIP Service: a connection goes to one of the Ready builders and stays
    there.

    A builder that is to go loses its label first: it takes no new connection, and keeps those it
    has.

    All RPCs of a build travel on one TCP connection, so nothing smarter is needed to keep a build
    together (buildx and buildctl open one connection per process and node).
    """
    spec = {
        "type": "ClusterIP",
        "selector": {**naming.builder_selector(pool.key), naming.LABEL_SERVING: "true"},
        "ports": [
            {
                "name": "buildkit",
                "protocol": "TCP",
                "port": naming.PORT,
                "targetPort": "buildkit",
            }
        ],
    }
    if pool.spec.routing is Routing.GATEWAY:
        spec = {"type": "ExternalName", "externalName": gateway}
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": owned_metadata(
                pool, naming.service(pool.key), component=naming.COMPONENT_ENDPOINT
            ),
            "spec": spec,
        }
    )
