from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from buildpool.core.pki import (
    Authority,
    AuthorityPhase,
    Bundle,
    CertificateReason,
    Change,
    Circumstances,
    carried_out,
    deadlines,
    follows,
    issue,
    next_step,
    read,
    renew_at,
)
from unit.core.pki.certificates import CLIENT, DAY, NOW, SERVER, a_client, an_authority
from unit.core.pki.test_renewal import NEW_AUTHORITY, REISSUE, RETRUST

HOUR = timedelta(hours=1)
A, B = an_authority("a"), an_authority("b")
GARBLED = replace(B, certificate=b"?")
EXPIRED = an_authority("old", DAY)

STEADY = Authority(A)
FRESH = Authority(A, upcoming=B)
INTRODUCING = replace(FRESH, since=NOW)
REPLACING = Authority(B, previous=A.certificate, since=NOW)
TERMS = Circumstances(
    overlap=HOUR,
    certificate_lifetime=90 * DAY,
    is_requested=False,
    secrets_follow=True,
    everyone_has_it=True,
    chance=0,
)


def terms(**overrides: object) -> Circumstances:
    return replace(TERMS, **overrides)


# sentence: (authority, circumstances, when, change, reason)
STEPS = {
    "nothing yet": (None, TERMS, NOW, "create", "Missing"),
    "the one who signs is garbled": (Authority(GARBLED), TERMS, NOW, "create", "Unreadable"),
    "a garbled one has no time for phases": (
        replace(INTRODUCING, signer=GARBLED),
        TERMS,
        NOW,
        "create",
        "Unreadable",
    ),
    "the one who signs has expired": (Authority(EXPIRED), TERMS, NOW + DAY, "create", "Expired"),
    "its key is another's": (Authority(replace(A, key=B.key)), TERMS, NOW, "create", "KeyMismatch"),
    "a steady one stays": (STEADY, TERMS, NOW, None, None),
    "it stays for two thirds of its life": (
        STEADY,
        TERMS,
        renew_at(A, chance=0) - timedelta(seconds=1),
        None,
        None,
    ),
    "two thirds of its life are over": (
        STEADY,
        TERMS,
        renew_at(A, chance=0),
        "introduce",
        "RenewalDue",
    ),
    "it would cut a certificate short": (
        STEADY,
        terms(certificate_lifetime=2000 * DAY),
        NOW + 1650 * DAY,
        "introduce",
        "RenewalDue",
    ),
    "a user asks for another": (
        STEADY,
        terms(is_requested=True),
        NOW,
        "introduce",
        "RotationRequested",
    ),
    "one that is on its way is what was asked for": (
        INTRODUCING,
        terms(is_requested=True),
        NOW,
        None,
        None,
    ),
    "the clock waits for the Secrets": (FRESH, terms(secrets_follow=False), NOW, None, None),
    "all Secrets were seen to follow": (
        FRESH,
        terms(everyone_has_it=False),
        NOW,
        "start clock",
        "PhaseBegun",
    ),
    "a Secret went back": (
        INTRODUCING,
        terms(secrets_follow=False),
        NOW + HOUR,
        "stop clock",
        "PhaseBroken",
    ),
    "the clock is in the future": (
        INTRODUCING,
        TERMS,
        NOW - timedelta(seconds=1),
        "start clock",
        "PhaseBegun",
    ),
    "clients still have time": (
        INTRODUCING,
        TERMS,
        NOW + HOUR - timedelta(seconds=1),
        None,
        None,
    ),
    "a daemon runs something else": (
        INTRODUCING,
        terms(everyone_has_it=False),
        NOW + 99 * HOUR,
        None,
        None,
    ),
    "everybody trusts both": (INTRODUCING, TERMS, NOW + HOUR, "replace", "PhaseOver"),
    "everybody shows what the new one signed": (
        REPLACING,
        TERMS,
        NOW + HOUR,
        "retire",
        "PhaseOver",
    ),
    "clients still show what the old one signed": (
        REPLACING,
        TERMS,
        NOW + HOUR - timedelta(seconds=1),
        None,
        None,
    ),
    "the upcoming one is garbled": (
        replace(INTRODUCING, upcoming=GARBLED),
        TERMS,
        NOW + HOUR,
        "introduce",
        "Unreadable",
    ),
    "the upcoming one has expired": (
        replace(INTRODUCING, upcoming=EXPIRED),
        TERMS,
        NOW + DAY,
        "introduce",
        "Expired",
    ),
    "the previous one has expired": (
        replace(REPLACING, previous=EXPIRED.certificate),
        terms(everyone_has_it=False),
        NOW + DAY,
        "retire",
        "Expired",
    ),
    "the previous one is garbled": (
        replace(REPLACING, previous=b"?"),
        terms(everyone_has_it=False),
        NOW,
        "retire",
        "Unreadable",
    ),
    "a new one is not due while it takes over": (
        REPLACING,
        TERMS,
        renew_at(B, chance=0),
        "retire",
        None,
    ),
    "no overlap is wanted": (INTRODUCING, terms(overlap=timedelta(0)), NOW, "replace", None),
}


@pytest.mark.parametrize(
    ("authority", "circumstances", "now", "change", "reason"), STEPS.values(), ids=STEPS.keys()
)
def test_what_is_to_become_of_an_authority(authority, circumstances, now, change, reason):
    step = next_step(authority, circumstances, now=now)
    assert (step and step.change.value) == change
    assert reason is None or step.finding.reason == reason


def test_the_tables_show_every_reason_and_every_change():
    tables = (REISSUE, NEW_AUTHORITY, RETRUST, STEPS)
    shown = {row[-1] for table in tables for row in table.values()}
    assert shown - {None} == set(CertificateReason)
    assert {row[3] for row in STEPS.values()} - {None} == set(Change)


def a_change(change: Change, authority: Authority | None, now=NOW) -> Authority:
    return carried_out(change, authority, common_name="new", lifetime=3650 * DAY, now=now)


def test_an_authority_goes_through_its_phases_and_is_another_one():
    authority, now, seen = STEADY, NOW, [STEADY]
    circumstances = terms(is_requested=True)
    while step := next_step(authority, circumstances, now=now):
        authority = a_change(step.change, authority, now)
        circumstances, now = TERMS, now + HOUR
        seen.append(authority)
    assert [each.phase.value for each in seen] == [
        *("Steady", "Introducing", "Introducing", "Replacing", "Replacing", "Steady")
    ]
    assert authority == Authority(seen[1].upcoming)
    assert [each.since for each in seen] == [*(None, None, NOW + HOUR, None, NOW + 3 * HOUR, None)]
    trusts = [set(each.trust.split(b"-----BEGIN")) for each in seen]
    assert all(before <= after or after <= before for before, after in pairwise(trusts))


def test_the_key_of_an_authority_goes_when_it_no_longer_signs():
    replaced = a_change(Change.REPLACE, INTRODUCING)
    assert replaced == Authority(B, previous=A.certificate)


@pytest.mark.parametrize("authority", [None, STEADY, INTRODUCING, REPLACING])
def test_an_authority_that_is_created_has_nothing_to_do_with_the_one_before(authority):
    created = a_change(Change.CREATE, authority)
    assert created == Authority(created.signer)
    assert created.signer not in (A, B)


def test_an_upcoming_authority_that_is_made_anew_starts_its_phase_again():
    again = a_change(Change.INTRODUCE, INTRODUCING)
    assert again.signer == A
    assert again.upcoming not in (None, B)
    assert again.since is None


def test_what_an_authority_signs_trusts_whom_it_trusts():
    for authority in (STEADY, INTRODUCING, REPLACING):
        bundle = issue(authority, CLIENT, now=NOW)
        assert bundle.trust == authority.trust
        assert follows(bundle, authority)


@pytest.mark.parametrize(
    ("bundle", "authority"),
    [
        (issue(STEADY, SERVER, now=NOW), INTRODUCING),
        (issue(INTRODUCING, SERVER, now=NOW), STEADY),
        (issue(INTRODUCING, SERVER, now=NOW), REPLACING),
        (issue(REPLACING, SERVER, now=NOW), INTRODUCING),
        (issue(REPLACING, SERVER, now=NOW), Authority(B)),
        (replace(a_client(A), trust=b"?"), STEADY),
        (Bundle(GARBLED, trust=A.certificate), STEADY),
        (a_client(A), Authority(GARBLED)),
    ],
)
def test_what_does_not_follow(bundle, authority):
    assert not follows(bundle, authority)


def test_a_bundle_follows_however_old_its_certificate_is():
    assert follows(issue(A, replace(CLIENT, lifetime=DAY), now=NOW - 2 * DAY), STEADY)


def test_the_signer_is_trusted_first_and_no_part_runs_into_the_next():
    unended = replace(A, certificate=A.certificate.rstrip())
    authority = Authority(unended, upcoming=B, previous=EXPIRED.certificate)
    assert authority.trust == A.certificate + B.certificate + EXPIRED.certificate


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (STEADY, [renew_at(A, chance=0), NOW + 3650 * DAY]),
        (FRESH, [NOW + 3650 * DAY]),
        (INTRODUCING, [NOW + HOUR, NOW + 3650 * DAY]),
        (
            replace(REPLACING, previous=EXPIRED.certificate),
            [NOW + HOUR, NOW + 3650 * DAY, NOW + DAY],
        ),
    ],
)
def test_when_to_look_at_an_authority_again(authority, expected):
    found = deadlines(authority, overlap=HOUR, certificate_lifetime=90 * DAY, chance=0)
    assert list(found) == expected


def test_an_authority_that_must_sign_long_certificates_is_due_earlier():
    first, _ = deadlines(STEADY, overlap=HOUR, certificate_lifetime=2000 * DAY, chance=0)
    assert first == NOW + 1650 * DAY < renew_at(A, chance=0)


def test_every_phase_is_described():
    for phase in AuthorityPhase:
        assert phase.meaning.endswith(".")
        assert phase == phase.value


def test_no_repr_of_an_authority_shows_a_part_of_it():
    assert "BEGIN" not in repr(REPLACING) + repr(INTRODUCING)
    assert read(REPLACING.signer).common_name == "b"
