"""Registries with a private CA or plain HTTP: images are pushed there, and builds start there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import Api, eventually
from e2e.clients import BASE, Client, client_of, context, run
from e2e.pools import deploy, pods_of
from e2e.registries import Registry, new_authority, serve, trust


@pytest.fixture(scope="module")
def private(shared_namespace: str) -> Registry:
    """A registry with a certificate of a private authority."""
    return Registry("private", shared_namespace)


@pytest.fixture(scope="module")
def plain(shared_namespace: str) -> Registry:
    """A registry without TLS."""
    return Registry("plain", shared_namespace)


@pytest.fixture(scope="module")
def pool(api: Api, private: Registry, plain: Registry) -> str:
    """The namespace of a pool named ci that knows both registries, and one as a mirror."""
    namespace, authority = private.namespace, new_authority("first")
    serve(api, private, authority)
    serve(api, plain, None)
    trust(api, "private-ca", namespace, authority)
    registries = [
        {"host": private.host, "caBundle": {"configMap": {"name": "private-ca"}}},
        {"host": plain.host, "http": True},
        {"host": "images.example", "mirrors": [f"{private.host}/mirror"]},
    ]
    deploy(api, "ci", namespace, registries=registries)
    return namespace


@pytest.fixture
def client(api: Api, pool: str, tmp_path: Path) -> Client:
    """The pool's client."""
    return client_of(api, "ci", pool, tmp_path)


def push(client: Client, folder: Path, image: str, text: str) -> None:
    """Builds an image with one file and pushes it."""
    dockerfile = f"FROM {BASE}\nRUN echo {text} > /origin\n"
    client.build(context(folder, dockerfile), "--output", f"type=image,name={image},push=true")


def origin_of(client: Client, folder: Path, image: str) -> str:
    """What an image says of itself, read by a build that starts from it."""
    dockerfile = f"FROM {image} AS base\nFROM scratch\nCOPY --from=base /origin /origin\n"
    out = folder / "out"
    client.build(context(folder, dockerfile), "--output", f"type=local,dest={out}", "--no-cache")
    return (out / "origin").read_text().strip()


def test_a_registry_with_a_private_ca_takes_and_gives_images(
    client: Client, private: Registry, tmp_path: Path
) -> None:
    image = f"{private.host}/team/base:1"
    push(client, tmp_path / "push", image, "private")
    assert origin_of(client, tmp_path / "pull", image) == "private"


def test_a_registry_without_tls_takes_and_gives_images(
    client: Client, plain: Registry, tmp_path: Path
) -> None:
    image = f"{plain.host}/team/base:1"
    push(client, tmp_path / "push", image, "plain")
    assert origin_of(client, tmp_path / "pull", image) == "plain"


def test_a_mirror_is_asked_in_place_of_its_registry(
    client: Client, private: Registry, tmp_path: Path
) -> None:
    push(client, tmp_path / "push", f"{private.host}/mirror/team/base:1", "mirror")
    assert origin_of(client, tmp_path / "pull", "images.example/team/base:1") == "mirror"


def test_a_registry_whose_ca_is_not_trusted_is_refused_by_name(
    api: Api, client: Client, pool: str, tmp_path: Path
) -> None:
    stranger = Registry("stranger", pool)
    serve(api, stranger, new_authority("stranger"))
    with pytest.raises(AssertionError, match="certificate signed by unknown authority"):
        push(client, tmp_path, f"{stranger.host}/team/base:1", "stranger")


def test_a_new_ca_is_trusted_without_a_restart(
    api: Api, client: Client, private: Registry, pool: str, tmp_path: Path
) -> None:
    """The kubelet brings the new bundle within a minute or two; the daemon reads it at each use."""
    (before,) = pods_of(api, "ci", pool)
    authority = new_authority("second")
    trust(api, "private-ca", pool, authority)
    serve(api, private, authority)
    image = f"{private.host}/team/renewed:1"

    def is_trusted() -> bool:
        folder = context(tmp_path / "push", f"FROM {BASE}\nRUN echo renewed > /origin\n")
        output = f"type=image,name={image},push=true"
        done = run(*client.build_command(folder, "--output", output))
        assert done.returncode == 0 or "unknown authority" in done.stderr, done.stderr
        return done.returncode == 0

    eventually(is_trusted, within=150, what="the new CA is trusted", every=2)
    (after,) = pods_of(api, "ci", pool)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
