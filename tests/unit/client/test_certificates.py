from __future__ import annotations

import base64
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.certificates import certificate_in, is_due
from buildpool.client.values import FILES, Certificate
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey
from buildpool.core.pki import Bundle
from unit.core.pki.certificates import DAY, NOW, a_client, a_server

POOL = PoolKey("builds", "ci")
OTHER = a_client()


def a_secret(bundle: Bundle, **instead: object) -> dict[str, Any]:
    """A client's Secret as the API server gives it; keys by their names without the dot."""
    contents = (bundle.trust, bundle.pair.certificate, bundle.pair.key)
    data: dict[str, Any] = {
        file: base64.b64encode(content).decode()
        for file, content in zip(FILES, contents, strict=True)
    }
    data |= {f"{name}.pem": value for name, value in instead.items()}
    return {"data": data}


def read(secret: dict[str, Any]) -> Certificate:
    return certificate_in(secret, POOL, "anna", now=NOW)


def test_a_secret_becomes_the_files_that_it_holds() -> None:
    bundle = a_client()
    assert read(a_secret(bundle)) == Certificate(
        bundle.trust, bundle.pair.certificate, bundle.pair.key
    )


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


BAD = {
    "no data": ({}, "has no ca.pem"),
    "no key": (a_secret(OTHER, key=None), "has no key.pem"),
    "a number": (a_secret(OTHER, cert=1), "has no cert.pem"),
    "not base64": (a_secret(OTHER, cert="@@"), "cert.pem is not base64"),
    "too much": (a_secret(OTHER, ca="A" * 70000), "ca.pem is larger than any certificate"),
    "not a certificate": (a_secret(OTHER, cert=encoded(b"x")), "the certificate cannot be read"),
    "nobody to trust": (a_secret(OTHER, ca=encoded(b"")), "authorities cannot be read"),
    "another key": (
        a_secret(OTHER, key=encoded(a_client().pair.key)),
        "the key is not that of the certificate",
    ),
    "a server": (a_secret(a_server()), "the certificate is not one of a client"),
}


@pytest.mark.parametrize(("secret", "said"), BAD.values(), ids=BAD)
def test_what_is_no_certificate_is_not_written(secret: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildpoolError, match=said) as refused:
        read(secret)
    assert str(refused.value).startswith("Secret builds/ci-client-anna")
    assert "delete the Secret" in str(refused.value)


def test_a_certificate_that_has_expired_says_where_to_look() -> None:
    with pytest.raises(BuildpoolError, match="kubectl buildpool explain ci -n builds"):
        certificate_in(a_secret(a_client()), POOL, "anna", now=NOW + 4000 * DAY)


VALUES = st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=40).map(encoded)
KEYS = st.sampled_from(FILES)


@given(st.dictionaries(KEYS, VALUES) | st.lists(VALUES) | VALUES)
def test_no_secret_ends_in_a_traceback(data: object) -> None:
    with suppress(BuildpoolError):
        read({"data": data})


def test_a_certificate_is_due_when_a_third_of_its_life_is_left() -> None:
    found = read(a_secret(a_client(lifetime=90 * DAY)))
    assert not is_due(found, now=NOW + 59 * DAY)
    assert is_due(found, now=NOW + 60 * DAY + timedelta(minutes=1))
    assert is_due(None, now=NOW)
    another = a_client(lifetime=90 * DAY).pair.key
    assert is_due(Certificate(found.ca, found.cert, another), now=NOW)
    assert is_due(Certificate(b"", b"x", b"y"), now=NOW)
