"""A storage and who looks after it, at a time and with a disk that a test says."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BufferedReader
from pathlib import Path

import pytest

from buildpool.sidecars.keeper import files
from buildpool.sidecars.keeper.retention import Rules
from buildpool.sidecars.keeper.storage import Disk, RegistryStorage
from buildpool.sidecars.keeper.upkeep import Checked, Upkeep
from unit.sidecars.stored import DAY, HOUR, NOW, Stored, digest_of

RETENTION, GRACE = 14 * DAY, 2 * HOUR
MINUTE = timedelta(minutes=1)


@dataclass
class Kept(Stored):
    """A storage and who looks after it."""

    now: datetime = NOW
    leapt: timedelta = timedelta(0)
    """How far the clock is ahead of the time that has passed."""
    capacity: int = 10**12
    disk: Disk = field(default_factory=lambda: Disk(10**12, 10**12))
    scrub: timedelta | None = DAY
    patience: timedelta = timedelta(seconds=20)
    digest: str = ""
    """Of the cache that a test is about."""
    checked: Checked | None = None
    """What the last check has shown."""
    read: list[str] = field(default_factory=list)
    """Blobs that were read, in this order."""

    def __post_init__(self) -> None:
        self.upkeep = self.restarted()

    def restarted(self) -> Upkeep:
        storage = RegistryStorage(self.root, self.monotonic)
        storage.disk = lambda: self.disk  # type: ignore[method-assign]
        return Upkeep(
            storage,
            Rules(self.capacity, RETENTION, GRACE),
            interval=MINUTE,
            clock=lambda: self.now,
            monotonic=self.monotonic,
            scrub=self.scrub,
            patience=self.patience,
        )

    def monotonic(self) -> float:
        return (self.now - self.leapt).timestamp()

    @property
    def why(self) -> str:
        """What the last check found wrong."""
        return self.checked.message if self.checked else ""

    async def check(self, reference: str = "main", repository: str = "caches/app") -> str | None:
        """The digest if it is whole; otherwise None."""
        self.checked = await self.upkeep.check(repository, reference)
        return self.checked.digest

    def spoil(self, content: bytes) -> None:
        """Changes a bit, as a disk would, and not the size."""
        file = self.storage.data(digest_of(content))
        file.write_bytes(bytes((content[0] ^ 1,)) + content[1:])


def failing(
    patch: pytest.MonkeyPatch, is_hit: Callable[[Path], bool], number: int = errno.EIO
) -> None:
    """Has the volume fail to read these files."""
    opened = files._open

    def fail(path: Path) -> BufferedReader | None:
        if is_hit(path):
            raise OSError(number, os.strerror(number).lower(), str(path))
        return opened(path)

    patch.setattr(files, "_open", fail)
