"""Files and folders that may vanish, appear or be damaged at any moment.

What is gone is never an error here, nor is anything that may lie in a file's place. An error that
tells nothing of the file itself, such as too many open files, is never taken for damage: it is
raised. Folders may be as deep as anybody likes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Final

from buildpool.core.errors import BuildpoolError
from buildpool.sidecars.keeper.inventory import Identity
from buildpool.sidecars.names import PREFIX

GONE: Final = (FileNotFoundError, NotADirectoryError)
"""What asking for a file raises that is not there."""
_UNREADABLE: Final = frozenset(
    {
        errno.EBADMSG,
        errno.EIO,
        errno.ENODATA,
        errno.EREMOTEIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EUCLEAN,
    }
)
"""What a damaged file causes, and a volume that is away for a moment, too."""
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO})
"""What opening a link or a socket causes."""
_MAX_PATH_BYTES: Final = 4096
"""Bytes of a path, its end among them. What lies deeper cannot be asked for."""
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)


class UnreadableError(BuildpoolError):
    """A file is there, and reading it failed; it may succeed later."""


def is_of_the_volume(error: BaseException) -> bool:
    """Whether it is the volume that fails."""
    return isinstance(error, OSError) and error.errno in _UNREADABLE


def state(path: Path) -> os.stat_result:
    """What is known of a file or folder, or of a link itself. Raises one of ``GONE`` if none is."""
    try:
        return path.lstat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a folder above is a link to itself
            raise NotADirectoryError(*error.args) from error
        raise


def identity_of(path: Path) -> Identity | None:
    """What a file is known by; None if there is none, or something else in its place."""
    try:
        found = state(path)
    except GONE:
        return None
    return identify(found) if stat.S_ISREG(found.st_mode) else None


def identify(found: os.stat_result) -> Identity:
    """What a file is known by."""
    return Identity(found.st_ino, found.st_size, found.st_ctime_ns)


def modified(found: os.stat_result) -> datetime:
    """The file's mtime, which anybody may have set to anything."""
    seconds = min(max(found.st_mtime, _EARLIEST.timestamp()), _LATEST.timestamp())
    return datetime.fromtimestamp(seconds, UTC)


def read(path: Path, limit: int) -> bytes:
    """The first bytes of a file, no more than ``limit``; none at all if it is something else.

    Raises one of ``GONE`` if it is not there, UnreadableError if reading failed.
    """
    with _telling(path):
        file = _open(path)
        if file is None:
            return b""
        with file:
            return file.read(limit)


def _open(path: Path) -> BufferedReader | None:
    """None: something else is there. Neither follows a link nor waits for the end of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_of_the_volume(error):
            raise UnreadableError(f"{path} cannot be read: {error}") from error
        raise


def digest_of(content: bytes) -> str:
    """The digest of some bytes."""
    return PREFIX + hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> tuple[Identity, str] | None:
    """Reads a whole file: what was read, and its digest; None: there is no such file.

    Raises UnreadableError if reading failed.
    """
    with _telling(path):
        try:
            file = _open(path)
        except GONE:
            return None
        if file is None:
            return None
        with file:
            identity = identify(os.fstat(file.fileno()))
            return identity, PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def entries(folder: os.PathLike[str] | str) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing if there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if _can_be_asked_for(entry.path)]
    except OSError as error:
        if isinstance(error, GONE) or error.errno == errno.ELOOP:
            return []
        raise


def _can_be_asked_for(path: str) -> bool:
    return len(path) < _MAX_PATH_BYTES // 4 or len(os.fsencode(path)) < _MAX_PATH_BYTES


def folders(folder: os.PathLike[str] | str) -> list[os.DirEntry[str]]:
    """The folders in a folder."""
    return [entry for entry in entries(folder) if entry.is_dir(follow_symlinks=False)]


def is_folder(path: Path) -> bool:
    """Whether a folder is there, and no link to one."""
    try:
        return stat.S_ISDIR(state(path).st_mode)
    except GONE:
        return False


def stat_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """An entry's state; None if it is gone."""
    try:
        return entry.stat(follow_symlinks=False)
    except GONE:
        return None


def below(folder: os.PathLike[str] | str) -> Iterator[os.DirEntry[str]]:
    """All that is in a folder and in those below it, each folder before what is in it."""
    found = entries(folder)
    while found:
        entry = found.pop()
        yield entry
        if entry.is_dir(follow_symlinks=False):
            found.extend(entries(entry.path))


def size_of(folder: os.PathLike[str] | str) -> int:
    """Bytes of all files below a folder."""
    states = (stat_of(entry) for entry in below(folder))
    return sum(found.st_size for found in states if found and not stat.S_ISDIR(found.st_mode))


def last_change(folder: os.PathLike[str] | str) -> datetime | None:
    """When the youngest file or folder in a folder, itself included, was changed; None: gone."""
    try:
        newest = modified(state(Path(folder)))
    except GONE:
        return None
    states = (stat_of(entry) for entry in below(folder))
    return max([newest, *(modified(found) for found in states if found)])


def unlink(path: Path) -> int:
    """Removes a file, or what is in its place, and returns the bytes that this freed."""
    try:
        if is_folder(path):
            return discard(path)
        size = state(path).st_size
        path.unlink()
    except GONE:
        return 0
    return size


def discard(folder: Path) -> int:
    """Removes a folder and all that is in it, and returns the bytes that this freed.

    What appears in it meanwhile stays, and the folder with it.
    """
    freed, emptied = 0, [folder]
    for entry in below(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            emptied.append(path)
        else:
            freed += unlink(path)
    for each in reversed(emptied):
        with suppress(*GONE):
            _remove_empty(each)
    return freed


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ELOOP}:
            raise
