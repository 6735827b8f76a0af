"""What the gateway adds to builds is right or absent: pools whose builder is emptied each time.

Builders are emptied in place of being replaced: what a build finds then, it has imported.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e.caches import REPOSITORIES, ManagedCache, managed
from e2e.clients import (
    APP,
    BASE,
    STEPS,
    Client,
    base_context,
    base_image,
    cached_steps,
    client_of,
    context,
    run,
)
from e2e.flat_registries import serve_flat
from e2e.gateways import deploy
from e2e.pools import change, settle, settle_cache
from e2e.registries import Registry, serve

NOISE = "cat /proc/sys/kernel/random/uuid"
"""Whoever runs it again gets something else."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A pool behind the gateway with a managed cache, and its client."""

    client: Client
    cache: ManagedCache
    builder: str
    """What buildx calls it."""

    def buildx(self, *command: str, folder: Path, stdin: bytes | None = None) -> str:
        """Runs buildx in a folder, which has to succeed; the progress it printed."""
        done = subprocess.run(
            ["buildx", *command, f"--builder={self.builder}", "--progress=plain"],
            cwd=folder,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        progress = done.stderr.decode()
        assert done.returncode == 0, progress
        return progress

    def empty_builder(self) -> None:
        """Forgets all that its builder has."""
        self.client.ask("prune", "--all")

    def repositories(self) -> set[str]:
        """The repositories in which the gateway has had caches kept."""
        return set(self.cache.run(f"ls {REPOSITORIES}/auto 2>/dev/null || true").split())

    def told(self, project: str) -> list[str]:
        """The repositories that builds of a project got, each build's, as the gateway tells."""
        logs = ("logs", "-n", OPERATOR_NAMESPACE, "deployment/buildpool-gateway", "-c", "router")
        return re.findall(rf" imports=\S*/auto/({project}-\w+):\S+ ", self.cache.api.must(*logs))


@pytest.fixture(scope="module")
def injected(
    api: Api, shared_namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Injected]:
    folder = tmp_path_factory.mktemp("injected")
    cache = managed("1Gi")  # each cache is exported once a minute
    deploy(api, "injects", shared_namespace, builders={"slots": 4}, cache=cache)
    settle_cache(api, "injects", shared_namespace)
    client = client_of(api, "injects", shared_namespace, folder)
    made = run("buildx", "create", "--name", f"{shared_namespace}-injects", *client.node())
    assert made.returncode == 0, made.stderr
    try:
        yield Injected(client, ManagedCache(api, "injects", shared_namespace), made.stdout.strip())
    finally:
        run("buildx", "rm", made.stdout.strip())


def test_all_of_a_matrix_is_found_on_an_empty_builder(injected: Injected, tmp_path: Path) -> None:
    context(tmp_path, f"FROM {BASE}\nARG V\nRUN {NOISE}; echo $V > /v\n")
    identity = ("-c", "user.name=e2e", "-c", "user.email=e2e@example.com")
    for command in (
        ("init", "-q"),
        ("remote", "add", "origin", "https://git.invalid/acme/matrix.git"),
        ("add", "."),
        (*identity, "commit", "-qm", "a matrix"),
    ):
        assert run("git", "-C", str(tmp_path), *command).returncode == 0
    base = base_image()
    target = {
        "name": "x${v}",
        "matrix": {"v": ["1", "2", "3"]},
        "args": {"V": "${v}"},
        "output": ["type=cacheonly"],
        "contexts": {BASE: f"oci-layout://{base}"} if base else {},
    }
    (tmp_path / "bake.json").write_text(json.dumps({"target": {"x": target}}))
    bake = ("bake", "-f", "bake.json", "--allow=fs.read=*", "x")
    injected.empty_builder()
    assert cached_steps(injected.buildx(*bake, folder=tmp_path)) == 0
    injected.empty_builder()
    progress = injected.buildx(*bake, folder=tmp_path)
    assert cached_steps(progress) == 3, progress


def test_an_archive_on_standard_input_is_found_by_the_image_that_it_makes(
    injected: Injected, tmp_path: Path
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as written:
        dockerfile = f"FROM {BASE}\nRUN {NOISE} > /x\n".encode()
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(dockerfile)
        written.addfile(member, io.BytesIO(dockerfile))
    output = "--output=type=oci,dest=image.tar"
    build = ("build", "-t", "app.example/archive:1", output, *base_context())
    before = injected.repositories()

    def is_found() -> bool:
        injected.empty_builder()
        progress = injected.buildx(*build, "-", folder=tmp_path, stdin=archive.getvalue())
        return cached_steps(progress) == 1

    assert not is_found()
    # A cache that is exported counts once it is known to be whole.
    eventually(is_found, within=180, what="the next build finds it", every=1)
    (new,) = injected.repositories() - before
    assert new.startswith("app-example-archive-")


def test_a_folder_of_a_repository_has_one_cache_however_it_is_spelled(injected: Injected) -> None:
    """Nobody answers at that host: the builds fail, and the gateway tells what they got."""

    def repository(url: str) -> str:
        before = len(injected.told("git-invalid-acme-folders"))
        context = f"context=https://git.invalid/acme/folders.git{url}"
        build = ("build", "--frontend", "dockerfile.v0", "--opt", context)
        assert run(*injected.client.buildctl(*build)).returncode != 0
        told: list[str] = eventually(
            lambda: injected.told("git-invalid-acme-folders")[before:],
            within=30,
            what="the gateway tells of the build",
            every=0.2,
        )
        return told[-1]

    a = {repository(url) for url in ("?subdir=a", "?ref=main&subdir=a&submodules=0", "#main:a")}
    b = {repository(url) for url in ("?subdir=b", "#:b")}
    root = {repository(url) for url in ("", "?ref=main", "#main")}
    assert [len(each) for each in (a, b, root)] == [1, 1, 1]
    assert len(a | b | root) == 3


def test_a_reproducible_image_has_one_digest_whether_there_is_a_cache_or_not(
    injected: Injected, tmp_path: Path
) -> None:
    source = context(
        tmp_path / "source",
        f"FROM {BASE}\nRUN echo one > /one\nCOPY f /f\nRUN echo two > /two\nRUN echo 3 > /three\n",
    )
    (source / "f").write_text("x\n")

    def digest(number: int, *options: str) -> tuple[str, int]:
        told = tmp_path / f"{number}.json"
        output = f"type=oci,dest={tmp_path}/{number}.tar,rewrite-timestamp=true"
        progress = injected.client.build(
            source,
            *("--opt", "vcs:source=https://git.invalid/acme/exact.git"),
            *("--opt", "build-arg:SOURCE_DATE_EPOCH=1", "--output", output),
            *("--metadata-file", str(told), *options),
        )
        return json.loads(told.read_text())["containerimage.digest"], cached_steps(progress)

    injected.empty_builder()
    first = digest(1)
    injected.empty_builder()
    assert digest(2) == first, "it imports nothing"
    injected.empty_builder()
    assert digest(3, "--no-cache") == first


def test_full_provenance_names_the_layers_of_each_step_whether_there_is_a_cache_or_not(
    injected: Injected, tmp_path: Path
) -> None:
    """Of a layer that is only known by an import, BuildKit would say nothing."""
    source = context(tmp_path / "source", f"FROM {BASE}\nRUN {NOISE} > /x\n")
    image = tmp_path / "image.tar"
    project = ("--opt", "vcs:source=https://git.invalid/acme/attested.git")
    attested = ("--opt", "attest:provenance=mode=max", "--output", f"type=oci,dest={image}")

    def is_found() -> bool:
        injected.empty_builder()
        return cached_steps(injected.client.build(source, *project)) == 1

    for build in ("first", "second"):
        injected.empty_builder()
        progress = injected.client.build(source, *project, *attested)
        assert cached_steps(progress) == 0, "it imports nothing"
        metadata, (step,) = provenance(image)
        assert metadata["layers"][f"{step}:0"][0]
        if build == "first":
            eventually(is_found, within=180, what="there is a cache to be imported", every=1)


def provenance(image: Path) -> tuple[dict[str, Any], list[str]]:
    """What BuildKit tells of a build besides, in its image; and the steps that ran a command."""
    with tarfile.open(image) as archive:
        names = [name for name in archive.getnames() if name.startswith("blobs/sha256/")]
        texts = [archive.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    (predicate,) = (json.loads(text)["predicate"] for text in texts if text.startswith(b'{"_type"'))
    definition = predicate["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]
    steps = [step["id"] for step in definition if "exec" in step["op"].get("Op", {})]
    return predicate["runDetails"]["metadata"]["buildkit_metadata"], steps


def test_a_registry_without_repositories_below_its_own_keeps_caches_as_tags(
    api: Api, shared_namespace: str, tmp_path: Path
) -> None:
    behind, flat = (Registry(name, shared_namespace) for name in ("behind", "flat-registry"))
    serve(api, behind, None)
    serve_flat(api, flat, behind=behind, repository="team/caches")
    registry = {"ref": f"{flat.host}/team/caches"}
    deploy(
        api,
        "flat",
        shared_namespace,
        registries=[{"host": flat.host, "http": True}],
        cache={"registry": registry, "exportInterval": "0s"},
    )
    said = lambda: api.condition("flat", shared_namespace, "CacheReady")  # noqa: E731
    eventually(lambda: said()["reason"] == "WriteRefused", within=60, what="it is refused")
    assert "refuses team/caches/auto/" in said()["message"]
    assert "layout: Tags" in said()["message"]
    change(api, "flat", shared_namespace, cache={"registry": registry | {"layout": "Tags"}})
    settle(api, "flat", shared_namespace)  # so the gateway knows it, too
    settle_cache(api, "flat", shared_namespace)
    client = client_of(api, "flat", shared_namespace, tmp_path)
    source = context(tmp_path / "source", APP)
    (source / "source").write_text("one\n")
    build = client.build_command(source, "--opt", "vcs:source=https://git.invalid/acme/flat.git")
    first = run(*build)
    assert first.returncode == 0, first.stderr
    client.ask("prune", "--all")
    second = run(*build)
    assert second.returncode == 0, second.stderr
    assert cached_steps(second.stderr) == STEPS, second.stderr
