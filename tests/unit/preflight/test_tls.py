from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from buildpool.core.api import Reason
from buildpool.core.pki import KeyPair
from buildpool.core.pki.reading import load_key
from unit.preflight.servers import (
    DAY,
    REPOSITORY,
    Registry,
    a_certificate,
    a_client,
    a_context,
    a_target,
    an_authority,
    inspect,
    refusing,
    says,
    serving,
)
from unit.preflight.test_probe import FINE, trouble_of

NOT_TRUSTED = Reason.REGISTRY_NOT_TRUSTED
REFUSED = Reason.CREDENTIALS_REFUSED
LONG_AGO = datetime.now(UTC) - 10 * DAY
OLD_AUTHORITY = an_authority("A", LONG_AGO)
B = an_authority("B")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def with_tls(tmp_path):
    def serve(certificate=None, registry=None, **options):
        return serving(
            registry or Registry(),
            certificate=certificate or a_certificate(),
            folder=tmp_path,
            **options,
        )

    return serve


@pytest.fixture
def demanding(tmp_path):
    """Serves to clients of the authority B only."""

    def serve(newest: ssl.TLSVersion):
        context = a_context(a_certificate(), tmp_path, clients=B, newest=newest)
        return refusing(context)

    return serve


async def test_a_registry_of_a_known_authority_is_trusted(with_tls) -> None:
    async with with_tls() as host:
        assert await inspect(a_target(host)) == FINE


@pytest.mark.parametrize("trust", [None, an_authority().certificate])
async def test_an_authority_of_the_system_is_trusted_with_a_bundle_and_without(
    with_tls, trust
) -> None:
    async with with_tls(a_certificate(authority=an_authority("System"))) as host:
        assert await inspect(a_target(host, trust=trust)) == FINE


async def test_a_bundle_may_hold_comments_in_any_encoding(with_tls) -> None:
    bundle = "# Autorité\n".encode("latin-1") + B.certificate + an_authority().certificate
    async with with_tls() as host:
        assert await inspect(a_target(host, trust=bundle)) == FINE


UNTRUSTED = {
    "an authority that nobody gave": (
        {"authority": B},
        {"trust": None},
        "unable to get local issuer certificate; give its authority in spec.registries",
    ),
    "another authority than was given": ({"authority": B}, {}, "it holds another authority"),
    "another name": (
        {"dns_names": ("cache.one.io", "cache.two.io")},
        {},
        "not valid for 'localhost'; the certificate is for cache.one.io, cache.two.io: correct",
    ),
    "a common name only, which Go does not look at": (
        {"dns_names": (), "common_name": "localhost"},
        {},
        "the certificate is for no name at all",
    ),
    "many names": (
        {"dns_names": tuple(f"{n}.io" for n in range(7))},
        {},
        "for 0.io, 1.io, 2.io, 3.io, 4.io and 2 more",
    ),
    "the past": (
        {"authority": OLD_AUTHORITY, "issued": LONG_AGO},
        {"trust": OLD_AUTHORITY.certificate},
        "certificate has expired; renew it",
    ),
    "the future": (
        {"issued": datetime.now(UTC) + timedelta(hours=1)},
        {},
        "certificate is not yet valid; compare the clocks",
    ),
}


@pytest.mark.parametrize(("served", "asked", "words"), UNTRUSTED.values(), ids=UNTRUSTED.keys())
async def test_a_certificate_that_is_not_accepted(with_tls, served, asked, words) -> None:
    registry = Registry()
    async with with_tls(a_certificate(**served), registry) as host:
        trouble = trouble_of(await inspect(a_target(host, **asked)), NOT_TRUSTED, words)
    assert f"registry {host}" in trouble.message
    assert registry.seen == []


async def test_a_self_signed_certificate_can_vouch_for_itself_if_it_is_given(with_tls) -> None:
    itself = a_certificate()
    async with with_tls(itself) as host:
        assert await inspect(a_target(host, trust=itself.pair.certificate)) == FINE


async def test_a_server_without_tls() -> None:
    async with serving(Registry()) as host:
        report = await inspect(a_target(host))
    words = "without TLS; if it speaks plain HTTP, set http: true in its entry", f"host {host}"
    trouble_of(report, Reason.NO_REGISTRY, *words)


async def test_a_server_with_tls_that_is_asked_without(with_tls) -> None:
    async with with_tls() as host:
        report = await inspect(a_target(host, http=True))
    trouble_of(report, Reason.NO_REGISTRY, "speaks TLS", "remove http: true", f"host {host}")


@pytest.mark.parametrize("newest", VERSIONS)
async def test_a_server_with_tls_that_says_so_to_who_asks_without(demanding, newest) -> None:
    with demanding(newest) as host:
        report = await inspect(a_target(host, http=True))
    trouble_of(report, Reason.NO_REGISTRY, "speaks TLS", "remove http: true")


async def test_uploads_that_would_go_on_without_tls(with_tls) -> None:
    registry = Registry({"POST": says(202, Location=f"http://localhost/v2/{REPOSITORY}/u?s=1")})
    async with with_tls(registry=registry) as host:
        report = await inspect(a_target(host))
    trouble_of(report, NOT_TRUSTED, "to http://localhost/v2/team/cache/u; let the proxy")


@pytest.mark.parametrize("newest", VERSIONS)
async def test_a_client_certificate_opens_a_registry(with_tls, newest) -> None:
    async with with_tls(clients=B, newest=newest) as host:
        pair = a_client(authority=B).pair
        assert await inspect(a_target(host, pair=pair)) == FINE


@pytest.mark.parametrize("newest", VERSIONS)
async def test_a_client_certificate_that_is_demanded(demanding, newest) -> None:
    with demanding(newest) as host:
        report = await inspect(a_target(host))
    trouble_of(report, REFUSED, "demands a client certificate", "cache.registry.credentials")


@pytest.mark.parametrize("newest", VERSIONS)
async def test_a_client_certificate_of_somebody_else(demanding, newest) -> None:
    with demanding(newest) as host:
        report = await inspect(a_target(host, pair=a_client().pair))
    trouble_of(report, REFUSED, "refuses the client certificate", "unknown ca")


def encrypted(pair: KeyPair) -> bytes:
    return load_key(pair).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


GOOD = a_client().pair
PAIRS = {
    "garbage": KeyPair(b"garbage", b"garbage"),
    "nothing": KeyPair(b"", b""),
    "the key of another": KeyPair(GOOD.certificate, a_client().pair.key),
    "a key with a password": KeyPair(GOOD.certificate, encrypted(GOOD)),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
async def test_a_pair_that_cannot_be_used(pair: KeyPair) -> None:
    trouble_of(await inspect(a_target("localhost:1", pair=pair)), REFUSED, "cannot be used")


@pytest.mark.parametrize("trust", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nx\n", b"\xff"])
async def test_a_bundle_that_cannot_be_read(trust: bytes) -> None:
    report = await inspect(a_target("localhost:1", trust=trust))
    trouble_of(report, NOT_TRUSTED, "cannot be read; put PEM certificates into caBundle")


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_key_is_on_disk_only_while_it_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for pair in (GOOD, PAIRS["garbage"]):
        await inspect(a_target("localhost:1", pair=pair))
        assert files_in(tmp_path) == []


async def test_a_key_that_cannot_be_put_on_disk_is_trouble_too(monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    report = await inspect(a_target("localhost:1", pair=GOOD))
    trouble_of(report, REFUSED, "cannot be used")
