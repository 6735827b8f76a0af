"""The certificates of a pool: which there shall be, which there are, and which are due.

Pure, but for the keys it makes. Whether one certificate will do, and how an authority is replaced,
is ``pki``'s judgement; this knows what a pool needs them for and in which Secrets they lie.

Every request of a user for new certificates is carried out once in a pass: what was issued in this
very pass is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import (
    Authority,
    AuthorityPhase,
    Bundle,
    CertificateReason,
    CertificateRequest,
    Change,
    Circumstances,
    Finding,
    KeyPair,
    Use,
    carried_out,
    deadlines,
    follows,
    issue,
    next_step,
    renew_at,
    why_reissue,
    why_retrust,
)
from buildpool.core.resources import bundle_of, managed_registry
from buildpool.core.resources.secret import authority_in
from buildpool.core.words import Word

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_LOOPBACK: Final = ("127.0.0.1", "::1")


OPERATOR_LIFETIME: Final = timedelta(hours=24)
"""Of the operator's own certificate, which it keeps in memory."""


class Rotation(Word):
    """What a user can ask for by the annotation ``buildpool.dev/rotate`` of a pool."""

    AUTHORITY = "authority", "Another authority, in phases, and with it other certificates."
    CERTIFICATES = "certificates", "Other certificates of the present authority, at once."


@dataclass(frozen=True, slots=True)
class Issuance:
    """What has to be made, and for which Secret, before anything else can be planned."""

    secret: Ref
    what: Change | CertificateRequest | KeyPair
    """A step of the authority, or a new certificate, or the present one, which only gets the trust
    that is wanted now."""
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


def gateway_secrets(pool: Pool, *, home: str) -> tuple[Ref, Ref]:
    """The Secrets of the gateway: what it shows the pool's clients, and what its builders."""
    names = naming.gateway_certificate(pool.key), naming.gateway_upstream(pool.key)
    return Ref("Secret", home, names[0]), Ref("Secret", home, names[1])


def certificate_requests(pool: Pool, *, home: str) -> Mapping[Ref, CertificateRequest]:
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
    if pool.spec.routing is Routing.GATEWAY:
        server, upstream = gateway_secrets(pool, home=home)
        names = naming.gateway_names(naming.service(key), key.namespace)
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


def noted_clients(pool: Pool, live: Mapping[Ref, Object], *, home: str) -> tuple[str, ...]:
    """The clients that may have a Secret, as noted beside the authority."""
    secret = live.get(authority_ref(pool, home=home))
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    return tuple(filter(None, annotations.get(naming.ANNOTATION_CLIENTS, "").split(",")))


def bundle_at(observation: Observation, ref: Ref) -> Bundle | None:
    """The bundle in a Secret, or the one issued for it in this very pass."""
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, Bundle) else bundle_of(observation.live.get(ref))


def authority_of(pool: Pool, observation: Observation, *, home: str) -> Authority | None:
    """The pool's authority, or what became of it in this very pass."""
    ref = authority_ref(pool, home=home)
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, Authority) else authority_in(observation.live.get(ref))


def operator_request(pool: Pool) -> CertificateRequest:
    """The certificate by which the operator may ask the builders what they do."""
    return CertificateRequest(
        use=Use.CLIENT,
        common_name=f"{pool.key} operator",
        uris=(naming.operator_identity(pool.key),),
        lifetime=OPERATOR_LIFETIME,
    )


def rotation_request(pool: Pool) -> Rotation | None:
    """What a user asks for; None for nothing, or for something that there is not."""
    try:
        return Rotation(pool.annotations.get(naming.ANNOTATION_ROTATE, ""))
    except ValueError:
        return None


def issuances(
    pool: Pool, observation: Observation, *, home: str, now: datetime, everyone_has_it: bool = False
) -> Iterator[Issuance]:
    """What has to be made: first a step of the authority, and after it what it shall sign.

    ``everyone_has_it``: whether every daemon of the pool runs what its Secret says.
    """
    ref = authority_ref(pool, home=home)
    authority = authority_of(pool, observation, home=home)
    # One step in a pass: the next one has to see what became of the Secrets.
    if ref not in observation.issued:
        circumstances = _circumstances(pool, observation, authority, everyone_has_it, home=home)
        step = next_step(authority, circumstances, now=now)
        if step is not None:
            yield Issuance(ref, step.change, step.finding.reason, step.finding.message)
            return
    if authority is None:
        return
    for ref, request in certificate_requests(pool, home=home).items():
        current = bundle_at(observation, ref)
        found = why_reissue(current, request, authority, now=now)
        if found is None and ref not in observation.issued:
            found = _why_requested(pool)
        if found is not None:
            yield Issuance(ref, request, found.reason, found.message)
        elif current is not None and (found := why_retrust(current, authority.trust)):
            yield Issuance(ref, current.pair, found.reason, found.message)


def carry_out(
    todo: Iterable[Issuance], authority: Authority | None, *, now: datetime
) -> Mapping[Ref, Authority | Bundle]:
    """What a plan asks for. Takes a processor's time: it makes keys and signs."""
    issued: dict[Ref, Authority | Bundle] = {}
    for issuance in todo:
        if isinstance(issuance.what, Change):
            issued[issuance.secret] = carried_out(
                issuance.what,
                authority,
                common_name=f"buildpool {issuance.secret.name}",
                lifetime=AUTHORITY_LIFETIME,
                now=now,
            )
            continue
        assert authority is not None  # noqa: S101 - an authority is planned for first
        issued[issuance.secret] = (
            issue(authority, issuance.what, now=now)
            if isinstance(issuance.what, CertificateRequest)
            else Bundle(issuance.what, trust=authority.trust)
        )
    return issued


def renewals(pool: Pool, observation: Observation, *, home: str) -> Iterator[datetime]:
    """When something becomes due by the mere passing of time.

    A moment that is over stands for something that waits for daemons, not for time.
    """
    for ref in certificate_requests(pool, home=home):
        if (bundle := bundle_at(observation, ref)) is not None:
            yield renew_at(bundle.pair)
    if (authority := authority_of(pool, observation, home=home)) is not None:
        access = pool.spec.access
        yield from deadlines(
            authority,
            overlap=access.authority_overlap,
            certificate_lifetime=access.certificate_duration,
        )


def _circumstances(
    pool: Pool,
    observation: Observation,
    authority: Authority | None,
    everyone_has_it: bool,
    *,
    home: str,
) -> Circumstances:
    access = pool.spec.access
    return Circumstances(
        overlap=access.authority_overlap,
        certificate_lifetime=access.certificate_duration,
        is_requested=rotation_request(pool) is Rotation.AUTHORITY,
        secrets_follow=authority is not None
        and _secrets_follow(pool, observation, authority, home=home),
        everyone_has_it=everyone_has_it,
    )


def _secrets_follow(
    pool: Pool, observation: Observation, authority: Authority, *, home: str
) -> bool:
    """Whether all Secrets that can be read hold what the present phase wants.

    Those that are written, not those that were only issued. One that is absent misleads nobody.
    """
    if authority.phase is AuthorityPhase.STEADY:
        return True  # and nobody asks
    refs = certificate_requests(pool, home=home)
    bundles = (bundle_of(observation.live.get(ref)) for ref in refs)
    return all(follows(bundle, authority) for bundle in bundles if bundle is not None)


def _why_requested(pool: Pool) -> Finding | None:
    if rotation_request(pool) is not Rotation.CERTIFICATES:
        return None
    return Finding(CertificateReason.ROTATION_REQUESTED, "a new certificate was asked for")
