"""Builders as root of a user namespace of their own, for those who prefer them to rootless ones."""

from __future__ import annotations

from pathlib import Path

from cluster import PROJECT, Api
from e2e.clients import client_of
from e2e.pools import deploy


def test_a_builder_in_a_user_namespace_builds_and_is_root_of_nothing_else(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "ci", namespace, builders={"security": "UserNamespace"})
    out = tmp_path / "out"
    client = client_of(api, "ci", namespace, tmp_path)
    client.build(PROJECT / "demo" / "parallel", "--output", f"type=local,dest={out}")
    assert sorted(part.name for part in (out / "parts").iterdir()) == [
        "api",
        "docs",
        "web",
        "worker",
    ]
    inside = ("exec", "-n", namespace, "deploy/ci-builder-0", "--")
    assert api.must(*inside, "id", "-u").strip() == "0"
    first, outside, count = api.must(*inside, "cat", "/proc/1/uid_map").split()
    assert first == "0"
    assert int(outside) >= 65536, "root of the pod is a user of the node"
    assert int(count) == 65536
