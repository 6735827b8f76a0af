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
from buildpool.buildkit.history import read_event
from buildpool.buildkit.protobuf import Reader, WireError
from buildpool.buildkit.solve_requests import MAX_FIELDS

MAX_EVENT: Final = 16 << 20
"""Bytes of one event that BuildKit's own clients take: no more is looked at after a longer one."""
_REF, _FILTER = 2, 4
_PLAIN: Final = re.compile("[a-z0-9]+")
"""Refs that stand in a filter as they are, as those of all clients do."""
_HEAD: Final = 5
"""Bytes before each message of a stream: whether it is compressed, and its length."""


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


class EventsOf:
    """Lets the events of one build through, of a stream that comes in pieces."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._rest = bytearray()
        self._reads = True

    def passed(self, piece: bytes) -> bytes:
        """What of the stream goes on now."""
        self._rest += piece
        kept = bytearray()
        while self._reads and len(self._rest) >= _HEAD:
            end = _HEAD + int.from_bytes(self._rest[1:_HEAD], "big")
            self._reads = end - _HEAD <= MAX_EVENT
            if not self._reads or len(self._rest) < end:
                break
            if self._is_meant(bytes(self._rest[_HEAD:end])):
                kept += self._rest[:end]
            del self._rest[:end]
        if not self._reads:
            kept += self._rest
            self._rest.clear()
        return bytes(kept)

    def _is_meant(self, event: bytes) -> bool:
        try:
            return read_event(event).build.ref == self._ref
        except WireError:  # its client may be able to read it
            return True
