"""What clients ask of BuildKit's history, in a form that leaves no trace there.

Pure. BuildKit 0.34 keeps a record for ever that somebody listened to by its ref, with all content
that it refers to: it counts the listeners of a ref, and never forgets the count. So a request names
no ref when it reaches a daemon; a filter says the same of builds that have ended, and what is told
about others beside it is left out of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from buildpool.buildkit import protobuf
from buildpool.buildkit.protobuf import Reader, WireError
from buildpool.buildkit.solve_requests import MAX_FIELDS

_ACTIVE_ONLY, _REF, _EARLY_EXIT, _FILTER, _LIMIT = 1, 2, 3, 4, 5
_PLAIN: Final = re.compile("[a-z0-9]+")
"""Refs that stand in a filter as they are, as those of all clients do."""
_RECORD_REF: Final = 1
MAX_FILTERS: Final = 100
"""Of one request: each is kept, and sent to all daemons. buildx sends as many as its user writes.
"""


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """A BuildHistoryRequest, as a client asks."""

    ref: str = ""
    """The one build that it is about; empty: all."""
    is_active_only: bool = False
    """Whether it asks for builds that run only."""
    has_end: bool = True
    """Whether it asks for what there is, and for no more."""
    filters: tuple[bytes, ...] = ()
    """Records pass that pass one of them; without any, all do."""
    limit: int = 0
    """The most records of builds that have ended, the newest first; 0: all, in no such order."""
    rest: bytes = b""
    """What newer clients ask beside it."""

    def for_daemon(self) -> bytes:
        """What each daemon is asked: for what there is, and by no ref."""
        filters, limit = self.filters, self.limit
        if self.ref:
            # One record is not cut off; a limit that is refused is the daemon's to refuse.
            limit = min(limit, 0)
            filters = self._filters_with_ref()
        return b"".join(
            (
                protobuf.number_field(_ACTIVE_ONLY, 1) if self.is_active_only else b"",
                protobuf.number_field(_EARLY_EXIT, 1),
                *(protobuf.field(_FILTER, each) for each in filters),
                protobuf.number_field(_LIMIT, limit & _WORD) if limit else b"",
                self.rest,
            )
        )

    def _filters_with_ref(self) -> tuple[bytes, ...]:
        if not _PLAIN.fullmatch(self.ref):
            return self.filters
        wanted = f"ref=={self.ref}".encode()
        # What stands in one filter has to be true all together.
        return tuple(each and each + b"," + wanted for each in self.filters) or (wanted,)


_WORD: Final = 2**64 - 1
_SIGN: Final = 1 << 31


def read_request(message: bytes) -> HistoryRequest:
    """The request in a message. Raises WireError."""
    ref, rest = "", b""
    numbers = {_ACTIVE_ONLY: 0, _EARLY_EXIT: 0, _LIMIT: 0}
    filters = []
    for number, value in Reader(MAX_FIELDS).fields(message):
        if number == _REF:
            ref = protobuf.text(value, "Ref")
        elif number in numbers:
            if not isinstance(value, int):
                raise WireError("a number is not a number")
            numbers[number] = value
        elif number == _FILTER:
            filters.append(protobuf.text(value, "Filter").encode())
            if len(filters) > MAX_FILTERS:
                raise WireError(f"it has more than {MAX_FILTERS} filters")
        elif isinstance(value, int):
            rest += protobuf.number_field(number, value)
        elif value is not None:
            rest += protobuf.field(number, bytes(value))
    return HistoryRequest(
        ref=ref,
        is_active_only=bool(numbers[_ACTIVE_ONLY]),
        has_end=bool(numbers[_EARLY_EXIT]),
        filters=tuple(filters),
        limit=(numbers[_LIMIT] & (2 * _SIGN - 1) ^ _SIGN) - _SIGN,
        rest=rest,
    )


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
