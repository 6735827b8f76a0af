"""Authorities and the certificates they sign: ECDSA P-256, one fresh key for each certificate.

Decides nothing: whether a certificate is needed is ``renewal``'s question.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from buildpool.core.errors import CertificateError
from buildpool.core.pki.reading import OIDS, load_certificate, load_key
from buildpool.core.pki.values import (
    AUTHORITY_SKEW,
    CLOCK_SKEW,
    Authority,
    Bundle,
    CertificateRequest,
    KeyPair,
    short_name,
)

_NO_USAGE: Final = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def issue_authority(common_name: str, *, now: datetime, lifetime: timedelta) -> KeyPair:
    """A new self-signed authority. It signs leaves only: it cannot make further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    certificate = (
        _builder(name, key.public_key(), now - AUTHORITY_SKEW)
        .issuer_name(name)
        .not_valid_after(expiry(now, lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(authority: Authority | KeyPair, request: CertificateRequest, *, now: datetime) -> Bundle:
    """A new certificate, good for one use only, that trusts the authority which signed it.

    A pair is an authority that nothing replaces.
    """
    authority = authority if isinstance(authority, Authority) else Authority(authority)
    issuer, issuer_key = load_certificate(authority.signer), load_key(authority.signer)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise CertificateError("the key of the authority is not an elliptic curve key")
    if issuer_key.public_key() != issuer.public_key():
        raise CertificateError("the key of the authority does not belong to its certificate")
    if issuer.not_valid_after_utc <= now:
        raise CertificateError("the authority has expired")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        _builder(_name(request.common_name), key.public_key(), now)
        .issuer_name(issuer.subject)
        .not_valid_after(min(expiry(now, request.lifetime), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([OIDS[request.use]]), critical=False)
        .add_extension(issuer_key_id, critical=False)
    )
    if names := _alternative_names(request):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return Bundle(_pair(certificate, key), trust=authority.trust)


def expiry(issued: datetime, lifetime: timedelta) -> datetime:
    """When a certificate ends that was issued at this moment. Certificates count whole seconds."""
    return (issued.replace(microsecond=0) + lifetime).replace(microsecond=0)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.replace(microsecond=0) - CLOCK_SKEW)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short_name(common_name))])


def _usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**(_NO_USAGE | dict.fromkeys(granted, True)))


def _alternative_names(request: CertificateRequest) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in request.dns_names),
        *(x509.IPAddress(ip_address(address)) for address in request.ip_addresses),
        *(x509.UniformResourceIdentifier(uri) for uri in request.uris),
    ]


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
