from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from buildpool.core.errors import CertificateError
from buildpool.core.pki import Bundle, KeyPair, Use, issue, issue_authority, read
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


def leaf(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def policy(trust: bytes, now=NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store(x509.load_pem_x509_certificates(trust))).time(now)


def as_server(bundle: Bundle, name: x509.verification.Subject, now=NOW) -> list[x509.Certificate]:
    return policy(bundle.trust, now).build_server_verifier(name).verify(leaf(bundle.pair), [])


def as_client(bundle: Bundle, now=NOW) -> x509.verification.VerifiedClient:
    return policy(bundle.trust, now).build_client_verifier().verify(leaf(bundle.pair), [])


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("ci.builds.svc"),
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("10.96.0.7")),
        x509.IPAddress(ip_address("fd00::7")),
    ],
    ids=str,
)
def test_a_server_is_verified_under_each_of_its_names(name):
    assert len(as_server(a_server(), name)) == 2


def test_a_server_is_refused_under_another_name():
    with pytest.raises(VerificationError):
        as_server(a_server(), x509.DNSName("other.builds.svc"))


def test_a_client_is_verified_and_known_by_its_uri():
    subjects = as_client(a_client()).subjects
    assert subjects == [x509.UniformResourceIdentifier("buildpool://builds/ci/client/laptop")]


def test_a_server_certificate_is_no_client_certificate():
    with pytest.raises(VerificationError):
        as_client(a_server())


def test_a_client_certificate_is_no_server_certificate():
    with pytest.raises(VerificationError):
        as_server(a_client(dns_names=("ci.builds.svc",)), x509.DNSName("ci.builds.svc"))


def test_another_authority_does_not_verify_it():
    with pytest.raises(VerificationError):
        as_client(replace(a_client(), trust=an_authority("other").certificate))


def test_a_certificate_is_good_from_a_few_minutes_before_its_issue_until_its_end():
    client = a_client(lifetime=DAY)
    for moment in (NOW - timedelta(minutes=4), NOW, NOW + DAY):
        as_client(client, moment)
    for moment in (NOW - timedelta(minutes=6), NOW + DAY + timedelta(seconds=1)):
        with pytest.raises(VerificationError):
            as_client(client, moment)


def test_names_longer_than_a_common_name_can_be_are_kept_as_alternative_names():
    name = f"{'p' * 40}.{'n' * 63}.svc.cluster.local"
    server = a_server(common_name=name, dns_names=(name,))
    as_server(server, x509.DNSName(name))
    assert facts_of(server).dns_names == (name,)
    assert facts_of(server).common_name == name[:64]


def test_an_authority_with_a_long_name_still_signs():
    authority = issue_authority("n" * 63 + "/" + "p" * 40, now=NOW, lifetime=DAY)
    as_client(issue(authority, CLIENT, now=NOW))


def test_a_certificate_never_outlives_its_authority():
    authority = an_authority(lifetime=10 * DAY)
    assert facts_of(a_client(authority)).not_after == read(authority).not_after == NOW + 10 * DAY


def test_an_expired_authority_signs_nothing():
    with pytest.raises(CertificateError, match="expired"):
        issue(an_authority(lifetime=DAY), CLIENT, now=NOW + DAY)


def test_an_authority_with_a_foreign_key_signs_nothing():
    with pytest.raises(CertificateError, match="does not belong"):
        issue(replace(an_authority(), key=an_authority("other").key), CLIENT, now=NOW)


def test_an_authority_can_sign_leaves_and_nothing_else():
    extensions = leaf(an_authority()).extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature


@pytest.mark.parametrize(("bundle", "use"), [(a_server, Use.SERVER), (a_client, Use.CLIENT)])
def test_a_leaf_is_good_for_exactly_one_use(bundle, use):
    assert facts_of(bundle()).uses == (use,)


def test_a_leaf_names_the_key_that_signed_it():
    assert facts_of(a_client()).authority_key_id == read(an_authority()).subject_key_id


def test_two_certificates_share_neither_key_nor_serial():
    one, two = a_server(), a_server()
    assert one.pair.key != two.pair.key
    assert facts_of(one).serial != facts_of(two).serial


def test_a_request_without_alternative_names_gives_a_certificate_without_them():
    facts = facts_of(a_server(dns_names=(), ip_addresses=()))
    assert (facts.dns_names, facts.ip_addresses, facts.uris) == ((), (), ())


def test_fractions_of_a_second_are_dropped():
    now = NOW.replace(microsecond=999_999)
    facts = facts_of(issue(an_authority(), SERVER, now=now))
    assert facts.not_after == NOW + SERVER.lifetime
