"""The cluster's certificates: one authority, one certificate per identity, one key for tokens.

Made once per cluster, all at once, and never changed afterwards.
"""

from __future__ import annotations

import ipaddress
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devcluster.addresses import ADDRESSES
from devcluster.layout import NODE_ADDRESS

LIFETIME: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate is for."""

    file: str
    user: str
    group: str = ""
    hosts: tuple[str, ...] = ()


def identities(node: str) -> tuple[Identity, ...]:
    """All certificates of a cluster with that node."""
    service = "kubernetes.default.svc"
    return (
        Identity(
            "apiserver",
            "kube-apiserver",
            hosts=(
                "kubernetes",
                "kubernetes.default",
                service,
                f"{service}.cluster.local",
                "localhost",
                *(
                    a
                    for each in ADDRESSES.values()
                    for a in (each.loopback, each.service, each.node)
                ),
            ),
        ),
        Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        Identity("admin", "admin", "system:masters"),
        Identity(
            "kubelet", f"system:node:{node}", "system:nodes", (node, "127.0.0.1", NODE_ADDRESS)
        ),
        Identity("controller-manager", "system:kube-controller-manager"),
        Identity("scheduler", "system:kube-scheduler"),
        Identity("proxy", "system:kube-proxy"),
        Identity("coredns", "devcluster:coredns"),
        Identity("provisioner", "devcluster:provisioner"),
    )


def create_pki(folder: Path, node: str, now: datetime) -> None:
    """Write the whole PKI; it appears at once or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        complete = Path(scratch) / "pki"
        complete.mkdir(mode=0o700)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "devcluster")])
        authority = (
            _builder(name, name, authority_key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_authority_usage(), critical=True)
            .sign(authority_key, hashes.SHA256())
        )
        _write(complete, "ca", authority, authority_key)
        for identity in identities(node):
            key = ec.generate_private_key(ec.SECP256R1())
            _write(
                complete, identity.file, _issue(identity, key, authority, authority_key, now), key
            )
        token_key = ec.generate_private_key(ec.SECP256R1())
        (complete / "tokens.key").write_bytes(_private(token_key))
        (complete / "tokens.pub").write_bytes(
            token_key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        complete.rename(folder)


def _issue(
    identity: Identity,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.user)]
    if identity.group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = (
        _builder(x509.Name(attributes), authority.subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if identity.hosts:
        names = [_general_name(host) for host in identity.hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _authority_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(_private(key))
