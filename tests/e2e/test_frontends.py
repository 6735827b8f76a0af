"""Frontends out of a registry: named by a file or by its client, allowed by the pool or refused."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cluster import Api
from e2e.clients import BASE, Client, client_of, context
from e2e.frontends import (
    DOCKERFILE,
    MOCKERFILE,
    Frontend,
    dockerfile_frontend,
    mockerfile_frontend,
)
from e2e.pools import deploy
from e2e.registries import Registry, new_authority, serve, trust

pytestmark = pytest.mark.skipif(
    "DEVCLUSTER_NAME" not in os.environ, reason="the frontends are images of the devcluster"
)


@pytest.fixture(scope="module")
def registry(api: Api, shared_namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with both frontends, and a pool named ci that takes any."""
    found, authority = Registry("frontends", shared_namespace), new_authority("frontends")
    serve(api, found, authority)
    trust(api, "frontends-ca", shared_namespace, authority)
    deploy(api, "ci", shared_namespace, registries=[entry(found)])
    folder = tmp_path_factory.mktemp("frontends")
    client = client_of(api, "ci", shared_namespace, folder)
    for frontend in (dockerfile_frontend(found), mockerfile_frontend(found)):
        frontend.push(client, folder / frontend.name)
    return found


@pytest.fixture
def client(api: Api, registry: Registry, tmp_path: Path) -> Client:
    """The client of the pool that takes any frontend."""
    return client_of(api, "ci", registry.namespace, tmp_path)


@pytest.fixture
def dockerfile(registry: Registry) -> Frontend:
    """BuildKit's own frontend."""
    return dockerfile_frontend(registry)


@pytest.fixture
def mockerfile(registry: Registry) -> Frontend:
    """The frontend for YAML files."""
    return mockerfile_frontend(registry)


def test_a_syntax_line_has_its_frontend_fetched_by_buildctl(
    client: Client, dockerfile: Frontend, tmp_path: Path
) -> None:
    folder = context(tmp_path / "context", dockerfile.syntax(DOCKERFILE))
    out = tmp_path / "out"
    progress = client.build(folder, "--output", f"type=local,dest={out}")
    assert f"docker-image://{dockerfile.image}" in progress
    assert (out / "built").read_text() == "built\n"


def test_a_syntax_line_has_its_frontend_fetched_by_buildx(
    client: Client, dockerfile: Frontend, tmp_path: Path
) -> None:
    folder = context(tmp_path / "context", dockerfile.syntax(DOCKERFILE))
    out = tmp_path / "out"
    progress = client.build_with_buildx(folder, f"--output=type=local,dest={out}")
    assert f"docker-image://{dockerfile.image}" in progress
    assert (out / "built").read_text() == "built\n"


def test_buildctl_names_a_frontend_for_a_file_that_does_not(
    client: Client, dockerfile: Frontend, tmp_path: Path
) -> None:
    folder, out = context(tmp_path / "context", DOCKERFILE), tmp_path / "out"
    progress = client.build(folder, *dockerfile.gateway, "--output", f"type=local,dest={out}")
    assert f"docker-image://{dockerfile.image}" in progress
    assert (out / "built").read_text() == "built\n"


def test_buildctl_names_a_frontend_of_another_language(
    client: Client, mockerfile: Frontend, tmp_path: Path
) -> None:
    folder, out = tmp_path / "context", tmp_path / "out"
    folder.mkdir()
    (folder / "image.yaml").write_text(MOCKERFILE)
    client.build(
        *(folder, *mockerfile.gateway, "--opt", "filename=image.yaml"),
        *("--output", f"type=local,dest={out}"),
    )
    assert_is_what_the_mockerfile_says(out)


def test_buildx_builds_what_a_frontend_of_another_language_makes_of_a_file(
    client: Client, mockerfile: Frontend, tmp_path: Path
) -> None:
    folder, out, image = tmp_path / "context", tmp_path / "out", tmp_path / "image.tar"
    folder.mkdir()
    (folder / "image.yaml").write_text(mockerfile.syntax(MOCKERFILE))
    client.build_with_buildx(
        *(folder, f"--file={folder / 'image.yaml'}"),
        *(f"--output=type=local,dest={out}", f"--output=type=oci,dest={image}"),
    )
    assert_is_what_the_mockerfile_says(out)
    config = config_of(image)
    assert config["Cmd"] == ["cat", "/shouted"]
    assert [entry.partition("=")[0] for entry in config["Env"]] == ["PATH"], "the base image's"


def test_a_frontend_of_another_language_starts_from_an_image_of_a_registry(
    client: Client, mockerfile: Frontend, registry: Registry, tmp_path: Path
) -> None:
    base, out = f"{registry.host}/team/base:1", tmp_path / "out"
    dockerfile = context(tmp_path / "base", f"FROM {BASE}\nENV ORIGIN=registry\nWORKDIR /work\n")
    client.build(dockerfile, "--output", f"type=image,name={base},push=true")
    text = f"apiVersion: v1alpha1\nfrom: {base}\nrun: [echo $ORIGIN > origin]\n"
    folder = context(tmp_path / "context", mockerfile.syntax(text))
    client.build(folder, "--output", f"type=local,dest={out}")
    assert (out / "work/origin").read_text() == "registry\n"


def test_a_frontend_of_another_language_takes_a_cache_out_of_a_registry(
    client: Client, mockerfile: Frontend, registry: Registry, tmp_path: Path
) -> None:
    folder = context(tmp_path / "context", mockerfile.syntax(MOCKERFILE))
    cache = f"type=registry,ref={registry.host}/caches/mockerfile:main"
    client.ask("prune", "--all")
    assert not is_cached(client.build(folder, "--export-cache", f"{cache},mode=max"))
    client.ask("prune", "--all")
    assert is_cached(client.build(folder, "--import-cache", cache))


def test_a_mistake_in_a_file_is_said_in_the_words_of_its_frontend(
    client: Client, mockerfile: Frontend, tmp_path: Path
) -> None:
    folder = context(tmp_path, mockerfile.syntax(f"{MOCKERFILE}entrypoint: [sh]\n"))
    with pytest.raises(AssertionError, match="field entrypoint not found"):
        client.build(folder)


def test_a_frontend_that_a_pool_does_not_allow_is_refused(
    api: Api, registry: Registry, dockerfile: Frontend, mockerfile: Frontend, tmp_path: Path
) -> None:
    frontends = {"allowed": [dockerfile.repository]}
    client = a_pool_of(api, "picky", registry, tmp_path, frontends)
    other = context(tmp_path / "other", mockerfile.syntax(MOCKERFILE))
    refusal = f"'{mockerfile.image}' is not an allowed gateway source"
    for options in ((), mockerfile.gateway):
        with pytest.raises(AssertionError, match=refusal):
            client.build(other, *options)
    with pytest.raises(AssertionError, match=refusal):
        client.build_with_buildx(other)
    client.build(context(tmp_path / "allowed", dockerfile.syntax(DOCKERFILE)))


def test_a_pool_that_allows_no_frontend_builds_plain_dockerfiles(
    api: Api, registry: Registry, dockerfile: Frontend, tmp_path: Path
) -> None:
    client = a_pool_of(api, "closed", registry, tmp_path, {"allowed": []})
    asking = context(tmp_path / "asking", dockerfile.syntax(DOCKERFILE))
    for options in ((), dockerfile.gateway):
        with pytest.raises(AssertionError, match=r"invalid frontend: gateway\.v0"):
            client.build(asking, *options)
    client.build(context(tmp_path / "plain", DOCKERFILE))


def a_pool_of(
    api: Api, name: str, registry: Registry, folder: Path, frontends: dict[str, Any]
) -> Client:
    """The client of a further pool that knows the registry."""
    namespace = registry.namespace
    deploy(api, name, namespace, registries=[entry(registry)], frontends=frontends)
    return client_of(api, name, namespace, folder)


def entry(registry: Registry) -> dict[str, Any]:
    """How a pool knows the registry."""
    return {"host": registry.host, "caBundle": {"configMap": {"name": "frontends-ca"}}}


def assert_is_what_the_mockerfile_says(out: Path) -> None:
    """The files and commands of the mockerfile have had their effect, on top of the base image."""
    assert (out / "etc/greeting").read_text() == "hello"
    assert (out / "opt/deep/down/note").read_text() == "two\nlines\n"
    assert (out / "shouted").read_text() == "HELLO"
    assert (out / "found").read_text().endswith("/tr\n"), "the PATH is the base image's"


def is_cached(progress: str) -> bool:
    """Whether the builder did not have to run the mockerfile's last command."""
    (step,) = {
        line.split()[0]
        for line in progress.splitlines()
        if line.startswith("#") and line.endswith("[mockerfile] run which tr > /found")
    }
    return f"{step} CACHED" in progress


def config_of(archive: Path) -> dict[str, Any]:
    """How a container of the image in an OCI archive runs."""
    with tarfile.open(archive) as tar:

        def content(name: str) -> dict[str, Any]:
            file = tar.extractfile(name)
            assert file is not None, name
            found: dict[str, Any] = json.load(file)
            return found

        def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
            return content(f"blobs/{descriptor['digest'].replace(':', '/')}")

        manifest = blob(content("index.json")["manifests"][0])
        while "manifests" in manifest:  # with its provenance beside it, an image is in an index
            manifest = blob(manifest["manifests"][0])
        config: dict[str, Any] = blob(manifest["config"])["config"]
    return config
