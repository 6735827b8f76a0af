"""How one authority takes over from another so that no handshake fails meanwhile.

    Steady        A signs    {A} is trusted
    Introducing   A signs    {A, B} is trusted   B has a key and signs nothing
    Replacing     B signs    {B, A} is trusted   the key of A is gone
    Steady        B signs    {B} is trusted

A handshake succeeds where each end trusts the one who signed the other. So parties of the same
phase and of phases that follow each other always meet, and those of phases farther apart do not.
Hence the two conditions for the next phase: every daemon runs what the Secrets say, since it reads
them once; and every client had ``overlap`` to read its Secret again. That time counts from when all
Secrets were *seen* to follow the phase, not from when they were to be written: an operator may die
between the two and come back after days.

The order of writes: first the authority, then in any order all Secrets it vouches for, then the
daemons are replaced. Breaking off anywhere leaves parties of two neighbouring phases, and the next
pass finds the Secrets that lag behind by comparing. An authority that were written last could be
lost with a key that has signed already.

Where the signer is lost or useless there is nothing to phase with: a new one signs everything at
once. Deleting an authority thus is the way to shut out whoever has a copy of a certificate.

Pure, as the whole package. Never lets an upcoming authority sign, and never keeps an old key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from buildpool.core.errors import CertificateError
from buildpool.core.pki.issuing import issue_authority
from buildpool.core.pki.reading import is_signed_by, load_certificate, load_trust, read
from buildpool.core.pki.renewal import (
    CertificateReason,
    Why,
    renew_at,
    why_new_authority,
    why_retrust,
)
from buildpool.core.pki.values import Authority, AuthorityPhase, Bundle
from buildpool.core.words import Finding


class Change(StrEnum):
    """One step of an authority; ``carried_out`` tells what becomes of it."""

    CREATE = "create"
    """A new one, without phases; whatever was there is trusted no more."""
    INTRODUCE = "introduce"
    """Another one is made and trusted."""
    REPLACE = "replace"
    """The one that was introduced signs from now on."""
    RETIRE = "retire"
    """The one that signed before is trusted no more."""
    START_CLOCK = "start clock"
    """The time of the phase counts from now."""
    STOP_CLOCK = "stop clock"
    """The time of the phase does not count yet, or not any more."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to become of an authority, and why."""

    change: Change
    finding: Finding[CertificateReason]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a step depends on, besides the authority and the time."""

    overlap: timedelta
    """How long clients get to read their Secrets again."""
    certificate_lifetime: timedelta
    """Of the longest certificate that is to be signed."""
    is_requested: bool
    """Whether a user asks for another authority. One that is on its way is that."""
    secrets_follow: bool
    """Whether every Secret there is holds what the present phase wants (``follows``)."""
    everyone_has_it: bool
    """Whether every daemon runs what its Secret says."""
    chance: float
    """From 0 up to 1: brings the renewal of an authority forward, as that of a certificate."""


def next_step(
    authority: Authority | None, circumstances: Circumstances, *, now: datetime
) -> Step | None:
    """What is to become of an authority now; None if it stays as it is."""
    if authority is None:
        return Step(Change.CREATE, _MISSING)
    if finding := why_new_authority(authority.signer, now=now):
        return Step(Change.CREATE, finding)
    if authority.previous is not None and (finding := _why_useless(authority.previous, now=now)):
        return Step(Change.RETIRE, finding)
    if authority.upcoming and (finding := why_new_authority(authority.upcoming, now=now)):
        return Step(Change.INTRODUCE, finding)
    if authority.phase is not AuthorityPhase.STEADY:
        return _within_phase(authority, circumstances, now)
    finding = _why_rotate(authority, circumstances, now)
    return None if finding is None else Step(Change.INTRODUCE, finding)


def carried_out(
    change: Change,
    authority: Authority | None,
    *,
    common_name: str,
    lifetime: timedelta,
    now: datetime,
) -> Authority:
    """The authority after a step. Name and lifetime are those of a new one, if one is made."""
    if change is Change.CREATE or authority is None:
        return Authority(issue_authority(common_name, now=now, lifetime=lifetime))
    match change:
        case Change.INTRODUCE:
            upcoming = issue_authority(common_name, now=now, lifetime=lifetime)
            return replace(authority, upcoming=upcoming, since=None)
        case Change.REPLACE:
            assert authority.upcoming is not None  # noqa: S101 - the step is taken with it only
            return Authority(authority.upcoming, previous=authority.signer.certificate)
        case Change.RETIRE:
            return replace(authority, previous=None, since=None)
        case Change.START_CLOCK:
            return replace(authority, since=now)
        case Change.STOP_CLOCK:
            return replace(authority, since=None)


def follows(bundle: Bundle, authority: Authority) -> bool:
    """Whether a bundle is what the authority's phase wants, however soon its renewal is due."""
    try:
        is_ours = is_signed_by(load_certificate(bundle.pair), load_certificate(authority.signer))
        return is_ours and why_retrust(bundle, authority.trust) is None
    except CertificateError:
        return False


def deadlines(
    authority: Authority, *, overlap: timedelta, certificate_lifetime: timedelta, chance: float
) -> Iterator[datetime]:
    """When something may become of an authority, if only time passes; see ``Circumstances``.

    A moment that is over means that its daemons are waited for. CertificateError if a part is
    unreadable.
    """
    if authority.phase is AuthorityPhase.STEADY:
        yield _rotate_at(authority, certificate_lifetime, chance)
    elif authority.since is not None:
        yield authority.since + overlap
    yield read(authority.signer).not_after
    if authority.previous is not None:
        yield load_trust(authority.previous)[0].not_valid_after_utc


def _within_phase(authority: Authority, circumstances: Circumstances, now: datetime) -> Step | None:
    since = authority.since
    if not circumstances.secrets_follow:
        return None if since is None else Step(Change.STOP_CLOCK, _BROKEN)
    if since is None or since > now:  # the future is what somebody wrote, or a clock went wrong
        return Step(Change.START_CLOCK, _BEGUN)
    if now < since + circumstances.overlap or not circumstances.everyone_has_it:
        return None
    return Step(_NEXT[authority.phase], _OVER)


def _why_rotate(authority: Authority, circumstances: Circumstances, now: datetime) -> Why:
    if circumstances.is_requested:
        return Finding(CertificateReason.ROTATION_REQUESTED, "a new authority was asked for")
    if now < _rotate_at(authority, circumstances.certificate_lifetime, circumstances.chance):
        return None
    return Finding(
        CertificateReason.RENEWAL_DUE,
        "its renewal is due, or it ends before a new certificate would",
    )


def _rotate_at(authority: Authority, certificate_lifetime: timedelta, chance: float) -> datetime:
    """When the next one is due: the present one has to live on while it is introduced.

    A certificate that is cut short would be renewed sooner than the last, and so on.
    """
    facts = read(authority.signer)
    return min(renew_at(authority.signer, chance=chance), facts.not_after - certificate_lifetime)


def _why_useless(previous: bytes, *, now: datetime) -> Why:
    """Why a former authority need not be trusted any longer, whoever still counts on it."""
    try:
        is_over = load_trust(previous)[0].not_valid_after_utc <= now
    except CertificateError as error:
        return Finding(CertificateReason.UNREADABLE, str(error))
    return Finding(CertificateReason.EXPIRED, "its predecessor expired") if is_over else None


_NEXT: Final = {
    AuthorityPhase.INTRODUCING: Change.REPLACE,
    AuthorityPhase.REPLACING: Change.RETIRE,
}
_MISSING: Final = Finding(CertificateReason.MISSING, "there is no authority")
_BEGUN: Final = Finding(CertificateReason.PHASE_BEGUN, "every Secret follows the present phase")
_BROKEN: Final = Finding(CertificateReason.PHASE_BROKEN, "a Secret left the present phase")
_OVER: Final = Finding(
    CertificateReason.PHASE_OVER, "every daemon runs what the Secrets say, and clients had time"
)
