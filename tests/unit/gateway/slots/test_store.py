"""What a router notes for the next one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from buildpool.core.naming import PoolKey
from buildpool.core.routing.connection import MAX_REFS
from buildpool.core.routing.states import FORGOTTEN
from buildpool.gateway.slots.store import ConnectionStore, Home
from samples import NOW

POOL, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")
A_BUILD, ITS_SESSION = Home("1@a", "ann", "uid", "ref"), Home("1@a", "ann", "uid", "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "router.db"


def test_what_was_noted_outlives_a_process_that_is_killed(path: Path) -> None:
    killed = ConnectionStore(path, now=NOW)
    killed.keep(POOL, A_BUILD, now=NOW)
    killed.keep(POOL, A_BUILD, now=NOW)
    killed.keep(POOL, ITS_SESSION, now=NOW)
    following = ConnectionStore(path, now=NOW)
    assert sorted(following.recall(POOL)) == [ITS_SESSION, A_BUILD]
    assert following.recall(OTHER) == []


def test_a_connection_that_has_ended_is_forgotten(path: Path) -> None:
    memory = ConnectionStore(path, now=NOW)
    other = A_BUILD._replace(connection="2@b")
    for home in (A_BUILD, ITS_SESSION, other):
        memory.keep(POOL, home, now=NOW)
    memory.drop(POOL, A_BUILD.connection)
    memory.drop(OTHER, other.connection)
    assert memory.recall(POOL) == [other]


def test_a_build_that_has_ended_is_forgotten_and_none_that_runs(path: Path) -> None:
    memory = ConnectionStore(path, now=NOW)
    memory.keep(POOL, ITS_SESSION, now=NOW)
    builds = [A_BUILD._replace(ref=f"ref-{number}") for number in range(2 * MAX_REFS)]
    for number, build in enumerate(builds):
        memory.keep(POOL, build, now=NOW + timedelta(seconds=number))
    memory.ended(POOL, A_BUILD.connection, "ref-0")
    memory.ended(POOL, "another connection", "ref-1")
    memory.ended(OTHER, A_BUILD.connection, "ref-1")
    assert memory.recall(POOL) == [ITS_SESSION, *builds[1:]]


def test_what_was_noted_long_ago_is_forgotten(path: Path) -> None:
    ConnectionStore(path, now=NOW).keep(POOL, A_BUILD, now=NOW)
    assert ConnectionStore(path, now=NOW + FORGOTTEN).recall(POOL) == [A_BUILD]
    assert ConnectionStore(path, now=NOW + FORGOTTEN + timedelta(seconds=1)).recall(POOL) == []


def test_a_file_that_cannot_be_read_is_made_anew(path: Path) -> None:
    path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    memory = ConnectionStore(path, now=NOW)
    memory.keep(POOL, A_BUILD, now=NOW)
    assert memory.recall(POOL) == [A_BUILD]


def test_a_file_that_cannot_be_written_stops_nobody(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = ConnectionStore(path, now=NOW)
    memory._database.execute("PRAGMA query_only = ON")
    memory.keep(POOL, A_BUILD, now=NOW)
    memory.drop(POOL, A_BUILD.connection)
    assert "Cannot note which connection builds where" in caplog.text


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("CAST(x'ff' AS TEXT)", []),  # no UTF-8: what comes after it cannot be read either
        ("x'ff'", [A_BUILD]),
        ("NULL", [A_BUILD]),
    ],
)
def test_what_was_noted_and_is_no_text_stops_nobody(
    path: Path, part: str, others: list[Home]
) -> None:
    killed = ConnectionStore(path, now=NOW)
    killed.keep(POOL, A_BUILD, now=NOW)
    killed.keep(POOL, A_BUILD._replace(connection="broken"), now=NOW)
    killed._database.execute(f"UPDATE homes SET client = {part} WHERE connection = 'broken'")
    assert ConnectionStore(path, now=NOW).recall(POOL) == others


def test_a_table_that_is_another_stops_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed = ConnectionStore(path, now=NOW)
    killed._database.execute("DROP TABLE homes")
    killed._database.execute("CREATE TABLE homes (since REAL)")
    assert ConnectionStore(path, now=NOW).recall(POOL) == []
    assert "Cannot read which connection builds where" in caplog.text
