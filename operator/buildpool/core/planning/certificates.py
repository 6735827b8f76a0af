"""The certificates of a pool: which there shall be, what for, and in which Secrets they lie. Pure.

Which of them are due is ``issuances``'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.api.spec import CLIENT_NAME
from buildpool.core.naming import Installation
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.pki import CertificateRequest, Use
from buildpool.core.resources import managed_registry

_LOOPBACK: Final = ("127.0.0.1", "::1")
OPERATOR_LIFETIME: Final = timedelta(hours=24)
"""Of the operator's own certificate, which it keeps in memory."""


def authority_ref(pool: Pool, installation: Installation) -> Ref:
    """The Secret with the pool's authority."""
    return Ref("Secret", installation.namespace, naming.authority(pool.key))


def client_ref(pool: Pool, name: str) -> Ref:
    """The Secret of one client."""
    return Ref("Secret", pool.key.namespace, naming.client_certificate(pool.key, name))


def builder_ref(pool: Pool) -> Ref:
    """The Secret with the certificate that the builders serve with."""
    return Ref("Secret", pool.key.namespace, naming.builder_certificate(pool.key))


def cache_secrets(pool: Pool) -> tuple[Ref, Ref]:
    """The Secrets of a managed cache: the registry's own, and the one its builders show it."""
    key = pool.key
    names = naming.cache(key), naming.cache_client(key)
    return Ref("Secret", key.namespace, names[0]), Ref("Secret", key.namespace, names[1])


def gateway_secrets(pool: Pool, installation: Installation) -> tuple[Ref, Ref]:
    """The Secrets of the gateway: what it shows the pool's clients, and what its builders."""
    home = installation.namespace
    names = naming.gateway_certificate(pool.key), naming.gateway_upstream(pool.key)
    return Ref("Secret", home, names[0]), Ref("Secret", home, names[1])


def certificate_requests(
    pool: Pool, installation: Installation
) -> Mapping[Ref, CertificateRequest]:
    """The certificates a pool consists of, by their Secrets.

    Another domain of the cluster replaces no pod: those of builders and of a managed cache take the
    name with their next certificate. The gateway's needs no new pod, and has it at once.
    """
    key, lifetime = pool.key, pool.spec.access.certificate_duration
    domain = installation.domain
    requests = {
        builder_ref(pool): CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} builder",
            dns_names=naming.server_names(naming.service(key), key.namespace, domain),
            ip_addresses=_LOOPBACK,
            lifetime=lifetime,
            patient_names=naming.before_domain(naming.service(key), key.namespace),
        )
    }
    if managed_registry(pool) is not None:
        registry, builders = cache_secrets(pool)
        requests[registry] = CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} cache",
            dns_names=naming.server_names(naming.cache(key), key.namespace, domain),
            ip_addresses=_LOOPBACK,
            lifetime=lifetime,
            patient_names=naming.before_domain(naming.cache(key), key.namespace),
        )
        requests[builders] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} builder",
            uris=(naming.builder_identity(key),),
            lifetime=lifetime,
        )
    if pool.spec.routing is Routing.GATEWAY:
        server, upstream = gateway_secrets(pool, installation)
        names = naming.gateway_names(naming.service(key), key.namespace, domain)
        requests[server] = CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} gateway",
            dns_names=(*names, *pool.spec.gateway.hostnames),
            lifetime=lifetime,
        )
        requests[upstream] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} gateway",
            uris=(naming.gateway_identity(key),),
            lifetime=lifetime,
        )
    for client in pool.spec.access.clients:
        requests[client_ref(pool, client.name)] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} {client.name}",
            uris=(naming.client_identity(key, client.name),),
            lifetime=lifetime,
        )
    return requests


def noted_clients(authority: Object | None) -> tuple[str, ...]:
    """The clients that may have a Secret, as noted beside the authority: in its Secret."""
    annotations = ((authority or {}).get("metadata") or {}).get("annotations") or {}
    return tuple(filter(None, annotations.get(naming.ANNOTATION_CLIENTS, "").split(",")))


def clients_with_secrets(pool: Pool, authority: Object | None) -> frozenset[str]:
    """The clients that may have a Secret, in the spec or not any more.

    As noted beside the authority, which somebody may have removed, and as the status names them.
    """
    told = (client.name for client in pool.status.clients)
    return frozenset((*noted_clients(authority), *filter(_CLIENT.fullmatch, told)))


_CLIENT: Final = re.compile(CLIENT_NAME)


def operator_request(pool: Pool) -> CertificateRequest:
    """The certificate by which the operator may ask the builders what they do."""
    return CertificateRequest(
        use=Use.CLIENT,
        common_name=f"{pool.key} operator",
        uris=(naming.operator_identity(pool.key),),
        lifetime=OPERATOR_LIFETIME,
    )
