"""The certificates of a pool: which there shall be, which there are, and which are due.

Pure. Whether one certificate will do is ``pki``'s judgement; this knows what a pool needs them for
and in which Secrets they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool import naming
from buildpool.api import Pool
from buildpool.observation import Observation
from buildpool.pki import (
    Bundle,
    CertificateReason,
    CertificateRequest,
    Finding,
    KeyPair,
    Use,
    read,
    renew_at,
    why_new_authority,
    why_reissue,
)
from buildpool.resources import Object, Ref, bundle_of, managed_registry, pair_of

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Issuance:
    """A certificate to be issued before anything else can be planned; no request: an authority."""

    secret: Ref
    request: CertificateRequest | None
    reason: CertificateReason
    message: str


def authority_ref(pool: Pool, *, home: str) -> Ref:
    """The Secret with the pool's authority."""
    return Ref("Secret", home, naming.authority(pool.key))


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


def certificate_requests(pool: Pool) -> Mapping[Ref, CertificateRequest]:
    """The certificates a pool consists of, by their Secrets."""
    key, lifetime = pool.key, pool.spec.access.certificate_duration
    requests = {
        builder_ref(pool): CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} builder",
            dns_names=naming.server_names(naming.service(key), key.namespace),
            ip_addresses=_LOOPBACK,
            lifetime=lifetime,
        )
    }
    if managed_registry(pool) is not None:
        registry, builders = cache_secrets(pool)
        requests[registry] = CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} cache",
            dns_names=naming.server_names(naming.cache(key), key.namespace),
            ip_addresses=_LOOPBACK,
            lifetime=lifetime,
        )
        requests[builders] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} builder",
            uris=(naming.builder_identity(key),),
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


def noted_clients(pool: Pool, live: Mapping[Ref, Object], *, home: str) -> tuple[str, ...]:
    """The clients that may have a Secret, as noted beside the authority."""
    secret = live.get(authority_ref(pool, home=home))
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    return tuple(filter(None, annotations.get(naming.ANNOTATION_CLIENTS, "").split(",")))


def bundle_at(observation: Observation, ref: Ref) -> Bundle | None:
    """The bundle in a Secret, or the one issued for it in this very pass."""
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, Bundle) else bundle_of(observation.live.get(ref))


def authority_at(pool: Pool, observation: Observation, *, home: str) -> KeyPair | None:
    """The pool's authority, or the one issued for it in this very pass."""
    ref = authority_ref(pool, home=home)
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, KeyPair) else pair_of(observation.live.get(ref))


def issuances(
    pool: Pool, observation: Observation, *, home: str, now: datetime
) -> Iterator[Issuance]:
    """What has to be issued: first an authority, and once it is there, what it shall sign."""
    authority = authority_at(pool, observation, home=home)
    finding = why_new_authority(authority, now=now) or _ends_too_soon(pool, authority, now=now)
    if finding is not None:
        yield Issuance(authority_ref(pool, home=home), None, finding.reason, finding.message)
    if finding is not None or authority is None:
        return
    for ref, request in certificate_requests(pool).items():
        found = why_reissue(bundle_at(observation, ref), request, authority, now=now)
        if found is not None:
            yield Issuance(ref, request, found.reason, found.message)


def next_renewal(pool: Pool, observation: Observation) -> datetime | None:
    """When the first of the pool's certificates is due; None where there are none."""
    bundles = (bundle_at(observation, ref) for ref in certificate_requests(pool))
    return min((renew_at(bundle.pair) for bundle in bundles if bundle is not None), default=None)


def _ends_too_soon(pool: Pool, authority: KeyPair | None, *, now: datetime) -> Finding | None:
    """Whether new certificates would be cut short: each would be renewed sooner than the last."""
    if (
        authority is None
        or now + pool.spec.access.certificate_duration <= read(authority).not_after
    ):
        return None
    return Finding(CertificateReason.RENEWAL_DUE, "it ends before a new certificate would")
