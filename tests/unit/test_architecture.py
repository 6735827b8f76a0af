"""The rules the code keeps as a whole."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "operator"
MODULES = sorted(SOURCE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PURE = next(
    contract["source_modules"]
    for contract in PROJECT["tool"]["importlinter"]["contracts"]
    if contract["name"].startswith("The core is pure")
)
"""Packages and modules by their full names, from the contract that forbids them to import I/O."""
IMPURE = ("asyncio", "logging", "os", "random", "secrets", "socket", "subprocess", "time", "uuid")
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter", "uuid4", "token_hex", "getenv"}
MAX_LINES = 350


def name_of(module: Path) -> str:
    return str(module.relative_to(SOURCE))


def is_within(module: Path, package: str) -> bool:
    path = SOURCE / package.replace(".", "/")
    return module == path.with_suffix(".py") or path in module.parents


CORE = [module for module in MODULES if any(is_within(module, package) for package in PURE)]
HEART = ("core", "buildkit.history")


def test_imports_keep_to_their_contracts() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_pure_package_is_looked_at() -> None:
    assert {f"buildpool.{name}" for name in HEART} <= set(PURE)
    for package in PURE:
        assert any(is_within(module, package) for module in CORE), package


@pytest.mark.parametrize("module", CORE, ids=name_of)
def test_the_core_reads_no_clock_and_rolls_no_dice(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & set(IMPURE)
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
