"""The rim: the files of connections, for their user only, and who holds a connection.

<config>/buildpool/<builder>/connection.json
<config>/buildpool/<builder>/<namespace>.<pool>/{ca,cert,key}.pem
<config>/buildpool/<builder>/holder      locked by the process that forwards its ports
<config>/buildpool/<builder>/forward.log
"""

from __future__ import annotations

import fcntl
import os
import shutil
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
_TICKS: Final = 20
_TICK_SECONDS: Final = 0.05
"""A lock is waited for, for a second: a command that only looks who has it takes it, too."""


def config_root() -> Path:
    """Where connections are kept: in the user's folder for configuration."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative path is of no account, says the specification.
    base = Path(given) if given.startswith("/") else Path.home() / ".config"
    return base / "buildpool"


def names() -> list[str]:
    """The connections there are."""
    return sorted(path.parent.name for path in config_root().glob(f"*/{_STATE}"))


class Folder:
    """The folder of one connection."""

    def __init__(self, name: str) -> None:
        """BuildpoolError: nothing can be called so."""
        if not NAME.fullmatch(name):
            raise BuildpoolError(
                f"{name!r} is no name of a builder: use a letter first, then letters, digits, "
                "dots, hyphens and underscores"
            )
        self.path = config_root() / name
        self.log = self.path / "forward.log"

    def connection(self) -> Connection | None:
        """What was connected; None: nothing was."""
        path = self.path / _STATE
        content = _read(path)
        return None if content is None else state.read(content, str(path))

    def keep(self, connection: Connection) -> None:
        """Notes what is connected."""
        self._write(self.path / _STATE, state.written(connection))

    def certificate(self, node: Node) -> Certificate | None:
        """The files of a node; None where one is missing."""
        folder = Path(folder_of(node, self.path))
        found = [content for file in FILES if (content := _read(folder / file)) is not None]
        return Certificate(*found) if len(found) == len(FILES) else None

    def keep_certificate(self, node: Node, certificate: Certificate) -> bool:
        """Writes the files of a node; whether they are others than before."""
        if self.certificate(node) == certificate:
            return False
        folder = Path(folder_of(node, self.path))
        contents = (certificate.ca, certificate.cert, certificate.key)
        for file, content in zip(FILES, contents, strict=True):
            self._write(folder / file, content)
        return True

    def _write(self, path: Path, content: bytes) -> None:
        """Whole or not at all, and for its owner only."""
        try:
            for folder in (config_root(), self.path, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, new = tempfile.mkstemp(dir=path.parent)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(new).replace(path)
        except OSError as error:
            raise BuildpoolError(f"{path} cannot be written: {error.strerror}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Held by this process for the length of a block; BuildpoolError: another one holds it."""
        with open(self.path / _HOLDER, "a+", opener=_for_its_owner) as file:
            for _ in range(_TICKS):
                if _lock(file.fileno()):
                    break
                sleep(_TICK_SECONDS)
            else:
                raise BuildpoolError(f"connection {self.path.name} is held by another process")
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield

    def holder(self) -> int | None:
        """The process that holds it; None: nobody does, and the number in the file is an old one.

        By the lock, which ends with its process: the number may be that of another one by now.
        """
        with suppress(OSError, ValueError), (self.path / _HOLDER).open("r+") as file:
            if not _lock(file.fileno()):
                return int(file.read())
        return None

    def new_log(self) -> IO[bytes]:
        """The log, empty."""
        return open(self.log, "wb", opener=_for_its_owner)

    def last_words(self) -> str:
        """The last line of the log."""
        content = _read(self.log) or b""
        lines = content.decode(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def remove(self) -> None:
        """Removes all of it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _for_its_owner(path: str, flags: int) -> int:
    """Opens a file, with a mode for its owner only where it is new."""
    return os.open(path, flags, mode=0o600)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
