from __future__ import annotations

import base64
from copy import deepcopy

import pytest

from buildpool.core import naming
from buildpool.core.objects.refs import Object, is_owned
from buildpool.core.pki import Authority, Bundle, KeyPair
from buildpool.core.resources import authority_secret, bundle_of, certificate_secret, pair_of
from samples import HOME, OTHER_UID, UID, a_pool

PAIR = KeyPair(certificate=b"a certificate", key=b"its key")
BUNDLE = Bundle(pair=PAIR, trust=b"an authority")


def a_secret() -> Object:
    return certificate_secret(a_pool(), "ci-client-ana", BUNDLE, component=naming.COMPONENT_CLIENT)


def an_authority(*clients: str, uid: str = UID) -> Object:
    return authority_secret(a_pool(uid=uid), Authority(PAIR), namespace=HOME, clients=clients)


def test_a_certificate_is_there_under_the_names_of_buildkit_and_of_kubernetes() -> None:
    secret = a_secret()
    assert secret["type"] == "kubernetes.io/tls"
    data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert data == {
        "ca.pem": b"an authority",
        "ca.crt": b"an authority",
        "cert.pem": b"a certificate",
        "tls.crt": b"a certificate",
        "key.pem": b"its key",
        "tls.key": b"its key",
    }


def test_a_certificate_lies_beside_its_pool_and_outlives_its_deletion() -> None:
    metadata = a_secret()["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("builds", "ci-client-ana")
    assert metadata["labels"]["app.kubernetes.io/component"] == "client"
    assert metadata["annotations"][naming.ANNOTATION_POOL_UID] == UID
    assert "ownerReferences" not in metadata, "a deletion in the foreground would remove it at once"


def test_an_authority_lies_where_no_user_of_the_pool_can_read_it() -> None:
    secret = an_authority("bob", "ana")
    metadata = secret["metadata"]
    assert (metadata["namespace"], metadata["name"]) == (HOME, "authority.builds.ci")
    assert "ownerReferences" not in metadata, "the garbage collector would remove it at once"
    assert metadata["annotations"][naming.ANNOTATION_POOL_UID] == UID
    assert metadata["annotations"][naming.ANNOTATION_CLIENTS] == "ana,bob"
    assert set(secret["data"]) == {"tls.crt", "tls.key"}


def test_what_was_written_can_be_read_back() -> None:
    assert bundle_of(a_secret()) == BUNDLE
    assert pair_of(an_authority()) == PAIR


BROKEN = {
    "no value": lambda data: data.update({"tls.crt": ""}),
    "no key": lambda data: data.pop("tls.key"),
    "no trust": lambda data: data.pop("ca.pem"),
    "no base64": lambda data: data.update({"tls.crt": "%%%"}),
    "nothing": lambda data: data.clear(),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_secret_that_lacks_a_part_holds_nothing(spoil: object) -> None:
    secret = deepcopy(a_secret())
    assert callable(spoil)
    spoil(secret["data"])
    assert bundle_of(secret) is None


def test_a_secret_that_is_not_there_holds_nothing() -> None:
    assert bundle_of(None) is None
    assert pair_of(None) is None
    assert pair_of({"metadata": {}, "data": None}) is None


def test_a_secret_belongs_to_the_very_pool_that_made_it() -> None:
    for secret in (a_secret(), an_authority()):
        assert is_owned(secret, a_pool())
        assert not is_owned(secret, a_pool(uid=OTHER_UID))


def test_an_object_without_any_owner_belongs_to_nobody() -> None:
    assert not is_owned({"metadata": {"name": "x", "namespace": "builds"}}, a_pool())
