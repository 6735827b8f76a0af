from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.pauses import lot
from buildpool.core.pki import (
    Authority,
    AuthorityPhase,
    Bundle,
    CertificateReason,
    CertificateRequest,
    Change,
    KeyPair,
    Use,
    issue_authority,
    read,
    renew_at,
)
from buildpool.core.planning.certificates import (
    OPERATOR_LIFETIME,
    authority_ref,
    certificate_requests,
    client_ref,
    operator_request,
)
from buildpool.core.planning.issuances import (
    Issuance,
    Order,
    Rotation,
    RotationNote,
    carry_out,
    issuances,
    renewals,
    rotation_note,
    rotation_request,
)
from buildpool.core.planning.situation import Situation
from buildpool.core.resources import authority_secret, certificate_secret
from buildpool.core.resources.secret import authority_in
from buildpool.core.words import Finding
from samples import DAY, HOME, INSTALLATION, NOW, a_pool, a_situation, clients

HOUR = timedelta(hours=1)
POOL = a_pool(access=clients("ana", "bob"))
AUTHORITY = authority_ref(POOL, INSTALLATION)
A = issue_authority("a", now=NOW, lifetime=3650 * DAY)
B = issue_authority("b", now=NOW, lifetime=3650 * DAY)


def asked(observation: Observation, pool: Pool = POOL, *, now: datetime = NOW) -> list[Issuance]:
    return list(issuances(Heard(pool, observation, INSTALLATION, now)))


def issued(
    observation: Observation, pool: Pool = POOL, *, now: datetime = NOW
) -> tuple[Situation, list[list[Issuance]]]:
    """What one pass asks for, round by round, and what it knows after it."""
    s, rounds = Heard(pool, observation, INSTALLATION, now), []
    while todo := list(issuances(s)):
        rounds.append(todo)
        s = s.with_issued(carry_out(Order(tuple(todo), s.authority, now)))
    return s, rounds


def written(s: Situation) -> Observation:
    """The world once everything that was issued is stored."""
    live = dict(s.observation.live)
    for ref, made in s.issued.items():
        if isinstance(made, Authority):
            live[ref] = authority_secret(POOL, made, namespace=HOME, clients=["ana"])
        else:
            live[ref] = certificate_secret(POOL, ref.name, made, component="any")
    return Observation(live=live)


def settled() -> Observation:
    return written(issued(Observation())[0])


def known(seen: Observation | Situation) -> Situation:
    return seen if isinstance(seen, Situation) else a_situation(POOL, seen)


def the_authority(seen: Observation | Situation) -> Authority:
    found = known(seen).authority
    assert found is not None
    return found


def bundle_at(seen: Observation | Situation, ref: Ref) -> Bundle | None:
    return known(seen).bundles[ref]


class Heard(Situation):
    """Every daemon has read its certificates."""

    everyone_runs = True


def asking(what: str) -> Pool:
    return replace(POOL, annotations={naming.ANNOTATION_ROTATE: what})


def kinds(todo: list[Issuance]) -> set[type]:
    return {type(each.what) for each in todo}


def secrets(todo: list[Issuance]) -> list[Ref]:
    return [each.secret for each in todo]


LEAVES = list(certificate_requests(POOL, INSTALLATION))


# --- what is asked for ---------------------------------------------------------------------------


def test_first_an_authority_is_made_and_then_what_it_signs() -> None:
    s, (first, second) = issued(Observation())
    assert [(each.secret, each.what) for each in first] == [(AUTHORITY, Change.CREATE)]
    assert secrets(second) == LEAVES
    assert kinds(second) == {CertificateRequest}
    assert s.issued[AUTHORITY] == the_authority(s)


def test_a_settled_pool_asks_for_nothing() -> None:
    assert asked(settled()) == []


def test_one_pass_takes_an_authority_one_step_only() -> None:
    pool = replace(POOL, spec=a_pool(access={"authorityOverlap": "0s"}).spec)
    pool = replace(pool, annotations={naming.ANNOTATION_ROTATE: "authority"})
    s, rounds = issued(settled(), pool)
    assert [each.what for todo in rounds for each in todo if each.secret == AUTHORITY] == [
        Change.INTRODUCE
    ]
    assert the_authority(s).phase is AuthorityPhase.INTRODUCING


def test_introducing_changes_the_trust_of_every_secret_and_no_certificate() -> None:
    before = settled()
    observation, (_, second) = issued(before, asking("authority"))
    assert secrets(second) == LEAVES
    assert kinds(second) == {KeyPair}
    assert {each.why.reason for each in second} == {CertificateReason.TRUST_CHANGED}
    authority = the_authority(observation)
    for ref in LEAVES:
        old, new = bundle_at(before, ref), bundle_at(observation, ref)
        assert old is not None
        assert new == Bundle(old.pair, trust=authority.trust)


def test_garbled_trust_is_mended_without_another_certificate() -> None:
    observation = settled()
    ref = client_ref(POOL, "ana")
    bundle = bundle_at(observation, ref)
    assert bundle is not None
    broken = certificate_secret(POOL, ref.name, replace(bundle, trust=b"?"), component="any")
    observation = Observation(live={**observation.live, ref: broken})
    mended, ((only,),) = issued(observation)
    assert (only.secret, only.what) == (ref, bundle.pair)
    assert bundle_at(mended, ref) == bundle


def test_an_absent_secret_does_not_hold_up_a_phase() -> None:
    introduced = written(issued(settled(), asking("authority"))[0])
    live = dict(introduced.live)
    del live[client_ref(POOL, "ana")]
    (first, *_) = asked(Observation(live=live))
    assert first.what is Change.START_CLOCK


def test_what_was_only_issued_does_not_start_the_clock() -> None:
    before = settled()
    introduced, _ = issued(before, asking("authority"))
    authority = written(introduced).live[AUTHORITY]
    half = Observation(live={**before.live, AUTHORITY: authority})
    observation, rounds = issued(half)
    assert {type(each.what) for todo in rounds for each in todo} == {KeyPair}
    assert the_authority(observation).since is None


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("authority", Rotation.AUTHORITY),
        ("certificates", Rotation.CERTIFICATES),
        ("Authority", None),
        ("everything", None),
        ("", None),
    ],
)
def test_what_can_be_asked_for(text: str, expected: Rotation | None) -> None:
    assert rotation_request(asking(text)) is expected


def test_who_asks_for_nothing_gets_nothing() -> None:
    assert rotation_request(POOL) is None
    assert asked(settled(), asking("something else")) == []


def test_every_request_is_described() -> None:
    assert all(each.meaning.endswith(".") for each in Rotation)


def test_certificates_that_are_asked_for_are_issued_once_in_a_pass() -> None:
    before = settled()
    observation, rounds = issued(before, asking("certificates"), now=NOW + HOUR)
    ((*todo,),) = rounds
    assert secrets(todo) == LEAVES
    assert {each.why.reason for each in todo} == {CertificateReason.ROTATION_REQUESTED}
    for ref in LEAVES:
        old, new = bundle_at(before, ref), bundle_at(observation, ref)
        assert old is not None
        assert new is not None
        assert old.pair != new.pair
        assert old.trust == new.trust
    assert the_authority(observation) == the_authority(before)
    assert asked(written(observation), now=NOW + HOUR) == []


def noted(pool: Pool, seen: Observation, now: datetime) -> Observation:
    """The world with the authority's Secret as the pass writes it first."""
    s = a_situation(pool, seen, now=now)
    note = rotation_note(s)
    secret = authority_secret(
        POOL,
        the_authority(s),
        namespace=HOME,
        clients=["ana"],
        rotated=None if note is None else str(note),
    )
    return Observation(live={**seen.live, AUTHORITY: secret})


def test_a_request_is_carried_out_once_though_one_secret_stays_refused() -> None:
    pool, now = asking("certificates"), NOW + HOUR
    before = noted(pool, settled(), now)
    s, rounds = issued(before, pool, now=now)
    assert [secrets(todo) for todo in rounds] == [LEAVES]
    refused = client_ref(POOL, "ana")
    stored = {**written(s).live, AUTHORITY: before.live[AUTHORITY], refused: before.live[refused]}
    for minutes in (1, 60):
        later = issued(Observation(live=stored), pool, now=now + timedelta(minutes=minutes))
        assert [secrets(todo) for todo in later[1]] == [[refused]]


@pytest.mark.parametrize("value", ["certificates", "certificates-2026-12-01"])
def test_certificates_of_the_very_second_of_a_request_are_older_than_it(value: str) -> None:
    pool, before = asking(value), settled()
    s, rounds = issued(before, pool, now=NOW + timedelta(seconds=0.9))
    assert [secrets(todo) for todo in rounds] == [LEAVES]
    note = noted(pool, before, NOW + timedelta(seconds=0.9)).live[AUTHORITY]
    after = Observation(live={**written(s).live, AUTHORITY: note})
    assert issued(after, pool, now=NOW + timedelta(seconds=0.95))[1] == []


def test_a_request_that_was_carried_out_can_be_made_again() -> None:
    first = noted(asking("certificates"), settled(), NOW + HOUR)
    without = noted(POOL, first, NOW + 2 * HOUR)
    assert "rotated" not in str(without.live[AUTHORITY]["metadata"]["annotations"])
    again = noted(asking("certificates"), without, NOW + 3 * HOUR)
    _, ((*todo,),) = issued(again, asking("certificates"), now=NOW + 3 * HOUR)
    assert secrets(todo) == LEAVES


def test_a_request_with_a_token_is_carried_out_once_however_often_it_is_put_back() -> None:
    pool, now = asking("certificates-2026-11-30"), NOW + HOUR
    assert rotation_request(pool) is Rotation.CERTIFICATES
    before = noted(pool, settled(), now)
    s, _ = issued(before, pool, now=now)
    after = Observation(live={**written(s).live, AUTHORITY: before.live[AUTHORITY]})
    gone = noted(POOL, after, now + HOUR)
    assert issued(gone, pool, now=now + 2 * HOUR)[1] == []
    other = asking("certificates-2026-12-01")
    _, ((*todo,),) = issued(noted(other, gone, now + HOUR), other, now=now + HOUR)
    assert secrets(todo) == LEAVES


def test_a_request_that_was_noted_by_a_clock_that_was_ahead_ends_within_the_pass() -> None:
    pool = asking("certificates")
    ahead = noted(pool, settled(), NOW + 10 * HOUR)
    _, (*rounds,) = issued(ahead, pool, now=NOW + HOUR)
    assert [secrets(todo) for todo in rounds] == [LEAVES]
    again = noted(pool, ahead, NOW + HOUR)
    text = again.live[AUTHORITY]["metadata"]["annotations"][naming.ANNOTATION_ROTATED]
    assert text == str(RotationNote("certificates", NOW + HOUR))


def test_another_authority_is_asked_for_with_a_token_once_however_often_it_is_put_back() -> None:
    pool, now = asking("authority-2026-11-30"), NOW + HOUR
    assert asked(settled(), pool, now=now) != []
    begun = noted(pool, settled(), now)
    assert asked(begun, pool, now=now + DAY) == []


@pytest.mark.parametrize("text", ["", "certificates", "certificates yesterday", "x 2026-01-01"])
def test_a_note_that_cannot_be_read_is_none(text: str) -> None:
    secret = {"metadata": {"annotations": {naming.ANNOTATION_ROTATED: text}}}
    assert RotationNote.read(secret) is None


@pytest.mark.parametrize("what", Rotation)
def test_a_new_pool_has_what_it_asks_for(what: str) -> None:
    _, rounds = issued(Observation(), asking(what))
    assert [len(todo) for todo in rounds] == [1, len(LEAVES)]


def test_a_rotation_that_goes_on_is_the_one_that_is_asked_for() -> None:
    introduced = written(issued(settled(), asking("authority"))[0])
    counted = written(issued(introduced, asking("authority"))[0])
    assert asked(counted, asking("authority")) == []


# --- when to look again --------------------------------------------------------------------------


def test_the_first_renewal_of_a_new_pool_is_that_of_its_certificates() -> None:
    due = NOW + 90 * DAY * (2 / 3 - lot(POOL.uid) / 10)
    assert min(renewals(a_situation(POOL, settled()))) == due


def test_pools_of_one_minute_are_not_renewed_in_one_minute() -> None:
    pools = [a_pool(uid=f"{number}") for number in range(1000)]
    bundle = bundle_at(settled(), LEAVES[0])
    assert bundle is not None
    due = [renew_at(bundle.pair, chance=a_situation(pool).chance) for pool in pools]
    assert NOW + 51 * DAY <= min(due) < NOW + 52 * DAY
    assert NOW + 59 * DAY < max(due) <= NOW + 60 * DAY
    minutes = Counter((moment - NOW) // timedelta(minutes=1) for moment in due)
    assert max(minutes.values()) <= 4


def test_all_certificates_of_a_pool_are_renewed_together() -> None:
    seen = settled()
    first = min(renewals(a_situation(POOL, seen)))
    assert asked(seen, now=first - timedelta(seconds=1)) == []
    assert secrets(asked(seen, now=first)) == LEAVES


def test_a_pool_without_certificates_has_nothing_to_renew() -> None:
    assert not list(renewals(a_situation(POOL)))


def test_an_authority_has_its_own_times() -> None:
    steady = settled()
    signer = the_authority(steady).signer
    found = set(renewals(a_situation(POOL, steady)))
    assert {renew_at(signer, chance=lot(POOL.uid)), read(signer).not_after} < found
    introduced = written(issued(steady, asking("authority"))[0])
    counted = written(issued(introduced)[0])
    assert min(renewals(a_situation(POOL, counted))) == NOW + HOUR


# --- the operator's own --------------------------------------------------------------------------


def test_the_operator_is_a_client_that_is_known_by_its_uri() -> None:
    authority = Authority(A, upcoming=B)
    request = operator_request(POOL)
    why = Finding(CertificateReason.MISSING, "")
    made = carry_out(Order((Issuance(AUTHORITY, request, why),), authority, NOW))[AUTHORITY]
    assert isinstance(made, Bundle)
    facts = read(made.pair)
    assert facts.uses == (Use.CLIENT,)
    assert facts.uris == ("buildpool://builds/ci/operator",)
    assert facts.not_after == NOW + OPERATOR_LIFETIME
    assert made.trust == authority.trust


# --- how an authority is stored ------------------------------------------------------------------

STORED = {
    "steady": Authority(A),
    "introducing": Authority(A, upcoming=B),
    "introducing, with its clock": Authority(A, upcoming=B, since=NOW),
    "replacing": Authority(B, previous=A.certificate),
    "replacing, with its clock": Authority(
        B, previous=A.certificate, since=NOW + timedelta(microseconds=1)
    ),
}


def stored(authority: Authority) -> Object:
    return authority_secret(POOL, authority, namespace=HOME, clients=["ana"])


@pytest.mark.parametrize("authority", STORED.values(), ids=STORED)
def test_an_authority_is_read_back_as_it_was_written(authority: Authority) -> None:
    assert authority_in(stored(authority)) == authority


def test_a_steady_authority_looks_as_it_always_did() -> None:
    secret = stored(Authority(A))
    assert set(secret["data"]) == {"tls.crt", "tls.key"}
    assert naming.ANNOTATION_PHASE_SINCE not in secret["metadata"]["annotations"]


def test_the_key_of_a_former_authority_is_not_stored() -> None:
    secret = stored(Authority(B, previous=A.certificate, since=NOW))
    values = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert values == {"tls.crt": B.certificate, "tls.key": B.key, "previous.crt": A.certificate}


def spoiled(authority: Authority, spoil: Callable[[Object], object]) -> Authority | None:
    secret = deepcopy(stored(authority))
    spoil(secret)
    return authority_in(secret)


def clock(text: str) -> Callable[[Object], object]:
    return lambda secret: secret["metadata"]["annotations"].update(
        {naming.ANNOTATION_PHASE_SINCE: text}
    )


INTRODUCING = STORED["introducing, with its clock"]


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01T12:00:00", "9"])
def test_a_clock_that_cannot_be_read_starts_again(text: str) -> None:
    assert spoiled(INTRODUCING, clock(text)) == replace(INTRODUCING, since=None)


def test_a_steady_authority_has_no_clock() -> None:
    assert spoiled(Authority(A), clock(NOW.isoformat())) == Authority(A)


@pytest.mark.parametrize("lost", ["next.crt", "next.key"])
def test_half_an_upcoming_authority_is_made_anew(lost: str) -> None:
    found = spoiled(INTRODUCING, lambda secret: secret["data"].pop(lost))
    assert found is not None
    assert found.phase is AuthorityPhase.INTRODUCING
    live = dict(settled().live)
    live[AUTHORITY] = stored(found)
    (step,) = asked(Observation(live=live))
    assert (step.what, step.why.reason) == (Change.INTRODUCE, CertificateReason.UNREADABLE)


@pytest.mark.parametrize("lost", ["tls.crt", "tls.key"])
def test_without_the_one_who_signs_there_is_no_authority(lost: str) -> None:
    assert spoiled(INTRODUCING, lambda secret: secret["data"].pop(lost)) is None


def test_what_is_not_there_holds_no_authority() -> None:
    assert authority_in(None) is None
    assert authority_in({"metadata": {}, "data": None}) is None
