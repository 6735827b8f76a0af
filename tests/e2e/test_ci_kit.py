"""The script in ci/ with a real build: docs/how-to/ci.md's bake, from outside of the pool."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cluster import PROJECT, Api
from e2e import pools
from e2e.clients import context
from unit.ci import kit


def test_bake_builds_with_the_pool_and_leaves_nothing(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    pools.deploy(api, "ci", namespace)
    programs = tmp_path / "bin"
    programs.mkdir()
    calls = {
        "buildpool": f'exec {sys.executable} -m buildpool.cli "$@"',
        "docker": 'shift\nexec buildx "$@"',  # buildx stands alone here
    }
    for name, command in calls.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    source = context(tmp_path / "context", "FROM scratch\nCOPY file /file\n")
    (source / "file").write_text("built")
    (source / "docker-bake.hcl").write_text('target "default" {\n  output = ["out"]\n}\n')
    environment = {
        **os.environ,
        "PATH": kit.path_before(programs),
        "PYTHONPATH": str(PROJECT / "operator"),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "BUILDX_CONFIG": str(tmp_path / "buildx"),
        "BUILDPOOL_POOLS": "ci",
        "BUILDPOOL_NAMESPACE": namespace,
        "BUILDPOOL_VIA": "port-forward",
    }
    script = (kit.CI / "shell" / "buildpool.sh").read_text()
    done = kit.run(script, environment, source, "docker", "buildx", "bake", "--progress=plain")
    assert done.returncode == 0, done.stderr
    assert f"pool {namespace}/ci: running" in done.stdout
    assert (source / "out" / "file").read_text() == "built"
    left = [path.name for path in (tmp_path / "config" / "buildpool").iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []
