"""What was found sound, kept on the volume: a keeper that starts need not read all of it again.

The file is of use to the keeper alone, and no worse than none: it is written whole or not at all,
and one that is not what was written is ignored. A blob's inode, size and ctime are in it, so that a
verdict never speaks for another file than the one that was read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from buildpool.sidecars.keeper.files import GONE, UnreadableError, modified, read, state
from buildpool.sidecars.keeper.inventory import Identity, Verdict
from buildpool.sidecars.names import PREFIX, hex_of

MAX_FILE_BYTES: Final = 128 * 1024**2
"""Bytes; a line for each blob has about a hundred."""
_LINE: Final = re.compile(
    rb"([0-9a-f]{64}) ([0-9]{1,20}) ([0-9]{1,19}) ([0-9]{1,19}) ([0-9]{1,11})"
)


def load(file: Path) -> tuple[dict[str, Verdict], datetime | None]:
    """The verdicts by digest, and when they were last known to be good; nothing if there are none.

    Raises OSError where it says nothing of the file.
    """
    try:
        content = read(file, MAX_FILE_BYTES)
        saved = modified(state(file))
    except (*GONE, UnreadableError):
        return {}, None
    head, _, body = content.partition(b"\n")
    if head != _checksum(body):
        return {}, None
    return dict(_read(line) for line in body.splitlines() if _LINE.fullmatch(line)), saved


def save(file: Path, verdicts: Mapping[str, Verdict]) -> None:
    """Replaces the file. Raises OSError if that is not possible, and leaves the old one then."""
    body = b"".join(
        b"%s %d %d %d %d\n" % (hex_of(digest).encode(), *identity, int(at.timestamp()))
        for digest, (identity, at) in verdicts.items()
    )
    draft = file.with_name(f"{file.name}.tmp")
    draft.unlink(missing_ok=True)
    draft.write_bytes(_checksum(body) + b"\n" + body)
    draft.replace(file)


def stamp(file: Path, now: datetime) -> None:
    """Records that somebody knew the time. Raises OSError if that is not possible."""
    os.utime(file, (now.timestamp(), now.timestamp()))


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _read(line: bytes) -> tuple[str, Verdict]:
    name, *numbers = line.split(b" ")
    inode, size, changed_ns, at = map(int, numbers)
    identity = Identity(inode, size, changed_ns)
    return PREFIX + name.decode(), Verdict(identity, datetime.fromtimestamp(at, UTC))
