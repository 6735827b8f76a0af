from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.errors import CertificateError
from buildpool.core.pki import KeyPair, issue, read, reading, why_new_authority, why_reissue
from buildpool.core.pki.reading import (
    MAX_REMEMBERED_BYTES,
    is_signed_by,
    load_certificate,
    load_trust,
)
from unit.core.pki.certificates import (
    CLIENT,
    DAY,
    NOW,
    a_client,
    a_server,
    an_authority,
    as_pem,
    facts_of,
)

PAIR = a_server().pair
DER = x509.load_pem_x509_certificate(PAIR.certificate).public_bytes(serialization.Encoding.DER)


def test_facts_say_what_was_asked_for():
    facts = facts_of(a_server())
    assert facts.common_name == "builds/ci"
    assert facts.dns_names == ("ci.builds.svc", "localhost")
    assert facts.ip_addresses == ("10.96.0.7", "fd00::7")
    assert facts.uris == ()
    assert facts.not_before == NOW - timedelta(minutes=5)
    assert facts.not_after == NOW + 90 * DAY
    assert len(facts.fingerprint) == 64
    assert facts.key_matches


def test_only_the_first_certificate_of_a_chain_is_described():
    chain = PAIR.certificate + an_authority().certificate
    assert read(replace(PAIR, certificate=chain)) == read(PAIR)


UNREADABLE = {
    "no certificate": replace(PAIR, certificate=b""),
    "no key": replace(PAIR, key=b""),
    "a key where the certificate should be": replace(PAIR, certificate=PAIR.key),
    "a certificate where the key should be": replace(PAIR, key=PAIR.certificate),
    "half a certificate": replace(PAIR, certificate=PAIR.certificate[:200]),
    "text that is no PEM": KeyPair(certificate=b"secret-material", key=b"secret-material"),
    "PEM around nonsense": replace(PAIR, certificate=as_pem("CERTIFICATE", b"secret-material")),
    "a key around nonsense": replace(PAIR, key=as_pem("PRIVATE KEY", b"secret-material")),
    "an encrypted key": replace(
        PAIR,
        key=serialization.load_pem_private_key(PAIR.key, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        ),
    ),
}


@pytest.mark.parametrize("pair", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_refused_without_being_quoted(pair):
    with pytest.raises(CertificateError) as caught:
        read(pair)
    assert str(caught.value) in (
        "the certificate cannot be read",
        "the private key cannot be read",
    )
    assert caught.value.__suppress_context__


@given(st.binary())
def test_garbage_raises_nothing_but_our_own_error(garbage):
    for pair in (
        KeyPair(certificate=garbage, key=PAIR.key),
        KeyPair(certificate=as_pem("CERTIFICATE", garbage), key=PAIR.key),
        KeyPair(certificate=PAIR.certificate, key=garbage),
        KeyPair(certificate=PAIR.certificate, key=as_pem("PRIVATE KEY", garbage)),
    ):
        with pytest.raises(CertificateError):
            read(pair)


@pytest.mark.filterwarnings("ignore:Parsed a serial number:UserWarning")
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_damaged_certificate_raises_nothing_but_our_own_error(position, flips):
    damaged = bytearray(DER)
    damaged[position] ^= flips
    pair = replace(PAIR, certificate=as_pem("CERTIFICATE", bytes(damaged)))
    with contextlib.suppress(CertificateError):
        read(pair)
    why_new_authority(pair, now=NOW)
    why_reissue(replace(a_client(), pair=pair), CLIENT, an_authority(), chance=0, now=NOW)


def test_no_repr_shows_a_key_or_a_certificate():
    bundle = issue(an_authority(), CLIENT, now=NOW)
    for value in (bundle, bundle.pair, an_authority()):
        assert "BEGIN" not in repr(value)
        assert "\\n" not in repr(value)
    assert repr(bundle) == "Bundle(pair=KeyPair())"


def test_what_somebody_filled_a_secret_with_is_not_kept_in_memory():
    large = KeyPair(PAIR.certificate + b"#" * MAX_REMEMBERED_BYTES, PAIR.key)
    assert read(large) == read(PAIR)
    readers = (read, load_certificate, lambda pair: load_trust(pair.certificate))
    assert all(reader(PAIR) is reader(PAIR) for reader in readers)
    assert not any(reader(large) is reader(large) for reader in readers)


def test_of_who_signed_large_certificates_nothing_is_kept_in_memory():
    names = tuple(f"name-{number}.example" for number in range(400))
    authority = load_certificate(an_authority())
    small, large = (load_certificate(a_server(dns_names=n).pair) for n in ((), names))
    reading._remembered_signature.cache_clear()
    for _ in range(2):
        assert is_signed_by(small, authority)
        assert is_signed_by(large, authority)
        assert not is_signed_by(authority, large)
    assert reading._remembered_signature.cache_info().currsize == 1
