"""The files in ci/ with the real client, kubectl and buildx, up to the point of a build.

No operator runs, and no builder: what is built is only read, by ``docker buildx bake --print``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import PROJECT, Api
from integration.test_connect import ASLEEP, User, deploy, give_certificate, user
from unit.ci import kit

__all__ = ["user"]

PAGE = (PROJECT / "docs" / "how-to" / "ci.md").read_text()


@pytest.fixture
def job(installed: Api, namespace: str, user: User) -> dict[str, str]:
    """The environment of a job of a user who may build with one pool."""
    deploy(installed, namespace, ASLEEP, routing="Gateway", scaling={"min": 0})
    give_certificate(installed, namespace)
    programs = user.home / "bin"
    programs.mkdir()
    calls = {
        "buildpool": f'exec {sys.executable} -m buildpool.cli "$@"',
        "docker": 'shift\nexec buildx "$@"',  # buildx stands alone here
    }
    for name, command in calls.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    (bake,) = re.findall(r"^```hcl\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (user.home / "docker-bake.hcl").write_text(bake)
    return {
        "PATH": kit.path_before(programs),
        "PYTHONPATH": str(PROJECT / "operator"),
        "HOME": str(user.home),
        "XDG_CONFIG_HOME": str(user.home / "config"),
        "BUILDX_CONFIG": str(user.home / "buildx"),
        "KUBECONFIG": str(user.home / "kubeconfig"),
    }


LOOK = "docker buildx ls && docker buildx bake --print"


def is_connected(done: subprocess.CompletedProcess[str], namespace: str) -> None:
    """The job said which pool it has, bake read its file, and there was a builder."""
    assert done.returncode == 0, done.stderr
    assert f"pool {namespace}/ci: asleep" in done.stdout
    assert re.search(r"^buildpool\S* +remote", done.stdout, re.MULTILINE), done.stdout
    assert "registry.example.com/app:1" in done.stdout


def leaves_nothing(user: User, job: dict[str, str]) -> None:
    """No builder, no certificate, and no program that runs."""
    listed = subprocess.run(
        ["buildx", "ls"], env=job, capture_output=True, text=True, check=True, timeout=60
    )
    assert "remote" not in listed.stdout
    assert [path.name for path in user.files.iterdir() if path.suffix != ".lock"] == []


def test_the_script(namespace: str, user: User, job: dict[str, str]) -> None:
    variables = {**job, "BUILDPOOL_POOLS": "ci", "BUILDPOOL_VIA": "service"}
    script = (kit.CI / "shell" / "buildpool.sh").read_text()
    done = kit.run(script, variables, user.home, "sh", "-c", LOOK)
    is_connected(done, namespace)
    leaves_nothing(user, job)


def test_the_action(namespace: str, user: User, job: dict[str, str], tmp_path: Path) -> None:
    secret = Path(job.pop("KUBECONFIG")).read_text()
    inputs = {"pools": "ci", "via": "service", "client": "default", "kubeconfig": secret}
    connected = kit.github("github/action.yml", job, tmp_path, **inputs)
    assert connected.returncode == 0, connected.stderr
    (token,) = re.findall(r"token: (\S+)", secret)
    assert token not in connected.stdout + connected.stderr
    name, builder = (tmp_path / "GITHUB_ENV").read_text().strip().split("=")
    job[name] = builder
    built = kit.run(LOOK, job, tmp_path)
    built.stdout = connected.stdout + built.stdout
    is_connected(built, namespace)
    ended = kit.github("github/disconnect/action.yml", job, tmp_path)
    assert ended.returncode == 0, ended.stderr
    leaves_nothing(user, job)


def test_the_component(namespace: str, user: User, job: dict[str, str]) -> None:
    inputs = {"pools": "ci", "namespace": namespace, "via": "service"}
    main, after = kit.gitlab(job, user.home, LOOK, **inputs)
    is_connected(main, namespace)
    assert after.returncode == 0, after.stderr
    leaves_nothing(user, job)
