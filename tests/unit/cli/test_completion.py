"""What kubectl is told where its user wants a command completed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def completed(home: Path, *words: str) -> list[str]:
    """The lines that kubectl gets; there is no cluster, and there are two connections."""
    for name in ("amd", "arm"):
        folder = home / ".config" / "buildpool" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "connection.json").touch()
    done = subprocess.run(
        [sys.executable, "-c", "from buildpool.cli import complete; complete()", *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "suggested", "directive"),
    [
        (("con",), ["connect"], ":4"),
        (("disconnect", ""), ["amd", "arm"], ":4"),
        (("disconnect", "ar"), ["arm"], ":4"),
        (("connect", "ci", "--via", "h"), ["hostname"], ":4"),
        (("status", "-o", ""), ["json", "name", "yaml"], ":4"),
        (("doctor", "--no-b"), ["--no-build"], ":4"),
        (("connect", "nobody-answers"), [], ":4"),
        (("connect", "ci", "--kubeconfig", ""), [], ":0"),
    ],
)
def test_words_are_completed(
    tmp_path: Path, words: tuple[str, ...], suggested: list[str], directive: str
) -> None:
    *lines, last = completed(tmp_path, *words)
    assert sorted(line.partition("\t")[0] for line in lines) == suggested
    assert last == directive


def test_all_commands_are_suggested_with_what_they_do(tmp_path: Path) -> None:
    lines = dict(line.partition("\t")[::2] for line in completed(tmp_path, "")[:-1])
    assert {"builds", "connect", "doctor", "logs", "status", "version"} <= lines.keys()
    assert "hold" not in lines
    assert all(lines.values())
