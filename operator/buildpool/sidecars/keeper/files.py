"""Files and folders that may vanish, appear or be damaged at any moment.

What is gone is never an error here. An error that tells nothing of the file itself, such as too
many open files, is never taken for damage: it is raised.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from buildpool.sidecars.keeper.inventory import Identity
from buildpool.sidecars.names import PREFIX

GONE: Final = (FileNotFoundError, NotADirectoryError)
"""What asking for a file raises that is not there."""
_DAMAGE: Final = frozenset({errno.EIO, errno.EBADMSG, errno.EISDIR, errno.ENODATA, errno.EUCLEAN})


def identity_of(path: Path) -> Identity | None:
    """What a file is known by; None if there is none, or something else in its place."""
    try:
        found = path.lstat()
    except GONE:
        return None
    return identify(found) if stat.S_ISREG(found.st_mode) else None


def identify(found: os.stat_result) -> Identity:
    """What a file is known by."""
    return Identity(found.st_ino, found.st_size, found.st_ctime_ns)


def modified(found: os.stat_result) -> datetime:
    """The file's mtime."""
    return datetime.fromtimestamp(found.st_mtime, UTC)


def read(path: Path, limit: int) -> bytes:
    """The first bytes of a file, no more than ``limit``; none at all if it is damaged.

    Raises one of ``GONE`` if it is not there.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        if error.errno in _DAMAGE:
            return b""
        raise


def digest_of(content: bytes) -> str:
    """The digest of some bytes."""
    return PREFIX + hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> tuple[Identity, str] | None:
    """Reads a whole file: what was read, and its digest, empty if it is damaged; None: gone."""
    try:
        with path.open("rb") as file:
            identity = identify(os.fstat(file.fileno()))
            try:
                return identity, PREFIX + hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                if error.errno not in _DAMAGE:
                    raise
                return identity, ""
    except GONE:
        return None


def entries(folder: os.PathLike[str] | str) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing if there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except GONE:
        return []


def folders(folder: os.PathLike[str] | str) -> list[os.DirEntry[str]]:
    """The folders in a folder."""
    return [entry for entry in entries(folder) if entry.is_dir(follow_symlinks=False)]


def stat_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """An entry's state; None if it is gone."""
    try:
        return entry.stat(follow_symlinks=False)
    except GONE:
        return None


def size_of(folder: os.PathLike[str] | str) -> int:
    """Bytes of all files below a folder."""
    size = 0
    for entry in entries(folder):
        if entry.is_dir(follow_symlinks=False):
            size += size_of(entry.path)
        elif (found := stat_of(entry)) is not None:
            size += found.st_size
    return size


def last_change(folder: os.PathLike[str] | str) -> datetime | None:
    """When the youngest file or folder in a folder, itself included, was changed; None: gone."""
    try:
        newest = modified(Path(folder).stat())
    except GONE:
        return None
    for entry in entries(folder):
        if entry.is_dir(follow_symlinks=False):
            newest = max(newest, last_change(entry.path) or newest)
        elif (found := stat_of(entry)) is not None:
            newest = max(newest, modified(found))
    return newest


def unlink(path: Path) -> int:
    """Removes a file, and returns the bytes that this freed."""
    try:
        size = path.lstat().st_size
        path.unlink()
    except GONE:
        return 0
    return size


def discard(folder: Path) -> int:
    """Removes a folder and all that is in it, and returns the bytes that this freed.

    What appears in it meanwhile stays, and the folder with it.
    """
    freed = 0
    for entry in entries(folder):
        path = Path(entry.path)
        freed += discard(path) if entry.is_dir(follow_symlinks=False) else unlink(path)
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}:
            raise
    return freed
