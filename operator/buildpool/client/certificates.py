"""A client's certificate, out of its Secret, and when it has to be fetched again. Pure.

A Secret is hostile until it is read here: nothing is written that is not a certificate, its key,
and somebody to trust.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Final

from buildpool.client.values import FILES, MAX_FILE_BYTES, Certificate
from buildpool.core import naming
from buildpool.core.errors import BuildpoolError, CertificateError
from buildpool.core.naming import PoolKey
from buildpool.core.pki import Facts, KeyPair, Use, read
from buildpool.core.pki.reading import load_trust


def certificate_in(
    secret: dict[str, Any], pool: PoolKey, client: str, *, now: datetime
) -> Certificate:
    """The certificate in a client's Secret, read before anything is written."""
    name = f"Secret {pool.namespace}/{naming.client_certificate(pool, client)}"
    data = secret.get("data")
    given = data if isinstance(data, dict) else {}
    ca, cert, key = (_decoded(given.get(file), name, file) for file in FILES)
    found = Certificate(ca, cert, key)
    try:
        facts = facts_of(found)
    except CertificateError as error:
        raise BuildpoolError(f"{name}: {error}; {_RESTORE}") from None
    if not facts.key_matches:
        raise BuildpoolError(f"{name}: the key is not that of the certificate; {_RESTORE}")
    if Use.CLIENT not in facts.uses:
        raise BuildpoolError(f"{name}: the certificate is not one of a client; {_RESTORE}")
    if facts.not_after <= now:
        raise BuildpoolError(
            f"{name}: the certificate expired at {facts.not_after:%Y-%m-%d %H:%M} UTC; "
            f"see why it is not renewed: kubectl buildpool explain {pool.name} -n {pool.namespace}"
        )
    return found


_RESTORE: Final = "delete the Secret, and the operator writes it again"


def facts_of(certificate: Certificate) -> Facts:
    """What a certificate says; CertificateError: it cannot be read, or trusts nobody."""
    load_trust(certificate.ca)
    return read(KeyPair(certificate.cert, certificate.key))


def _decoded(value: object, name: str, file: str) -> bytes:
    if not isinstance(value, str):
        raise BuildpoolError(f"{name} has no {file}; {_RESTORE}")
    if len(value) > MAX_FILE_BYTES:
        raise BuildpoolError(f"{name}: {file} is larger than any certificate; {_RESTORE}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BuildpoolError(f"{name}: {file} is not base64; {_RESTORE}") from None


def is_due(certificate: Certificate | None, *, now: datetime) -> bool:
    """Whether a certificate has to be fetched again.

    It cannot be used, or a third of its life is left, or less.
    """
    if certificate is None:
        return True
    try:
        facts = facts_of(certificate)
    except CertificateError:
        return True
    return not facts.key_matches or now >= fetched_again_at(facts)


def fetched_again_at(facts: Facts) -> datetime:
    """When a third of a certificate's life is left; the operator has renewed it by then."""
    life = facts.not_after - facts.not_before
    return facts.not_after - life / 3
