from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from devcluster.identity import Identity, identify, is_alive, kill, read_identity, start_time


def test_a_name_with_spaces_and_parentheses_does_not_hide_the_start_time() -> None:
    numbers = " ".join(str(field) for field in range(4, 30))
    assert start_time(f"12 (a) (b c) S {numbers}") == 22


def test_this_process_is_alive() -> None:
    assert is_alive(identify(os.getpid()))


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("another process has the number now", {"started": 1}),
        ("the machine was started again since", {"boot": "another"}),
        ("no process has the number", {"pid": 2**22 + 1}),
    ],
)
def test_it_is_not_alive_when(sentence: str, changes: dict[str, int | str]) -> None:
    assert not is_alive(dataclasses.replace(identify(os.getpid()), **changes))


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(("sleep", "60"))
    identity = identify(process.pid)
    assert kill(identity)
    assert not is_alive(identity)
    process.wait()


def test_a_stranger_with_the_same_number_is_not_killed() -> None:
    with subprocess.Popen(("sleep", "60")) as stranger:
        assert kill(dataclasses.replace(identify(stranger.pid), started=1))
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"pid": 1}'])
def test_a_damaged_file_is_read_as_nothing(content: str, tmp_path: Path) -> None:
    file = tmp_path / "supervisor.json"
    file.write_text(content)
    assert read_identity(file) is None
    assert read_identity(tmp_path / "absent.json") is None


def test_an_identity_survives_its_file(tmp_path: Path) -> None:
    identity = Identity(pid=7, started=8, boot="b")
    file = tmp_path / "supervisor.json"
    file.write_text(identity.to_json())
    assert read_identity(file) == identity
