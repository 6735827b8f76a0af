"""From a BuildKitPool to an image, with unmodified clients, by every way that the docs tell of."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster import PROJECT, Api
from e2e.clients import BASE, SHORT, Client, client_of, context
from e2e.pools import deploy, pods_of, port_forward

PARALLEL = PROJECT / "demo" / "parallel"
"""Four stages that sleep five seconds each and need nothing of each other."""
PARTS = {f"parts/{name}": f"{name}\n" for name in ("api", "docs", "web", "worker")}


@pytest.fixture(scope="module")
def pool(api: Api, shared_namespace: str) -> str:
    """The namespace of a pool named ci, of two builders, Ready."""
    deploy(api, "ci", shared_namespace, scaling={"min": 2})
    return shared_namespace


@pytest.fixture
def client(api: Api, pool: str, tmp_path: Path) -> Client:
    """The pool's client, through its Service."""
    return client_of(api, "ci", pool, tmp_path)


def test_the_pool_shows_itself_in_a_table(api: Api, pool: str) -> None:
    header, row = api.must("get", "bkp", "-n", pool).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "ENDPOINT", "AGE"]
    assert row.split()[:-1] == ["ci", "2/2", "Ready", f"tcp://ci.{pool}.svc:1234"]


def test_a_builder_is_ready_within_three_seconds_of_its_start(api: Api, pool: str) -> None:
    pods = pods_of(api, "ci", pool)
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["status"]["containerStatuses"]
        started = datetime.fromisoformat(container["state"]["running"]["startedAt"])
        (ready,) = (c for c in pod["status"]["conditions"] if c["type"] == "Ready")
        took = datetime.fromisoformat(ready["lastTransitionTime"]) - started
        print(
            f"{pod['metadata']['name']}: ready after {took.total_seconds():g} s, in whole seconds"
        )
        assert took <= timedelta(seconds=3)


def test_buildctl_builds_four_stages_at_once_into_an_image(client: Client, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    started = time.monotonic()
    client.build(PARALLEL, "--output", f"type=oci,dest={archive}")
    took = time.monotonic() - started
    print(f"four stages of 5 s each: {took:.1f} s")
    assert took < 15
    assert {name: text for name, text in files_in(archive) if name in PARTS} == PARTS


def test_buildx_builds_with_its_remote_driver(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "out"
    client.build_with_buildx(context(tmp_path / "context", SHORT), f"--output={out}")
    assert (out / "built").read_text() == "built\n"


def test_a_build_from_outside_goes_through_a_port_forward(
    client: Client, pool: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with port_forward("service/ci", pool) as address:
        folder = context(tmp_path / "context", SHORT)
        client.at(address).build(folder, "--output", f"type=local,dest={out}")
    assert (out / "built").read_text() == "built\n"


def test_a_failing_build_fails_and_hurts_nobody(
    api: Api, client: Client, pool: str, tmp_path: Path
) -> None:
    folder = context(tmp_path / "context", f"FROM {BASE}\nRUN echo broken; exit 3\n")
    with pytest.raises(AssertionError, match="exit code: 3"):
        client.build(folder)
    for pod in pods_of(api, "ci", pool):
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def files_in(archive: Path) -> Iterator[tuple[str, str]]:
    """Names and contents of the files in the layers of an OCI archive of one image."""
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> bytes:
            member = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert member is not None
            return member.read()

        index_file = tar.extractfile("index.json")
        assert index_file is not None
        index = json.load(index_file)
        manifest: dict[str, Any] = json.loads(blob(index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as files:
                for member in files:
                    content = files.extractfile(member) if member.isfile() else None
                    if content is not None:
                        yield member.name, content.read().decode(errors="replace")
