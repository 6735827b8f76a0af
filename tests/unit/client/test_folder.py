from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from buildpool.client.folder import Folder, config_root, names
from buildpool.client.values import MAX_FILE_BYTES, Certificate
from buildpool.core.errors import BuildpoolError
from unit.client.connections import a_connection, a_node

CERTIFICATE = Certificate(b"ca", b"cert", b"key")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The folder of a connection, in a home of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = Folder("ci")
    found.keep(a_connection())
    return found


def test_those_that_look_take_each_other_for_no_holder(folder: Folder) -> None:
    """Else a process that has nothing to do with it would be ended: the number is an old one."""
    (folder.path / "holder").write_text("1234")
    with ThreadPoolExecutor(8) as pool:
        looks = pool.map(lambda _: folder.holder(), range(2000))
    assert set(looks) == {None}


def test_the_holder_is_known_for_as_long_as_it_holds(folder: Folder) -> None:
    assert folder.holder() is None
    with folder.held():
        assert folder.holder() == os.getpid()
        with pytest.raises(BuildpoolError, match="is held by another process"), folder.held():
            pass
    assert folder.holder() is None
    assert (folder.path / "holder").read_text() == ""


HOLD = """
import sys, time
from buildpool.client.folder import Folder
with Folder("ci").held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_holder_that_was_killed_is_none(folder: Folder) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert folder.holder() == process.pid
        process.send_signal(signal.SIGKILL)
    assert folder.holder() is None
    folder.forget_holder()
    assert (folder.path / "holder").read_text() == ""


def test_one_command_at_a_time_changes_a_connection(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    is_locked = threading.Event()

    def second() -> None:
        is_locked.wait()
        with Folder("ci").locked():
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with folder.locked():
        is_locked.set()
        while "waits for another command on connection ci\n" not in capsys.readouterr().err:
            time.sleep(0.01)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_what_came_to_nothing_leaves_no_file(folder: Folder) -> None:
    with folder.locked():
        folder.keep_certificate(a_node(), CERTIFICATE)
    assert folder.certificate(a_node()) == CERTIFICATE
    with folder.locked():
        folder.keep(None)
    assert not folder.path.exists()
    assert names() == []


def test_each_client_has_files_of_its_own(folder: Folder) -> None:
    folder.keep_certificate(a_node(client="anna"), CERTIFICATE)
    folder.keep_certificate(a_node(client="bert"), Certificate(b"ca", b"other", b"key"))
    assert folder.certificate(a_node(client="anna")) == CERTIFICATE


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(folder: Folder) -> None:
    (folder.path / "builds.ci.anna" / "ca.pem").mkdir(parents=True)
    with pytest.raises(BuildpoolError, match=r"ca\.pem cannot be read"):
        folder.keep_certificate(a_node(), CERTIFICATE)
    (folder.path / "connection.json").unlink()
    (folder.path / "connection.json").mkdir()
    with pytest.raises(BuildpoolError, match=r"connection\.json cannot be written"):
        folder.keep(a_connection())
    assert [path.name for path in folder.path.rglob("tmp*")] == []


def test_only_what_can_be_a_connection_is_one(folder: Folder) -> None:
    for name in ("Mine", "a\nb", "-flag"):
        (config_root() / name).mkdir()
        (config_root() / name / "connection.json").touch()
    assert names() == ["ci"]


def test_a_log_does_not_grow_without_end(folder: Folder) -> None:
    with folder.new_log() as log:
        log.write(b"x" * MAX_FILE_BYTES)
        log.flush()
        folder.bound_log()
        assert folder.log.stat().st_size == MAX_FILE_BYTES
        log.write(b"more\n")
        log.flush()
        folder.bound_log()
        log.write(b"the last\n")
    assert folder.log.read_bytes() == b"the last\n"
    assert folder.last_words() == "the last"


def test_what_is_not_of_a_connection_is_left_where_it_is(folder: Folder, tmp_path: Path) -> None:
    folder.keep_certificate(a_node(), CERTIFICATE)
    (folder.path / ".unfinished-1").write_text("a key, half written")
    mine = [folder.path / "notes", *(path / "mine" for path in folder.path.glob("*.*.*"))]
    assert len(mine) == 2
    for path in mine:
        path.write_text("mine")
    folder.remove()
    assert sorted(path for path in folder.path.rglob("*") if path.is_file()) == sorted(mine)


def test_a_command_that_fails_takes_nothing_from_a_folder_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis").write_text("")
    config_root().mkdir()
    (config_root() / "ci").symlink_to(documents)
    with pytest.raises(RuntimeError), Folder("ci").locked():
        raise RuntimeError
    assert (documents / "thesis").exists()
