"""The rim: the files of connections, for their user only, and who holds a connection.

<config>/buildpool/<builder>/connection.json
<config>/buildpool/<builder>/<namespace>.<pool>.<client>/{ca,cert,key}.pem
<config>/buildpool/<builder>/holder      locked by the process that forwards its ports
<config>/buildpool/<builder>/forward.log
<config>/buildpool/.<builder>.lock       locked by the command that connects or disconnects
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import IO, Final

from buildpool.client import state
from buildpool.client.nodes import NAME, folder_of
from buildpool.client.values import FILES, MAX_FILE_BYTES, Certificate, Connection, Node
from buildpool.core.errors import BuildpoolError

_STATE: Final = "connection.json"
_HOLDER: Final = "holder"
_UNFINISHED: Final = ".unfinished-"
"""How files begin that are being written."""
_TICKS: Final = 20
_TICK_SECONDS: Final = 0.05
"""What lasts a moment is waited for, for a second: a look at a lock, or a number to be written."""


def config_root() -> Path:
    """Where connections are kept: in the user's folder for configuration."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative path has to be ignored, says the specification.
    base = Path(given) if given.startswith("/") else Path.home() / ".config"
    return base / "buildpool"


def names() -> list[str]:
    """The connections there are."""
    found = (path.parent.name for path in config_root().glob(f"*/{_STATE}"))
    return sorted(name for name in found if NAME.fullmatch(name))


class Folder:
    """The folder of one connection."""

    def __init__(self, name: str) -> None:
        """BuildpoolError: nothing can be called so."""
        if not NAME.fullmatch(name):
            raise BuildpoolError(
                f"{name!r} is no name of a builder: use a letter first, then letters, digits, "
                "dots, hyphens and underscores, all of them lower-case"
            )
        self.path = config_root() / name
        self.log = self.path / "forward.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other command changes this connection for the length of a block.

        If nothing is connected at its end, no file stays behind.
        """
        with self._lock_file() as file:
            if not _lock(file.fileno(), fcntl.LOCK_EX):
                sys.stderr.write(f"waits for another command on connection {self.path.name}\n")
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            try:
                yield
            finally:
                if not (self.path / _STATE).exists():
                    with suppress(BuildpoolError):
                        self.remove()

    def _lock_file(self) -> IO[str]:
        path = config_root() / f".{self.path.name}.lock"  # it stays: others may wait for it
        _make(config_root())
        try:
            return open(path, "a", opener=_for_its_owner)
        except OSError as error:
            raise BuildpoolError(f"{path} cannot be opened: {error.strerror}") from error

    def connection(self) -> Connection | None:
        """What was connected; None: nothing was."""
        path = self.path / _STATE
        content = _read(path)
        return None if content is None else state.read(content, str(path))

    def keep(self, connection: Connection | None) -> None:
        """Notes what is connected; None: nothing is."""
        path = self.path / _STATE
        if connection is None:
            path.unlink(missing_ok=True)
        else:
            self._write(path, state.written(connection))

    def certificate(self, node: Node) -> Certificate | None:
        """The files of a node; None where one is missing."""
        folder = Path(folder_of(node, self.path))
        found = [content for file in FILES if (content := _read(folder / file)) is not None]
        return Certificate(*found) if len(found) == len(FILES) else None

    def keep_certificate(self, node: Node, certificate: Certificate) -> None:
        """Writes the files of a node, unless it has them."""
        if self.certificate(node) == certificate:
            return
        folder = Path(folder_of(node, self.path))
        contents = (certificate.ca, certificate.cert, certificate.key)
        for file, content in zip(FILES, contents, strict=True):
            self._write(folder / file, content)

    def _write(self, path: Path, content: bytes) -> None:
        """Whole or not at all, and for its owner only."""
        _make(self.path)
        _make(path.parent)
        new: str | None = None
        try:
            descriptor, new = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(new).replace(path)
            new = None
        except OSError as error:
            raise BuildpoolError(f"{path} cannot be written: {error.strerror}") from error
        finally:
            if new is not None:
                Path(new).unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Held by this process for the length of a block; BuildpoolError: another one holds it."""
        with open(self.path / _HOLDER, "a", opener=_for_its_owner) as file:
            for _ in range(_TICKS):
                if _lock(file.fileno(), fcntl.LOCK_EX):
                    break
                sleep(_TICK_SECONDS)
            else:
                raise BuildpoolError(f"connection {self.path.name} is held by another process")
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def holder(self) -> int | None:
        """The process that holds it; None: nobody does.

        By the lock, which ends with its process. Those that only look share it, so that none of
        them takes another one for the holder.
        """
        for _ in range(_TICKS):
            try:
                with (self.path / _HOLDER).open() as file:
                    if _lock(file.fileno(), fcntl.LOCK_SH):
                        return None
                    number = file.read(20)
            except FileNotFoundError:
                return None
            if number.isascii() and number.isdecimal():
                return int(number)
            sleep(_TICK_SECONDS)
        raise BuildpoolError(
            f"connection {self.path.name} is held by a process that does not say its number"
        )

    def forget_holder(self) -> None:
        """Empties the number that a process left behind which was killed."""
        with suppress(FileNotFoundError), (self.path / _HOLDER).open("r+") as file:
            if _lock(file.fileno(), fcntl.LOCK_EX):
                file.truncate(0)

    def new_log(self) -> IO[bytes]:
        """The log, empty. All is written to its end, so that it can be emptied meanwhile."""
        self.log.unlink(missing_ok=True)
        return open(self.log, "ab", opener=_for_its_owner)

    def bound_log(self) -> None:
        """Empties the log if it has grown large."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > MAX_FILE_BYTES:
                os.truncate(self.log, 0)

    def last_words(self) -> str:
        """The last line of the log."""
        content = _read(self.log) or b""
        lines = content.decode(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def remove(self) -> None:
        """Removes what connections have written there. What else somebody has there stays."""
        root = self.path.resolve()
        nodes = [path for path in root.glob("*.*.*") if path.is_dir() and not path.is_symlink()]
        own = [root / name for name in (_STATE, _HOLDER, self.log.name)]
        own += [folder / file for folder in nodes for file in FILES]
        own += [path for folder in (root, *nodes) for path in folder.glob(f"{_UNFINISHED}*")]
        try:
            for path in own:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise BuildpoolError(f"{path} cannot be removed: {error.strerror}") from error
        for folder in (*nodes, root):
            with suppress(OSError):  # somebody has something else there
                folder.rmdir()
        if self.path.is_symlink() and not root.exists():
            self.path.unlink()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BuildpoolError(f"{folder} cannot be made: {error.strerror}") from error


def _for_its_owner(path: str, flags: int) -> int:
    """Opens a file, with a mode for its owner only where it is new."""
    return os.open(path, flags, mode=0o600)


def _lock(descriptor: int, kind: int) -> bool:
    """Locks a file if that can be done now; whether it could."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> bytes | None:
    """What is in a file; of a larger one than there ever is, its end. None: there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_FILE_BYTES))
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildpoolError(f"{path} cannot be read: {error.strerror}") from error
