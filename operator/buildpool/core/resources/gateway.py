"""What the gateway is told about a pool: two Secrets in the operator's own namespace.

The gateway reads no spec and none of the user's Secrets. What it serves a pool with, and what it
has to know of it, changes together or not at all: both are in one Secret.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from buildpool.core import naming
from buildpool.core.api import Inject, Pool
from buildpool.core.api.brief import BRIEF_KEY, Brief, CacheBrief, ClientBrief
from buildpool.core.naming import Installation
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Bundle
from buildpool.core.resources.common import sealed
from buildpool.core.resources.recipes import cache_location, is_flat


def brief_of(pool: Pool, *, domain: str) -> Brief:
    """What the gateway has to know of a pool, in a cluster with this domain."""
    key, spec = pool.key, pool.spec
    location = cache_location(pool)
    names = naming.gateway_names(naming.service(key), key.namespace, domain)
    return Brief(
        namespace=key.namespace,
        name=key.name,
        uid=pool.uid,
        created=pool.created,
        server_names=(*names, *spec.gateway.hostnames),
        upstream_name=names[-2],
        slots=spec.builders.slots,
        max_wait=spec.gateway.max_wait,
        affinity=spec.gateway.affinity,
        clients=tuple(
            ClientBrief(
                identity=naming.client_identity(key, client.name),
                name=client.name,
                weight=client.weight,
                inject=Inject.NONE if location is None else client.inject or spec.cache.inject,
                may_export=client.inject is not Inject.IMPORT,
            )
            for client in spec.access.clients
        ),
        cache=None
        if location is None
        else CacheBrief(
            location=location,
            architecture=spec.builders.architecture.value,
            is_flat=is_flat(pool),
            export_interval=spec.cache.export_interval,
        ),
    )


def gateway_secret(
    pool: Pool, bundle: Bundle, *, installation: Installation, cancel: str = ""
) -> Object:
    """What the gateway shows a pool's clients, and what it has to know of the pool.

    ``cancel`` is what users ask for of builds that run, if anything (``core.api.cancellation``).
    """
    told = brief_of(pool, domain=installation.domain)
    brief = told.model_dump_json(by_alias=True, exclude_none=True).encode()
    name = naming.gateway_certificate(pool.key)
    annotations = {naming.ANNOTATION_CANCEL: cancel} if cancel else {}
    return _secret(pool, name, installation.namespace, bundle, brief, annotations)


def upstream_secret(pool: Pool, bundle: Bundle, *, namespace: str) -> Object:
    """What the gateway shows a pool's builders."""
    return _secret(pool, naming.gateway_upstream(pool.key), namespace, bundle, None, {})


def _secret(
    pool: Pool,
    name: str,
    namespace: str,
    bundle: Bundle,
    brief: bytes | None,
    annotations: Mapping[str, str],
) -> Object:
    data = {
        "ca.pem": bundle.trust,
        "tls.crt": bundle.pair.certificate,
        "tls.key": bundle.pair.key,
        **({} if brief is None else {BRIEF_KEY: brief}),
    }
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {
                    **naming.detached_labels(pool.key),
                    "app.kubernetes.io/component": naming.COMPONENT_GATEWAY,
                },
                # An owner reference cannot cross namespaces.
                "annotations": {
                    **naming.KEPT,
                    naming.ANNOTATION_POOL_UID: pool.uid,
                    **annotations,
                },
            },
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value).decode() for key, value in sorted(data.items())},
        }
    )
