"""The files in ci/: what they call, what they leave, and that no secret is said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prometheus import unpacked
from unit.ci import kit

SHELLS = ["dash", "busybox sh"]
RECORD = """\
import json, os, sys
from pathlib import Path
with Path(os.environ["RECORD"]).open("a") as file:
    about = [Path(sys.argv[0]).name, sys.argv[1:], os.environ.get("BUILDX_BUILDER", "")]
    file.write(json.dumps(about) + "\\n")
assert SECRET not in str(dict(os.environ)) + str(sys.argv)
sys.exit(int(os.environ.get("FAILS") == sys.argv[1]))
"""
SECRET = "the-token-of-ci"
KUBECONFIG = f"users: [{{name: ci, user: {{token: {SECRET}}}}}]"

Calls = list[tuple[str, list[str], str]]


class Machine:
    """Where programs are called that only note how they are called."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.record = home / "record"
        programs = home / "bin"
        programs.mkdir()
        for name in ("buildpool", "docker"):
            code = f"#!{sys.executable}\nSECRET = {SECRET!r}\n{RECORD}"
            (programs / name).write_text(code)
            (programs / name).chmod(0o755)
        self.environment = {
            "PATH": kit.path_before(programs),
            "HOME": str(home),
            "RECORD": str(self.record),
            "TMPDIR": str(home / "tmp"),
        }
        (home / "tmp").mkdir()

    def calls(self) -> Calls:
        """What was called, in order."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [(name, arguments, builder) for name, arguments, builder in map(json.loads, lines)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def is_connected_and_disconnected(calls: Calls, *flags: str, pools: list[str]) -> None:
    """The first call is connect, the last one disconnect, both of the builder in between."""
    (first, connect, _), *between, (last, disconnect, _) = calls
    assert (first, last) == ("buildpool", "buildpool")
    (builder,) = (a.removeprefix("--name=") for a in connect if a.startswith("--name="))
    assert connect == ["connect", "--detach", f"--name={builder}", *flags, "--", *pools]
    assert disconnect == ["disconnect", builder]
    assert all(each == builder for _, _, each in between)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("fails", ["", "connect", "buildx", "disconnect"])
def test_the_script_disconnects_whatever_has_failed(
    machine: Machine, shell: str, fails: str
) -> None:
    if shell == "busybox sh":
        shell = f"{unpacked('busybox') / 'bin' / 'busybox'} sh"
    variables = {
        **machine.environment,
        "BUILDPOOL_POOLS": "ci *",
        "BUILDPOOL_NAMESPACE": "builds",
        "BUILDPOOL_VIA": "service",
        "FAILS": fails,
    }
    script = (kit.CI / "shell" / "buildpool.sh").read_text()
    done = kit.run(script, variables, machine.home, "docker", "buildx", "build", "a b", shell=shell)
    assert done.returncode == int(fails in ("connect", "buildx")), done.stderr
    calls = machine.calls()
    flags = ("--namespace=builds", "--via=service")
    is_connected_and_disconnected(calls, *flags, pools=["ci", "*"])
    built = [arguments for name, arguments, _ in calls if name == "docker"]
    assert built == ([] if fails == "connect" else [["buildx", "build", "a b"]])
    assert list((machine.home / "tmp").iterdir()) == []


def test_the_script_disconnects_when_the_job_is_cancelled(machine: Machine) -> None:
    script = kit.CI / "shell" / "buildpool.sh"
    waits = "echo started; exec sleep 60"
    with subprocess.Popen(
        ["dash", str(script), "sh", "-c", waits],
        env={**machine.environment, "BUILDPOOL_POOLS": "ci"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"started\n"
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(timeout=30) == 143
    is_connected_and_disconnected(machine.calls(), pools=["ci"])


def test_the_action_keeps_the_kubeconfig_to_itself(machine: Machine) -> None:
    inputs = {"pools": "ci ci-arm", "namespace": "builds", "kubeconfig": KUBECONFIG}
    done = kit.github("github/action.yml", machine.environment, machine.home, **inputs)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    (file,) = machine.home.glob("buildpool.*/kubeconfig")
    assert file.read_text() == KUBECONFIG + "\n"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    told = (machine.home / "GITHUB_ENV").read_text()
    builder = told.strip().removeprefix("BUILDX_BUILDER=")
    assert (machine.home / "GITHUB_OUTPUT").read_text() == f"builder={builder}\n"

    later = {**machine.environment, "BUILDX_BUILDER": builder}
    done = kit.github("github/disconnect/action.yml", later, machine.home)
    assert done.returncode == 0, done.stderr
    flags = ("--namespace=builds", f"--kubeconfig={file}")
    is_connected_and_disconnected(machine.calls(), *flags, pools=["ci", "ci-arm"])


def test_the_actions_builder_can_be_removed_where_connect_failed(machine: Machine) -> None:
    environment = {**machine.environment, "FAILS": "connect"}
    done = kit.github("github/action.yml", environment, machine.home, pools="ci")
    assert done.returncode == 1
    assert (machine.home / "GITHUB_ENV").read_text().startswith("BUILDX_BUILDER=buildpool-")


@pytest.mark.parametrize("fails", ["", "connect", "buildx"])
def test_the_component_disconnects_whatever_has_failed(machine: Machine, fails: str) -> None:
    environment = {**machine.environment, "FAILS": fails}
    inputs = {"pools": "ci ci-arm", "namespace": "builds", "client": "ci"}
    main, after = kit.gitlab(environment, machine.home, "docker buildx build .", **inputs)
    assert (main.returncode, after.returncode) == (int(bool(fails)), 0), main.stderr
    flags = ("--namespace=builds", "--client=ci")
    is_connected_and_disconnected(machine.calls(), *flags, pools=["ci", "ci-arm"])


@pytest.mark.parametrize("fails", ["", "connect", "buildx"])
def test_the_task_disconnects_whatever_has_failed(machine: Machine, fails: str) -> None:
    environment = {**machine.environment, "FAILS": fails}
    params = {"namespace": "builds", "image": "registry.example.com/app:1", "tools": "tools"}
    done = kit.tekton(environment, machine.home, ["ci", "ci-arm"], **params)
    assert done.returncode == int(bool(fails)), done.stderr
    is_connected_and_disconnected(machine.calls(), "--namespace=builds", pools=["ci", "ci-arm"])


def test_every_flag_is_one_that_connect_has() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "buildpool.cli", "connect", "--help"],
        env={**os.environ, "PYTHONPATH": str(kit.PROJECT / "operator"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for path in kit.CI.rglob("*.*"):
        for call in re.findall(r"buildpool connect(?:.*\\\n)*.*", path.read_text()):
            for flag in re.findall(r"--[a-z]+", call):
                assert flag in said, (path, flag)
