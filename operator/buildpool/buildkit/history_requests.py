"""What clients ask of BuildKit's history, in a form that leaves no trace there.

Pure. BuildKit 0.34 keeps a record for ever that somebody listened to by its ref, with all content
that it refers to: it counts the listeners of a ref, and never forgets the count. So a request names
no ref when it reaches a daemon; a filter says the same of builds that have ended, and what is told
about others beside it is left out of the answer.
"""

from __future__ import annotations

import re
from typing import Final

from buildpool.buildkit import protobuf
from buildpool.buildkit.protobuf import Reader
from buildpool.buildkit.solve_requests import MAX_FIELDS

_REF, _EARLY_EXIT, _FILTER = 2, 3, 4
_PLAIN: Final = re.compile("[a-z0-9]+")
"""Refs that stand in a filter as they are, as those of all clients do."""
_HEAD_BYTES: Final = 5
"""Bytes before each message of a stream: whether it is compressed, and its length."""
_BEFORE_REF: Final = re.compile(
    rb"(\x08[\x80-\xff]{0,9}[\0-\x7f])? \x12[\x80-\xff]{0,9}[\0-\x7f] (?=\x0a)", re.VERBOSE
)
"""How a BuildHistoryEvent begins: with its type, and a record, which begins with its ref."""
_MAX_BEFORE_REF_BYTES: Final = 22
_RECORD_REF: Final = 1


def without_ref(message: bytes) -> tuple[str, bytes]:
    """The ref in a BuildHistoryRequest, and the request without it. Raises WireError."""
    ref, kept, is_filtered = "", b"", False
    for number, value in Reader(MAX_FIELDS).fields(message):
        if number == _REF:
            ref = protobuf.text(value, "Ref")
        elif isinstance(value, int):
            kept += protobuf.number_field(number, value)
        elif value is not None:
            is_filtered |= number == _FILTER
            kept += protobuf.field(number, bytes(value))
    if ref and not is_filtered and _PLAIN.fullmatch(ref):
        kept += protobuf.field(_FILTER, f"ref=={ref}".encode())
    return ref, kept


def by_ref(ref: str) -> bytes | None:
    """A BuildHistoryRequest for the record of one build; None where no filter can name it."""
    if not _PLAIN.fullmatch(ref):
        return None
    filtered = protobuf.field(_FILTER, f"ref=={ref}".encode())
    return protobuf.number_field(_EARLY_EXIT, 1) + filtered


def has_end(message: bytes) -> bool:
    """Whether a BuildHistoryRequest asks for what there is, and for no more. Raises WireError."""
    found = [v for n, v in Reader(MAX_FIELDS).fields(message) if n == _EARLY_EXIT]
    return bool(found and found[-1])


def record_in(message: bytes) -> str:
    """The ref in an UpdateBuildHistoryRequest. Raises WireError."""
    return _text_in(message, _RECORD_REF, "Ref")


def digest_in(message: bytes) -> str:
    """The digest in a request to read content, or to tell of it. Raises WireError."""
    return _text_in(message, 1, "digest")


def _text_in(message: bytes, wanted: int, name: str) -> str:
    found = ""
    for number, value in Reader(MAX_FIELDS).fields(message):
        if number == wanted:
            found = protobuf.text(value, name)
    return found


def is_about(event: bytes, ref: str) -> bool:
    """Whether a BuildHistoryEvent is about a build, by its start: to read it all may take long."""
    before = _BEFORE_REF.match(event)
    return before is not None and event.startswith(_start_of(ref), before.end())


def _start_of(ref: str) -> bytes:
    """How a record of the build starts."""
    return protobuf.field(_RECORD_REF, ref.encode())


class EventsOf:
    """Lets the events of one build through, of a stream that comes in pieces.

    Keeps no more of it than the start of one event, which says of what build it is. An event that
    starts otherwise passes: its client may be able to read it.
    """

    def __init__(self, ref: str) -> None:
        self._record = _start_of(ref)
        self._start = bytearray()
        """What has come of an event that is not judged yet,"""
        self._left = 0
        """and what is to come of one that is, in bytes;"""
        self._passes = True
        """and whether it passes."""

    def passed(self, piece: bytes) -> bytes:
        """What of the stream goes on now."""
        kept, at = bytearray(), 0
        while at < len(piece):
            if self._left:
                part = piece[at : at + self._left]
                self._left -= len(part)
                kept += part if self._passes else b""
            else:
                part = piece[at : at + self._wanted() - len(self._start)]
                self._start += part
                if len(self._start) == self._wanted():
                    kept += self._judged()
            at += len(part)
        return bytes(kept)

    def _wanted(self) -> int:
        """How much of an event has to be there for the next step."""
        if len(self._start) < _HEAD_BYTES:
            return _HEAD_BYTES
        return _HEAD_BYTES + min(self._length(), _MAX_BEFORE_REF_BYTES + len(self._record))

    def _length(self) -> int:
        return int.from_bytes(self._start[1:_HEAD_BYTES], "big")

    def _judged(self) -> bytes:
        """What passes of the start of an event, once enough of it is there."""
        event = bytes(self._start)
        self._left = _HEAD_BYTES + self._length() - len(event)
        self._start.clear()
        before = _BEFORE_REF.match(event, _HEAD_BYTES)
        self._passes = before is None or event.startswith(self._record, before.end())
        return event if self._passes else b""
