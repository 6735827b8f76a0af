"""The rules the code keeps as a whole."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "operator"
MODULES = sorted(SOURCE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
PURITY = next(c for c in CONTRACTS if c["name"].startswith("The core is pure"))
PURE = PURITY["source_modules"]
"""Packages and modules by their full names, from the contract that forbids them to import I/O."""
IMPURE = set(PURITY["forbidden_modules"])
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter", "uuid4", "token_hex", "getenv"}
MAX_LINES = 350


def name_of(module: Path) -> str:
    return str(module.relative_to(SOURCE))


def is_within(module: Path, package: str) -> bool:
    path = SOURCE / package.replace(".", "/")
    return module == path.with_suffix(".py") or path in module.parents


CORE = [module for module in MODULES if any(is_within(module, package) for package in PURE)]
ROOMS = {
    *("cli", "manager", "controller", "gateway", "sidecars", "client"),
    *("kube", "buildkit", "preflight", "core"),
}


@pytest.fixture
def a_copy(tmp_path: Path) -> Path:
    """The source and its contracts, to be broken."""
    shutil.copytree(SOURCE, tmp_path / "operator", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(root: Path) -> tuple[int, str]:
    """The exit code, and what is said, of the check that ``make check`` makes."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-logo",
            "--no-cache",
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "operator"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_keep_to_their_contracts() -> None:
    code, said = lint_imports(ROOT)
    assert code == 0, said


def test_make_check_keeps_the_same_contracts() -> None:
    done = subprocess.run(
        ["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if "lint-imports" in line]
    # No option that names other contracts, or only some of them.
    assert lines == ["PYTHONPATH=operator .venv/bin/lint-imports --no-logo"]


@dataclass(frozen=True)
class Breach:
    """Code that must not be where it is, and how the check names it."""

    file: str
    code: str
    named: str


BREACHES = {
    "a loose module": Breach("loose.py", "", "- buildpool.loose"),
    "a loose package": Breach("loose/__init__.py", "", "- buildpool.loose"),
    "a loose module in the core": Breach("core/loose.py", "", "- buildpool.core.loose"),
    "an adapter that imports another": Breach(
        "kube/events.py",
        "from buildpool.preflight import values",
        "buildpool.kube.events -> buildpool.preflight.values",
    ),
    "a program that imports another": Breach(
        "gateway/server.py",
        "from buildpool.controller.loop import PoolLoop",
        "buildpool.gateway.server -> buildpool.controller.loop",
    ),
    "Kubernetes in the client": Breach(
        "client/kubectl.py",
        "from buildpool.kube import cluster",
        "buildpool.client.kubectl -> buildpool.kube.cluster",
    ),
    "the web in what the client imports": Breach(
        "core/naming.py", "import aiohttp", "buildpool.core.naming -> aiohttp"
    ),
    "a clock at the head of the core": Breach(
        "core/__init__.py", "import time", "buildpool.core -> time"
    ),
    "a clock deep in the core": Breach(
        "core/scaling/size.py", "import time", "buildpool.core.scaling.size -> time"
    ),
    "a clock in a function of the core": Breach(
        "core/pki/issuing.py",
        "def late():\n    from time import monotonic",
        "buildpool.core.pki.issuing -> time",
    ),
    "a clock in a new module of the core": Breach(
        "core/planning/hurry.py", "import time", "buildpool.core.planning.hurry -> time"
    ),
    "Kopf at the head of the package": Breach("__init__.py", "import kopf", "buildpool -> kopf"),
    "Kopf beside the manager": Breach("process.py", "import kopf", "buildpool.process -> kopf"),
    "Kopf in the controller": Breach(
        "controller/loop.py", "import kopf", "buildpool.controller.loop -> kopf"
    ),
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
def test_a_breach_of_the_contracts_is_found_and_named(breach: Breach, a_copy: Path) -> None:
    file = a_copy / "operator" / "buildpool" / breach.file
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as end:
        end.write(f"\n{breach.code}\n")
    code, said = lint_imports(a_copy)
    assert code == 1, said
    assert breach.named in said


def test_the_package_consists_of_its_rooms() -> None:
    found = {path.name for path in (SOURCE / "buildpool").iterdir()}
    files = {"__init__.py", "process.py", "py.typed", "settings.py"}
    assert found - {"__pycache__"} == ROOMS | files


def test_every_pure_package_is_looked_at() -> None:
    assert "buildpool.core" in PURE
    for package in PURE:
        assert any(is_within(module, package) for module in CORE), package


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_that_says_it_is_pure_is_held_to_it(module: Path) -> None:
    words = (ast.get_docstring(ast.parse(module.read_text())) or "").split()
    says_so = not {"Pure.", "Pure:", "Pure,"}.isdisjoint(words)
    assert module in CORE or not says_so


@pytest.mark.parametrize("module", CORE, ids=name_of)
def test_the_core_reads_no_clock_and_rolls_no_dice(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & IMPURE
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in IMPURE
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CLOCKS, f"line {node.lineno}: {ast.unparse(node)}"


def test_the_folder_operator_is_no_package() -> None:
    # It would hide the module of the standard library, and Python itself would not start.
    assert not (SOURCE / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_module_is_called_like_one_of_the_standard_library(module: Path) -> None:
    assert module.stem not in sys.stdlib_module_names - {"__init__", "__main__"}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_is_short_and_says_what_it_is_for(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text))


PACKAGES = [module for module in MODULES if module.name == "__init__.py"]


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_the_map_of_a_package_names_all_that_is_in_it(package: Path) -> None:
    text = ast.get_docstring(ast.parse(package.read_text())) or ""
    inside = {each.stem for each in package.parent.glob("*.py")} - {"__init__", "__main__"}
    inside |= {each.parent.name for each in package.parent.glob("*/__init__.py")}
    assert {name for name in inside if not re.search(rf"\b{name}\b", text)} == set()


UNITS = {"Seconds": "SECONDS", "Bytes": "BYTES", "Characters": "CHARACTERS", "Share": "SHARE"}
"""What an attribute docstring may begin with, and what the name of a number then ends with."""


def measures(module: Path) -> dict[str, str]:
    """The numbers that a module names, and what their docstrings begin with."""
    found, body = {}, ast.parse(module.read_text()).body
    for statement, said in pairwise(body):
        match statement, said:
            case (
                ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int() | float())),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = text.split(maxsplit=1)[0].strip(".,;")
    return found


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_the_name_of_a_measure_says_its_unit(module: Path) -> None:
    for name, word in measures(module).items():
        if word in UNITS:
            assert UNITS[word] in name, f"{name} is in {word.lower()}"
