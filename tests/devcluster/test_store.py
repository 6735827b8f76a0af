from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from devcluster.store import content_key, ensure, locked


def silence(_: str) -> None:
    """Nobody reads the progress."""


def write(text: str, folder: Path) -> None:
    (folder / "artifact").write_text(text)


def test_the_key_changes_with_any_part_and_with_where_parts_end(tmp_path: Path) -> None:
    source = tmp_path / "go.mod"
    source.write_text("module a")
    keys = [content_key("go1", source), content_key("go1s", source), content_key("go", "1", source)]
    source.write_text("module b")
    keys.append(content_key("go1", source))
    assert len(set(keys)) == len(keys)


def test_an_artifact_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []
    paths = {ensure(tmp_path, "go/x", "k", made.append, silence) for _ in range(3)}
    assert len(made) == 1
    assert paths == {tmp_path / "go/x/k"}


def test_an_artifact_whose_making_fails_does_not_exist(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write("half", folder)
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError):
        ensure(tmp_path, "x", "k", fail, silence)
    assert list((tmp_path / "x").iterdir()) == []


def test_what_a_killed_process_left_half_made_is_swept(tmp_path: Path) -> None:
    (tmp_path / "x/.making-abandoned").mkdir(parents=True)
    ensure(tmp_path, "x", "k", lambda folder: write("whole", folder), silence)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["k"]


def test_only_the_two_versions_used_last_are_kept(tmp_path: Path) -> None:
    for age, key in ((30, "a"), (20, "b"), (10, "c")):
        folder = ensure(tmp_path, "x", key, lambda folder: write("", folder), silence)
        os.utime(folder, (time.time() - age, time.time() - age))
    ensure(tmp_path, "x", "b", lambda folder: write("", folder), silence)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"b", "c"}


def _make_slowly(cache: Path) -> None:
    def make(folder: Path) -> None:
        with (cache / "count").open("a") as file:
            file.write(".")
        time.sleep(0.2)
        write("whole", folder)

    ensure(cache, "x", "k", make, silence)


def test_two_processes_do_not_make_the_same_artifact_twice(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_make_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "count").read_text() == "."


def test_who_waits_for_a_lock_is_told(tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(words: str) -> None:
        heard.append(words)
        (tmp_path / "told").touch()

    spawn = multiprocessing.get_context("spawn")
    holder = spawn.Process(target=_hold, args=(tmp_path,), daemon=True)
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with locked(tmp_path / "up.lock", hear):
        pass
    holder.join()
    assert heard == ["waiting for another process (up)"]


def _hold(folder: Path) -> None:
    with locked(folder / "up.lock", silence):
        (folder / "held").touch()
        while not (folder / "told").exists():
            time.sleep(0.01)
