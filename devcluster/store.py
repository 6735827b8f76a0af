"""The artifact cache: folders named by the content of what they were made from.

An artifact appears under its final name only when it is complete, and two processes never make the
same one at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

Progress = Callable[[str], None]
"""Told what is being done or waited for, as often as that changes."""

KEPT: Final = 2
"""Versions kept of each artifact: the newest, and the one a running cluster may still use."""


def content_key(*parts: str | bytes | Path) -> str:
    """A short name for this very content. A path stands for the bytes of its file."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.read_bytes() if isinstance(part, Path) else part
        raw = raw.encode() if isinstance(raw, str) else raw
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:16]


@contextmanager
def locked(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock; waits for whoever holds it, and is freed by any kind of death."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process ({lock.stem})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure(
    cache: Path, name: str, key: str, make: Callable[[Path], None], progress: Progress
) -> Path:
    """The folder of that artifact; ``make`` fills an empty folder if there is none yet."""
    shelf = cache / name
    final = shelf / key
    if not final.exists():
        with locked(cache / "locks" / f"{name.replace('/', '-')}.lock", progress):
            if not final.exists():
                shelf.mkdir(parents=True, exist_ok=True)
                for abandoned in shelf.glob(".making-*"):
                    shutil.rmtree(abandoned)
                scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=shelf))
                try:
                    make(scratch)
                    scratch.chmod(0o755)
                    scratch.rename(final)
                except BaseException:
                    shutil.rmtree(scratch)
                    raise
    os.utime(final)
    for old in superseded((path, path.stat().st_mtime) for path in shelf.iterdir()):
        shutil.rmtree(old, ignore_errors=True)
    return final


def superseded(versions: Iterable[tuple[Path, float]]) -> tuple[Path, ...]:
    """Which of these (folder, last used) to remove. Folders still being made are left alone."""
    complete = [version for version in versions if not version[0].name.startswith(".")]
    newest_first = sorted(complete, key=lambda version: version[1], reverse=True)
    return tuple(path for path, _ in newest_first[KEPT:])
