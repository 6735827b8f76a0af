"""PEM into facts. The one place where exceptions of ``cryptography`` become ``CertificateError``.

Never quotes what it could not read, not even through the chained exception: a broken Secret may
hold a key where a certificate should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from buildpool.core.errors import CertificateError
from buildpool.core.pki.values import Facts, KeyPair, Use

_E = TypeVar("_E", bound=x509.ExtensionType)

OIDS: Final = {
    Use.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Use.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}
_USES: Final = {oid: use for use, oid in OIDS.items()}

_UNREADABLE: Final = (
    ValueError,
    TypeError,  # an encrypted key
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


MAX_REMEMBERED_CERTIFICATES: Final = 4096
"""Certificates of which it is remembered what they say: the same bytes always say the same."""
MAX_REMEMBERED_BYTES: Final = 4096
"""What is larger is read each time: others can write into Secrets, and memory is not theirs."""


def read(pair: KeyPair) -> Facts:
    """What the certificate of a pair says, and whether the key belongs to it."""
    is_small = len(pair.certificate) + len(pair.key) <= MAX_REMEMBERED_BYTES
    return _remembered_facts(pair) if is_small else _facts(pair)


def load_certificate(pair: KeyPair) -> x509.Certificate:
    """The leaf of a pair."""
    is_small = len(pair.certificate) <= MAX_REMEMBERED_BYTES
    return (_remembered_leaf if is_small else _leaf)(pair.certificate)


def load_trust(pem: bytes) -> tuple[x509.Certificate, ...]:
    """All authorities of a bundle."""
    is_small = len(pem) <= MAX_REMEMBERED_BYTES
    return (_remembered_authorities if is_small else _authorities)(pem)


def _facts(pair: KeyPair) -> Facts:
    certificate, key = load_certificate(pair), load_key(pair)
    with _reading("certificate"):
        names = _extension(certificate, x509.SubjectAlternativeName)
        usage = _extension(certificate, x509.ExtendedKeyUsage)
        subject_key = _extension(certificate, x509.SubjectKeyIdentifier)
        issuer_key = _extension(certificate, x509.AuthorityKeyIdentifier)
        common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return Facts(
            common_name=str(common_names[0].value) if common_names else "",
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            dns_names=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
            ip_addresses=(
                tuple(str(ip) for ip in names.get_values_for_type(x509.IPAddress)) if names else ()
            ),
            uris=(
                tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else ()
            ),
            uses=tuple(_USES.get(oid, oid.dotted_string) for oid in usage or ()),
            serial=certificate.serial_number,
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            subject_key_id=subject_key.digest.hex() if subject_key else None,
            authority_key_id=(
                issuer_key.key_identifier.hex()
                if issuer_key and issuer_key.key_identifier
                else None
            ),
            key_matches=key.public_key() == certificate.public_key(),
        )


def _leaf(pem: bytes) -> x509.Certificate:
    with _reading("certificate"):
        return x509.load_pem_x509_certificates(pem)[0]


def load_key(pair: KeyPair) -> PrivateKeyTypes:
    """The private key of a pair."""
    with _reading("private key"):
        return serialization.load_pem_private_key(pair.key, password=None)


def _authorities(pem: bytes) -> tuple[x509.Certificate, ...]:
    with _reading("bundle of trusted authorities"):
        return tuple(x509.load_pem_x509_certificates(pem))


_remembered_facts = lru_cache(MAX_REMEMBERED_CERTIFICATES)(_facts)
_remembered_leaf = lru_cache(MAX_REMEMBERED_CERTIFICATES)(_leaf)
_remembered_authorities = lru_cache(MAX_REMEMBERED_CERTIFICATES)(_authorities)


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether an authority really signed a certificate; names and key ids alone prove nothing."""
    is_small = _size(certificate) + _size(authority) <= MAX_REMEMBERED_BYTES
    return (_remembered_signature if is_small else _signature)(certificate, authority)


def _signature(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def _size(certificate: x509.Certificate) -> int:
    """Bytes that it has, but for some of its envelope."""
    return len(certificate.tbs_certificate_bytes) + len(certificate.signature)


_remembered_signature = lru_cache(MAX_REMEMBERED_CERTIFICATES)(_signature)


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE:
        raise CertificateError(f"the {what} cannot be read") from None
