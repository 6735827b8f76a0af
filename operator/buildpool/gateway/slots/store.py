"""What the next router of this pod has to know: which connection builds where.

Daemons tell what they run, but not for which connection, and of internal builds (``--check``) and
those of a pod that is told to go they tell nothing. It lives as long as Envoy's connections: in the
pod's own files. Whatever is wrong with it, the gateway serves on, as if it knew nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from buildpool.core.naming import PoolKey
from buildpool.core.routing.states import FORGOTTEN

MAX_BYTES: Final = 16 << 20
"""Of the file. Its volume has 64 MiB, and a pod that needs more is evicted, with all builds."""
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS homes (
    pool TEXT, connection TEXT, client TEXT, builder TEXT, ref TEXT, since REAL,
    PRIMARY KEY (pool, connection, ref)
) WITHOUT ROWID
"""
log: Final = logging.getLogger(__name__)


class Home(NamedTuple):
    """A connection that builds, or has built."""

    connection: str
    client: str
    """Its identity."""
    builder: str = ""
    """The uid of the pod; empty where it has a slot and has not said yet what it builds."""
    ref: str = ""
    """What it builds; empty for a session."""


class ConnectionStore:
    """A file that is written at once, and outlives a process that is killed."""

    def __init__(self, path: Path | None, *, now: datetime) -> None:
        """``path``: the file; None: nothing outlives this process."""
        self._forgets = True
        try:
            self._database = _opened(path, now)
        except sqlite3.DatabaseError as error:
            log.warning("Cannot read %s, which is made again: %s", path, error)
            if path is not None:
                path.unlink(missing_ok=True)
            self._database = _opened(path, now)

    def keep(self, pool: PoolKey, home: Home, *, now: datetime) -> None:
        """A connection has begun something, or has a slot and has not."""
        if not (home.builder or self._forgets):
            return  # what it did on a builder has ended for this process only
        self._write(
            "INSERT OR REPLACE INTO homes VALUES (?, ?, ?, ?, ?, ?)",
            (str(pool), *home, now.timestamp()),
        )

    def ended(self, pool: PoolKey, connection: str, ref: str) -> None:
        """A build of a connection has ended: of what it builds, only what runs is noted."""
        if self._forgets:
            self._write(
                "DELETE FROM homes WHERE pool = ? AND connection = ? AND ref = ?",
                (str(pool), connection, ref),
            )

    def drop(self, pool: PoolKey, connection: str) -> None:
        """A connection has ended, or is on no builder any more."""
        if self._forgets:
            self._write(
                "DELETE FROM homes WHERE pool = ? AND connection = ?", (str(pool), connection)
            )

    def retain(self) -> None:
        """From now on nothing is forgotten: what ends, ends for this process only."""
        self._forgets = False

    def recall(self, pool: PoolKey) -> list[Home]:
        """The connections of a pool; none where that cannot be read."""
        try:
            rows = self._database.execute(
                "SELECT connection, client, builder, ref FROM homes WHERE pool = ? ORDER BY since",
                (str(pool),),
            ).fetchall()
        except sqlite3.Error as error:
            log.warning("Cannot read which connection builds where: %s", error)
            return []
        return [Home(*row) for row in rows if all(isinstance(part, str) for part in row)]

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            log.warning("Cannot note which connection builds where: %s", error)


def _opened(path: Path | None, now: datetime) -> sqlite3.Connection:
    database = sqlite3.connect(path or ":memory:", isolation_level=None)
    # The file need not outlive its node, only its process.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(f"PRAGMA max_page_count = {MAX_BYTES // 4096}")
    database.execute(_TABLE)
    database.execute("DELETE FROM homes WHERE since < ?", ((now - FORGOTTEN).timestamp(),))
    return database
