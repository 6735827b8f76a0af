"""When a new authority, certificate or trust is needed, and why.

Decisions as data: each check is a named function, and the whole behaviour reads in the two lists.
The first finding wins, because one new certificate mends all of them. Nothing here issues anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from cryptography import x509

from buildpool.core.errors import CertificateError
from buildpool.core.pki.issuing import expiry
from buildpool.core.pki.reading import is_signed_by, load_certificate, load_trust, read
from buildpool.core.pki.values import (
    CLOCK_SKEW,
    Authority,
    Bundle,
    CertificateRequest,
    Facts,
    KeyPair,
    short_name,
)
from buildpool.core.words import Finding, Word

FORWARD: Final = 0.1
"""The share of a life by which chance may bring a renewal forward."""


class CertificateReason(Word):
    """Why a certificate or an authority has to be issued anew."""

    MISSING = "Missing", "There is none yet, or its Secret was deleted."
    UNREADABLE = "Unreadable", "The certificate, its key or the trusted authorities are garbled."
    KEY_MISMATCH = "KeyMismatch", "The private key does not belong to the certificate."
    AUTHORITY_CHANGED = "AuthorityChanged", "The pool's present authority did not sign it."
    TRUST_CHANGED = "TrustChanged", "It does not trust exactly the pool's present authorities."
    NAMES_CHANGED = "NamesChanged", "Its names or addresses are not those that are wanted."
    USE_CHANGED = "UseChanged", "It is not good for exactly the use that is wanted."
    LIFETIME_CHANGED = "LifetimeChanged", "It does not last as long as is wanted."
    NOT_YET_VALID = "NotYetValid", "Its life has not begun: a clock was ahead when it was issued."
    EXPIRED = "Expired", "Its life is over."
    RENEWAL_DUE = (
        "RenewalDue",
        "Up to two thirds of its life are over, or an authority would cut what it signs short.",
    )
    ROTATION_REQUESTED = "RotationRequested", "A user asked for it."
    PHASE_BEGUN = (
        "PhaseBegun",
        "All Secrets follow the present phase of an authority's replacement; its time begins.",
    )
    PHASE_BROKEN = (
        "PhaseBroken",
        "A Secret no longer follows the present phase; its time begins again when it does.",
    )
    PHASE_OVER = "PhaseOver", "Everybody is ready for the next phase."


Why = Finding[CertificateReason] | None
"""Why something has to be issued again; None where it does not."""


def why_new_authority(current: KeyPair, *, now: datetime) -> Why:
    """Why an authority can sign nothing, so that another one is needed at once; None if it can."""
    try:
        case = _Case(read(current), now)
    except CertificateError as error:
        return Finding(CertificateReason.UNREADABLE, str(error))
    return next((finding for check in _AUTHORITY if (finding := check(case))), None)


def why_reissue(
    current: Bundle | None,
    request: CertificateRequest,
    authority: Authority | KeyPair,
    *,
    chance: float,
    now: datetime,
) -> Why:
    """Why a certificate has to be issued anew, or None if the present one will do.

    ``chance``, from 0 up to 1, brings an ordinary renewal forward: see ``renew_at``.
    Whom its bundle trusts is another question (``why_retrust``). The one who signs must be
    sound (``why_new_authority``): CertificateError if it is unreadable.
    """
    signer = authority.signer if isinstance(authority, Authority) else authority
    issuer = load_certificate(signer)
    if current is None:
        return Finding(CertificateReason.MISSING, "there is no certificate")
    try:
        case = _Leaf(
            facts=read(current.pair),
            now=now,
            certificate=load_certificate(current.pair),
            request=request,
            issuer=issuer,
            chance=chance,
        )
    except CertificateError as error:
        return Finding(CertificateReason.UNREADABLE, str(error))
    return next((finding for check in _LEAF if (finding := check(case))), None)


def why_retrust(current: Bundle, trust: bytes) -> Why:
    """Why a bundle needs other trusted authorities, though its certificate will do.

    CertificateError if those that are wanted are unreadable.
    """
    wanted = set(load_trust(trust))
    try:
        if set(load_trust(current.trust)) == wanted:
            return None
    except CertificateError as error:
        return Finding(CertificateReason.UNREADABLE, str(error))
    return Finding(
        CertificateReason.TRUST_CHANGED, "the trusted authorities are not exactly the present ones"
    )


def renew_at(pair: KeyPair, *, chance: float) -> datetime:
    """When the renewal of a certificate is due: at two thirds of its life, or sooner by chance.

    The life counts from the moment of issue. ``chance``, from 0 up to 1, brings it forward by up to
    a tenth of the life: what was issued in one minute is not all renewed in one. It is never later.
    """
    return _renew_at(read(pair), chance)


def begins(party: Authority | Bundle | None) -> datetime | None:
    """When the life of an authority or certificate begins; None where none can be read."""
    facts = _facts_of(party)
    return facts.not_before if facts else None


def ends(party: Authority | Bundle | None) -> datetime | None:
    """When the life of an authority or certificate ends; None where none can be read."""
    facts = _facts_of(party)
    return facts.not_after if facts else None


def _facts_of(party: Authority | Bundle | None) -> Facts | None:
    if party is None:
        return None
    try:
        return read(party.signer if isinstance(party, Authority) else party.pair)
    except CertificateError:
        return None


def issued_at(pair: KeyPair) -> datetime:
    """When a certificate was issued, by the clock of whoever did; in whole seconds."""
    return _issued(read(pair))


@dataclass(frozen=True, slots=True)
class _Case:
    facts: Facts
    now: datetime


@dataclass(frozen=True, slots=True)
class _Leaf(_Case):
    certificate: x509.Certificate
    request: CertificateRequest
    issuer: x509.Certificate
    chance: float


def _key_mismatch(case: _Case) -> Why:
    if case.facts.key_matches:
        return None
    return Finding(
        CertificateReason.KEY_MISMATCH, "the private key does not belong to the certificate"
    )


def _authority_changed(case: _Leaf) -> Why:
    if is_signed_by(case.certificate, case.issuer):
        return None
    return Finding(
        CertificateReason.AUTHORITY_CHANGED, "the present authority did not sign the certificate"
    )


def _names_changed(case: _Leaf) -> Why:
    facts, request = case.facts, case.request
    has = _names(facts.common_name, facts.dns_names, facts.ip_addresses, facts.uris)
    wanted = _names(
        short_name(request.common_name), request.dns_names, request.ip_addresses, request.uris
    )
    differing = has ^ wanted
    if request.patient_names:
        waits = f"DNS:{request.patient_names}"
        differing = frozenset(name for name in differing if not name.startswith(waits))
    if not differing:
        return None
    missing = ", ".join(sorted(wanted & differing)) or "nothing"
    superfluous = ", ".join(sorted(has & differing)) or "nothing"
    return Finding(
        CertificateReason.NAMES_CHANGED,
        f"the names changed; missing: {missing}; no longer wanted: {superfluous}",
    )


def _use_changed(case: _Leaf) -> Why:
    if case.facts.uses == (case.request.use,):
        return None
    uses = ", ".join(case.facts.uses) or "nothing"
    return Finding(
        CertificateReason.USE_CHANGED,
        f"the certificate is good for: {uses}; wanted: {case.request.use}",
    )


def _lifetime_changed(case: _Leaf) -> Why:
    issued = _issued(case.facts)
    wanted = min(expiry(issued, case.request.lifetime), case.issuer.not_valid_after_utc)
    if case.facts.not_after == wanted:
        return None
    return Finding(
        CertificateReason.LIFETIME_CHANGED,
        f"the certificate lasts {case.facts.not_after - issued}; wanted: {wanted - issued}",
    )


def _expired(case: _Case) -> Why:
    if case.now < case.facts.not_after:
        return None
    return Finding(CertificateReason.EXPIRED, f"it expired at {case.facts.not_after:{_TIME}}")


def _not_yet_valid(case: _Case) -> Why:
    start = case.facts.not_before
    if case.now >= start:
        return None
    message = f"it is not valid before {start:{_TIME}}: a clock was ahead when it was issued"
    return Finding(CertificateReason.NOT_YET_VALID, message)


def _renewal_due(case: _Leaf) -> Why:
    due = _renew_at(case.facts, case.chance)
    if case.now < due:
        return None
    return Finding(
        CertificateReason.RENEWAL_DUE,
        f"its renewal was due at {due:{_TIME}}; it expires at {case.facts.not_after:{_TIME}}",
    )


_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

_AUTHORITY: tuple[Callable[[_Case], Why], ...] = (
    _key_mismatch,  # what it signs would be refused everywhere
    _expired,  # so is everything it ever signed
)

_LEAF: tuple[Callable[[_Leaf], Why], ...] = (
    _key_mismatch,  # somebody edited the Secret, or wrote half of it
    _authority_changed,  # the other side would refuse it
    _names_changed,  # a client was renamed, or the pool is reached under another name
    _use_changed,  # a client's certificate must never serve, nor a server's connect
    _lifetime_changed,  # accept the user's new duration now, not at the next renewal
    _expired,  # the operator was away for too long
    _not_yet_valid,  # everybody would refuse it until then
    _renewal_due,  # the ordinary case; last, so that the others explain themselves first
)


def _names(
    common_name: str, dns: tuple[str, ...], ips: tuple[str, ...], uris: tuple[str, ...]
) -> frozenset[str]:
    return frozenset(
        (
            f"CN={common_name}",
            *(f"DNS:{name}" for name in dns),
            *(f"IP:{ip_address(address)}" for address in ips),
            *(f"URI:{uri}" for uri in uris),
        )
    )


def _issued(facts: Facts) -> datetime:
    return facts.not_before + CLOCK_SKEW


def _renew_at(facts: Facts, chance: float) -> datetime:
    issued = _issued(facts)
    return issued + (facts.not_after - issued) * (2 / 3 - FORWARD * chance)
