from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.errors import CertificateError
from buildpool.core.pki import (
    Bundle,
    CertificateReason,
    KeyPair,
    issue,
    renew_at,
    why_new_authority,
    why_reissue,
    why_retrust,
)
from buildpool.core.words import Finding
from unit.core.pki.certificates import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    a_client,
    a_server,
    an_authority,
    facts_of,
)

SECOND = timedelta(seconds=1)
GOOD = a_server()
OTHER = an_authority("other")
OLD = a_server(dns_names=(*SERVER.dns_names, "ci.builds.svc.cluster.local"))
PATIENT = replace(
    SERVER,
    dns_names=(*SERVER.dns_names, "ci.builds.svc.k8s.test"),
    patient_names="ci.builds.svc.",
)
"""What is wanted in another domain."""


def reason(finding: Finding | None) -> str | None:
    return finding and finding.reason


# sentence: (current, what is wanted, now, reason)
REISSUE = {
    "a fresh certificate stays": (GOOD, SERVER, NOW, None),
    "a certificate is valid a little before its issue": (
        GOOD,
        SERVER,
        NOW - timedelta(minutes=5),
        None,
    ),
    "a certificate was issued under a clock that was ahead": (
        GOOD,
        SERVER,
        NOW - timedelta(minutes=5, seconds=1),
        CertificateReason.NOT_YET_VALID,
    ),
    "a certificate stays for two thirds of its life": (
        GOOD,
        SERVER,
        NOW + 60 * DAY - SECOND,
        None,
    ),
    "the order of names does not matter": (
        GOOD,
        replace(SERVER, dns_names=("localhost", "ci.builds.svc")),
        NOW,
        None,
    ),
    "the spelling of an address does not matter": (
        GOOD,
        replace(SERVER, ip_addresses=("10.96.0.7", "fd00:0::0:7")),
        NOW,
        None,
    ),
    "nothing yet": (None, SERVER, NOW, "Missing"),
    "a broken certificate": (
        replace(GOOD, pair=replace(GOOD.pair, certificate=b"?")),
        SERVER,
        NOW,
        "Unreadable",
    ),
    "a broken key": (replace(GOOD, pair=replace(GOOD.pair, key=b"?")), SERVER, NOW, "Unreadable"),
    "somebody else's key": (
        replace(GOOD, pair=replace(GOOD.pair, key=a_server().pair.key)),
        SERVER,
        NOW,
        "KeyMismatch",
    ),
    "another authority signed it": (a_server(OTHER), SERVER, NOW, "AuthorityChanged"),
    "an authority of the same name signed it": (
        issue(an_authority("builds/ci", 1000 * DAY), SERVER, now=NOW),
        SERVER,
        NOW,
        "AuthorityChanged",
    ),
    "a name came": (
        GOOD,
        replace(SERVER, dns_names=(*SERVER.dns_names, "new")),
        NOW,
        "NamesChanged",
    ),
    "a name went": (GOOD, replace(SERVER, dns_names=("localhost",)), NOW, "NamesChanged"),
    "a name that can wait is another one": (OLD, PATIENT, NOW, None),
    "a name that can wait came": (GOOD, PATIENT, NOW, None),
    "beside a name that can wait, another came": (
        OLD,
        replace(PATIENT, dns_names=(*PATIENT.dns_names, "new")),
        NOW,
        "NamesChanged",
    ),
    "a name of another server cannot wait": (
        OLD,
        replace(PATIENT, patient_names="other.builds.svc."),
        NOW,
        "NamesChanged",
    ),
    "an address went": (GOOD, replace(SERVER, ip_addresses=()), NOW, "NamesChanged"),
    "a URI came": (GOOD, replace(SERVER, uris=("buildpool://a/b",)), NOW, "NamesChanged"),
    "the common name changed": (GOOD, replace(SERVER, common_name="other"), NOW, "NamesChanged"),
    "a client's certificate where a server's should be": (
        a_client(),
        replace(CLIENT, use=SERVER.use),
        NOW,
        "UseChanged",
    ),
    "a shorter life is wanted": (GOOD, replace(SERVER, lifetime=DAY), NOW, "LifetimeChanged"),
    "a longer life is wanted": (GOOD, replace(SERVER, lifetime=91 * DAY), NOW, "LifetimeChanged"),
    "its life is over": (GOOD, SERVER, NOW + 90 * DAY, "Expired"),
    "two thirds of its life are over": (GOOD, SERVER, NOW + 60 * DAY, "RenewalDue"),
}


@pytest.mark.parametrize(
    ("current", "wanted", "now", "expected"), REISSUE.values(), ids=REISSUE.keys()
)
def test_why_a_certificate_is_issued_anew(current, wanted, now, expected):
    assert reason(why_reissue(current, wanted, an_authority(), chance=0, now=now)) == expected


# sentence: (current, now, reason)
NEW_AUTHORITY = {
    "a sound authority stays": (an_authority(), NOW + 3649 * DAY, None),
    "a broken certificate": (replace(OTHER, certificate=b"?"), NOW, "Unreadable"),
    "a broken key": (replace(OTHER, key=b"?"), NOW, "Unreadable"),
    "somebody else's key": (replace(OTHER, key=an_authority().key), NOW, "KeyMismatch"),
    "its life is over": (an_authority(), NOW + 3650 * DAY, "Expired"),
}


@pytest.mark.parametrize(
    ("current", "now", "expected"), NEW_AUTHORITY.values(), ids=NEW_AUTHORITY.keys()
)
def test_why_an_authority_can_sign_nothing(current, now, expected):
    assert reason(why_new_authority(current, now=now)) == expected


BOTH = GOOD.trust + OTHER.certificate

# sentence: (trusted, what is to be trusted, reason)
RETRUST = {
    "the same": (GOOD.trust, GOOD.trust, None),
    "the same in another order": (BOTH, OTHER.certificate + GOOD.trust, None),
    "the same, one twice": (BOTH + GOOD.trust, BOTH, None),
    "another": (OTHER.certificate, GOOD.trust, "TrustChanged"),
    "one too many": (BOTH, GOOD.trust, "TrustChanged"),
    "one too few": (GOOD.trust, BOTH, "TrustChanged"),
    "an authority of the same name": (
        an_authority("builds/ci", 1000 * DAY).certificate,
        GOOD.trust,
        "TrustChanged",
    ),
    "something broken": (b"?", GOOD.trust, "Unreadable"),
}


@pytest.mark.parametrize(("trusted", "wanted", "expected"), RETRUST.values(), ids=RETRUST.keys())
def test_why_a_bundle_needs_another_trust(trusted, wanted, expected):
    assert reason(why_retrust(replace(GOOD, trust=trusted), wanted)) == expected


@pytest.mark.parametrize("trust", [OTHER.certificate, b"?"])
def test_a_certificate_stays_whatever_its_bundle_trusts(trust):
    assert (
        why_reissue(replace(GOOD, trust=trust), SERVER, an_authority(), chance=0, now=NOW) is None
    )


def test_no_bundle_is_compared_with_a_trust_that_is_broken():
    with pytest.raises(CertificateError):
        why_retrust(GOOD, b"?")


def test_every_reason_is_described():
    for each in CertificateReason:
        assert each.meaning.endswith(".")
        assert f"{each}" == each.value


def test_a_message_names_the_difference():
    wanted = replace(SERVER, dns_names=("ci.builds.svc", "new"))
    finding = why_reissue(GOOD, wanted, an_authority(), chance=0, now=NOW)
    assert finding.message == (
        "the names changed; missing: DNS:new; no longer wanted: DNS:localhost"
    )


def test_a_message_does_not_blame_a_name_that_can_wait():
    wanted = replace(PATIENT, dns_names=(*PATIENT.dns_names, "new"))
    finding = why_reissue(OLD, wanted, an_authority(), chance=0, now=NOW)
    assert finding.message == "the names changed; missing: DNS:new; no longer wanted: nothing"


def test_a_broken_authority_is_not_blamed_on_the_certificate():
    with pytest.raises(CertificateError):
        why_reissue(GOOD, SERVER, KeyPair(certificate=b"?", key=b"?"), chance=0, now=NOW)


def test_a_life_cut_short_by_the_authority_is_as_wanted():
    authority = an_authority("short", 10 * DAY)
    cut = issue(authority, SERVER, now=NOW)
    assert why_reissue(cut, SERVER, authority, chance=0, now=NOW) is None


@given(
    now=st.datetimes(NOW.replace(tzinfo=None), NOW.replace(tzinfo=None) + 3000 * DAY).map(
        lambda naive: naive.replace(tzinfo=NOW.tzinfo)
    ),
    lifetime=st.timedeltas(min_value=timedelta(minutes=1), max_value=3650 * DAY),
    use=st.sampled_from([SERVER, CLIENT]),
    part=st.floats(0, 0.999),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_certificate_stays_until_its_renewal_and_never_longer(now, lifetime, use, part, chance):
    wanted = replace(use, lifetime=lifetime)
    fresh: Bundle = issue(an_authority(), wanted, now=now)
    due = renew_at(fresh.pair, chance=chance)

    def why(moment: datetime) -> Finding | None:
        return why_reissue(fresh, wanted, an_authority(), chance=chance, now=moment)

    assert now < due < facts_of(fresh).not_after
    assert why(now + (due - now) * part) is None
    assert why(due) is not None
    assert why(due + lifetime * part) is not None


@given(chance=st.floats(0, 1, exclude_max=True), lifetime=st.timedeltas(DAY, 365 * DAY))
def test_chance_brings_a_renewal_forward_by_a_tenth_of_the_life_at_most(chance, lifetime):
    pair = issue(an_authority(), replace(SERVER, lifetime=lifetime), now=NOW).pair
    latest = renew_at(pair, chance=0)
    assert latest - lifetime / 10 - SECOND < renew_at(pair, chance=chance) <= latest
