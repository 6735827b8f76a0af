"""Which certificates of a pool are due, and what becomes of its authority.

Pure, but for the keys it makes. Whether one certificate will do, and how an authority is replaced,
is ``pki``'s judgement; this knows which there are and asks about each.

A request of a user for new certificates is noted beside the authority, in the first write that it
causes, and carried out once: what was issued since is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.pki import (
    Authority,
    AuthorityPhase,
    Bundle,
    CertificateReason,
    CertificateRequest,
    Change,
    Circumstances,
    KeyPair,
    carried_out,
    deadlines,
    follows,
    issue,
    issued_at,
    next_step,
    renew_at,
    why_reissue,
    why_retrust,
)
from buildpool.core.planning.certificates import authority_ref
from buildpool.core.planning.situation import Situation
from buildpool.core.words import Finding, Word

AUTHORITY_LIFETIME: Final = timedelta(days=3650)


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
    why: Finding[CertificateReason]


@dataclass(frozen=True, slots=True)
class Order:
    """What is issued at once, and by whom."""

    issuances: tuple[Issuance, ...]
    authority: Authority | None
    """The one that signs; None where the order is to make one."""
    now: datetime


@dataclass(frozen=True, slots=True)
class RotationNote:
    """A request for a rotation, as it stands beside the authority: it is carried out once."""

    value: str
    """What the annotation of the pool asked for."""
    moment: datetime
    """When that was first seen: what was issued before is issued again."""

    @classmethod
    def read(cls, authority: Object | None) -> RotationNote | None:
        """The note in the authority's Secret; None where there is none that can be read."""
        annotations = ((authority or {}).get("metadata") or {}).get("annotations") or {}
        value, _, moment = str(annotations.get(naming.ANNOTATION_ROTATED, "")).rpartition(" ")
        try:
            found = cls(value, datetime.fromisoformat(moment))
        except ValueError:
            return None
        return found if value and found.moment.tzinfo else None

    def __str__(self) -> str:
        return f"{self.value} {self.moment.isoformat()}"


def rotation_note(s: Situation) -> RotationNote | None:
    """What is to stand beside the authority about requests for a rotation.

    A value with a token (``certificates-TOKEN``) stands for good, so that a tool which puts the
    annotation back asks for nothing new.
    """
    noted = _noted(s)
    if rotation_request(s.pool) is not None:
        asked = s.pool.annotations[naming.ANNOTATION_ROTATE]
        # A moment to come was noted by a clock that was ahead.
        if noted is not None and noted.value == asked and noted.moment <= s.now:
            return noted
        return RotationNote(asked, s.now.replace(microsecond=0))
    return noted if noted is not None and "-" in noted.value else None


def _noted(s: Situation) -> RotationNote | None:
    return RotationNote.read(s.own.get(authority_ref(s.pool, s.installation)))


def rotation_request(pool: Pool) -> Rotation | None:
    """What a user asks for; None for nothing, or for something that there is not."""
    try:
        return Rotation(pool.annotations.get(naming.ANNOTATION_ROTATE, "").partition("-")[0])
    except ValueError:
        return None


def issuances(s: Situation) -> Iterator[Issuance]:
    """What has to be made: first a step of the authority, and after it what it shall sign."""
    ref = authority_ref(s.pool, s.installation)
    authority = s.authority
    # One step in a pass: the next one has to see what became of the Secrets.
    if ref not in s.issued:
        step = next_step(authority, _circumstances(s), now=s.now)
        if step is not None:
            yield Issuance(ref, step.change, step.finding)
            return
    if authority is None:
        return
    renew_before = _renew_before(s)
    for ref, request in s.requests.items():
        if ref in s.taken or ref in s.issued:
            continue  # nothing is issued twice in one pass
        current = s.bundles[ref]
        found = why_reissue(current, request, authority, chance=s.chance, now=s.now)
        if found is None and current is not None and issued_at(current.pair) < renew_before:
            found = _REQUESTED
        if found is not None:
            yield Issuance(ref, request, found)
        elif current is not None and (found := why_retrust(current, authority.trust)):
            yield Issuance(ref, current.pair, found)


def carry_out(order: Order) -> Mapping[Ref, Authority | Bundle]:
    """What was ordered. Takes a processor's time: it makes keys and signs."""
    issued: dict[Ref, Authority | Bundle] = {}
    for issuance in order.issuances:
        if isinstance(issuance.what, Change):
            issued[issuance.secret] = carried_out(
                issuance.what,
                order.authority,
                common_name=f"buildpool {issuance.secret.name}",
                lifetime=AUTHORITY_LIFETIME,
                now=order.now,
            )
            continue
        assert order.authority is not None  # noqa: S101 - an authority is ordered first
        issued[issuance.secret] = (
            issue(order.authority, issuance.what, now=order.now)
            if isinstance(issuance.what, CertificateRequest)
            else Bundle(issuance.what, trust=order.authority.trust)
        )
    return issued


def renewals(s: Situation) -> Iterator[datetime]:
    """When something becomes due by the mere passing of time.

    A moment that is over stands for something that waits for daemons, not for time.
    """
    for bundle in s.bundles.values():
        if bundle is not None:
            yield renew_at(bundle.pair, chance=s.chance)
    if s.authority is not None:
        access = s.pool.spec.access
        yield from deadlines(
            s.authority,
            overlap=access.authority_overlap,
            certificate_lifetime=access.certificate_duration,
            chance=s.chance,
        )


def _circumstances(s: Situation) -> Circumstances:
    access, authority = s.pool.spec.access, s.authority
    # Nobody asks while no authority is being replaced.
    is_replaced = authority is not None and authority.phase is not AuthorityPhase.STEADY
    return Circumstances(
        overlap=access.authority_overlap,
        certificate_lifetime=access.certificate_duration,
        is_requested=rotation_request(s.pool) is Rotation.AUTHORITY and not _is_noted(s),
        secrets_follow=not is_replaced or _secrets_follow(s),
        everyone_has_it=not is_replaced or s.everyone_runs,
        chance=s.chance,
    )


def _is_noted(s: Situation) -> bool:
    """Whether the present request stands beside the authority already: it was begun then."""
    noted = _noted(s)
    return noted is not None and noted.value == s.pool.annotations.get(naming.ANNOTATION_ROTATE)


def _secrets_follow(s: Situation) -> bool:
    """Whether all Secrets that can be read hold what the present phase wants.

    Those that are written, not those that were only issued. One that is absent misleads nobody.
    """
    authority = s.authority
    bundles = s.stored_bundles.values()
    return authority is not None and all(follows(b, authority) for b in bundles if b is not None)


def _renew_before(s: Situation) -> datetime:
    """When what is to be issued again because a user asks for it was issued: before this."""
    if rotation_request(s.pool) is not Rotation.CERTIFICATES or (note := rotation_note(s)) is None:
        return datetime.min.replace(tzinfo=UTC)
    # What is there as a request is first seen is older than it, be it by less than the second in
    # which certificates count.
    return note.moment if note == _noted(s) else datetime.max.replace(tzinfo=UTC)


_REQUESTED: Final = Finding(CertificateReason.ROTATION_REQUESTED, "a new certificate was asked for")
