from __future__ import annotations

import json

import pytest

from buildpool.sidecars.keeper.inventory import Descriptor, references
from buildpool.sidecars.names import is_digest, is_repository, is_tag
from unit.sidecars.stored import (
    CONFIG,
    MANIFEST,
    an_image_manifest,
    an_index,
    descriptor,
    digest_of,
)

GOOD = {"digest": digest_of(b""), "size": 0}
NO_MANIFESTS = {
    "nothing": b"",
    "garbage": b"\0\xff\0",
    "a list": b"[]",
    "a string": b'"manifest"',
    "an object without a version": b"{}",
    "the old schema": b'{"schemaVersion": 1}',
    "layers that are no list": b'{"schemaVersion": 2, "layers": 7}',
    "a layer that is no object": b'{"schemaVersion": 2, "layers": ["sha256:0"]}',
    "a layer without a digest": b'{"schemaVersion": 2, "layers": [{"size": 1}]}',
    "a digest that leads elsewhere": json.dumps(
        {"schemaVersion": 2, "layers": [{"digest": "sha256:" + "../" * 21 + "a", "size": 1}]}
    ).encode(),
    "a digest that is no string": b'{"schemaVersion": 2, "config": {"digest": 1, "size": 1}}',
    "a size that is no number": json.dumps(
        {"schemaVersion": 2, "config": {**GOOD, "size": "1"}}
    ).encode(),
    "a nest": b"[" * 100_000,
}


def test_an_image_manifest_refers_to_its_config_and_layers() -> None:
    found = references(an_image_manifest([b"one", b"two"], b"config"))
    assert found == tuple(
        Descriptor(digest_of(content), len(content), is_manifest=False)
        for content in (b"config", b"one", b"two")
    )


def test_an_index_may_list_manifests_and_plain_blobs() -> None:
    found = references(an_index(descriptor(b"child", MANIFEST), descriptor(b"layer", CONFIG)))
    assert found is not None
    assert [each.is_manifest for each in found] == [True, False]


def test_a_blob_that_is_listed_twice_is_referred_to_once() -> None:
    found = references(an_image_manifest([b"same", b"same"]))
    assert found is not None
    assert len(found) == 2


@pytest.mark.parametrize("content", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_what_is_no_manifest(content: bytes) -> None:
    assert references(content) is None


REPOSITORIES = {
    "app": True,
    "caches/team-a/app_1.x__y": True,
    "a" * 255: True,
    "a" * 256: False,
    "": False,
    "/app": False,
    "app/": False,
    "a//b": False,
    "..": False,
    "a/../b": False,
    "a/_manifests": False,
    "App": False,
    "app\n": False,
    "äpp": False,
    "a.": False,
    "a" + "-" * 200 + "!": False,
}


@pytest.mark.parametrize(("text", "is_one"), REPOSITORIES.items())
def test_the_names_of_repositories(text: str, is_one: bool) -> None:
    assert is_repository(text) is is_one


TAGS = {
    "main": True,
    "Feature_1.2-x": True,
    "a" * 128: True,
    "a" * 129: False,
    "": False,
    ".": False,
    "..": False,
    "a/b": False,
    "-a": False,
    "main\n": False,
    "mäin": False,
}


@pytest.mark.parametrize(("text", "is_one"), TAGS.items())
def test_the_names_of_tags(text: str, is_one: bool) -> None:
    assert is_tag(text) is is_one


DIGESTS = {
    digest_of(b""): True,
    digest_of(b"").upper(): False,
    digest_of(b"")[:-1]: False,
    digest_of(b"") + "\n": False,
    "sha512:" + "a" * 128: False,
}


@pytest.mark.parametrize(("text", "is_one"), DIGESTS.items())
def test_the_spelling_of_digests(text: str, is_one: bool) -> None:
    assert is_digest(text) is is_one
