"""What `pip install buildpool` brings: the client and its needs, and nothing of the operator's.

The install is put together from what is here, so no registry is asked: of each dependency the files
that its own list names.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[3]
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
OPERATORS = {"aiohttp", "envoy", "google", "grpc", "kopf", "kubernetes", "prometheus_client"}
MOST_MEBIBYTES = 60


def closure(requirements: list[str]) -> set[str]:
    """The names of all that has to be installed for these."""
    found: set[str] = set()
    todo = [Requirement(each) for each in requirements]
    while todo:
        wanted = todo.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name in found:
            continue
        found.add(name)
        needs = (Requirement(each) for each in distribution(name).requires or ())
        todo += (n for n in needs if n.marker is None or n.marker.evaluate({"extra": ""}))
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of it, as pip fills one: links, so that nothing is compiled again."""
    folder = tmp_path_factory.mktemp("site-packages")
    for name in closure(METADATA["dependencies"]):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(str(found.locate_file(top)))
    (folder / "buildpool").symlink_to(PROJECT / "operator" / "buildpool")
    return folder


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program with nothing but the standard library and what is installed."""
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from buildpool.cli import main; "
    command = [sys.executable, "-I", "-S", "-c", f"{code}main()", *arguments]
    return subprocess.run(
        command, env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False
    )


def cpu_seconds() -> float:
    """What the processes that have ended took, which says more than a clock on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_it_is_small_and_has_nothing_of_the_operators(installed: Path) -> None:
    paths = (path for top in installed.iterdir() for path in (top, *top.rglob("*")))
    files = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
    mebibytes = sum(path.stat().st_size for path in files) / 2**20
    print(f"the client and its needs: {mebibytes:.1f} MiB in {len(files)} files")
    assert not OPERATORS & {path.name for path in installed.iterdir()}
    assert mebibytes <= MOST_MEBIBYTES


def test_its_commands_run(installed: Path) -> None:
    assert run(installed, "version", "--client").stdout.strip() == METADATA["version"]
    assert "BuildKitPool" in run(installed, "crd").stdout
    sample = PROJECT / "manifests" / "samples" / "pool-full.yaml"
    assert "kind: Deployment" in run(installed, "render", str(sample)).stdout
    for command in (("connect", "ci"), ("status",), ("explain", "ci"), ("rotate", "ci")):
        run(installed, *command)  # compiles what it loads
        before = cpu_seconds()
        done = run(installed, *command)
        print(f"{command[0]}: {cpu_seconds() - before:.2f} s of CPU until kubectl is looked for")
        assert done.stderr.startswith("error: kubectl is not on the PATH"), done.stderr


@pytest.mark.parametrize("command", ["run", "gateway", "drain-gateway", "docs", "cache-guard"])
def test_a_command_whose_needs_are_missing_says_what_to_install(
    installed: Path, command: str
) -> None:
    flags = {
        "run": ["--namespace=x"],
        "gateway": ["--namespace=x"],
        "docs": ["metrics"],
        "cache-guard": [
            *("--registry=x", "--keeper=x"),
            *("--server-certificates=x", "--client-certificates=x"),
        ],
    }
    done = run(installed, command, *flags.get(command, []))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {command} needs ")
    assert line.endswith(
        "which is not installed; in a checkout of buildpool: pip install '.[operator]'"
    )


def test_a_system_without_file_locks_is_named(installed: Path, tmp_path: Path) -> None:
    """Such as Windows."""
    (tmp_path / "fcntl.py").write_text("raise ModuleNotFoundError(name='fcntl')\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(installed)!r}]; "
    main = f"{code}from buildpool.cli import main; main()"
    command = [sys.executable, "-I", "-S", "-c", main, "connect", "ci"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "error: connect works on Linux and macOS only\n"


def test_the_image_installs_the_operators_needs_too() -> None:
    needs = {Requirement(each).name for each in METADATA["optional-dependencies"]["operator"]}
    assert {"kopf", "kubernetes", "grpcio", "aiohttp"} <= needs
    assert "'buildpool[operator]'" in (PROJECT / "Dockerfile").read_text()
