"""Factories of authorities and certificates for the tests of this folder."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from buildpool.core.pki import (
    Bundle,
    CertificateRequest,
    Facts,
    KeyPair,
    Use,
    issue,
    issue_authority,
    read,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

SERVER = CertificateRequest(
    use=Use.SERVER,
    common_name="builds/ci",
    lifetime=90 * DAY,
    dns_names=("ci.builds.svc", "localhost"),
    ip_addresses=("10.96.0.7", "fd00::7"),
)
CLIENT = CertificateRequest(
    use=Use.CLIENT,
    common_name="laptop",
    lifetime=90 * DAY,
    uris=("buildpool://builds/ci/client/laptop",),
)


@cache
def an_authority(name: str = "builds/ci", lifetime: timedelta = 3650 * DAY) -> KeyPair:
    return issue_authority(name, now=NOW, lifetime=lifetime)


def a_server(authority: KeyPair | None = None, **overrides: object) -> Bundle:
    return issue(authority or an_authority(), replace(SERVER, **overrides), now=NOW)


def a_client(authority: KeyPair | None = None, **overrides: object) -> Bundle:
    return issue(authority or an_authority(), replace(CLIENT, **overrides), now=NOW)


def facts_of(bundle: Bundle) -> Facts:
    return read(bundle.pair)


def as_pem(kind: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n".encode()
