"""The few bytes of BuildKit's history of builds that matter here: which build started or ended.

Pure. Knows five field numbers of ``moby.buildkit.v1`` and skips all others: a record also holds
build arguments, which may be secrets, so they are neither decoded nor kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final

from buildpool.errors import BuildpoolError
from buildpool.load import Build

METHOD: Final = "/moby.buildkit.v1.Control/ListenBuildHistory"
RUNNING_BUILDS: Final = b"\x08\x01\x18\x01"
"""A BuildHistoryRequest: ActiveOnly and EarlyExit, so one event for each running build, and end."""
RUNNING_BUILDS_AND_ON: Final = b"\x08\x01"
"""ActiveOnly alone: the same, and then every event there is, not only those of running builds."""

_EVENT_TYPE: Final = 1
_EVENT_RECORD: Final = 2
_RECORD_REF: Final = 1
_RECORD_CREATED_AT: Final = 6
_TIMESTAMP_SECONDS: Final = 1
_TIMESTAMP_NANOS: Final = 2

_VARINT: Final = 0
_FIXED: Final = {1: 8, 5: 4}
_DELIMITED: Final = 2
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class WireError(BuildpoolError):
    """Bytes that are no event of a history. Never quotes them."""


class EventKind(IntEnum):
    """What has happened to a build."""

    NEW = -1
    """Something that BuildKit did not know yet when this was written."""
    STARTED = 0
    COMPLETE = 1
    """It has ended, well or not. BuildKit says so twice, some seconds apart."""
    DELETED = 2
    """It has been dropped from the history."""


@dataclass(frozen=True, slots=True)
class Event:
    """One message of the history."""

    kind: EventKind
    build: Build


def read_event(message: bytes) -> Event:
    """An event out of a BuildHistoryEvent. Raises WireError."""
    kind, record = 0, b""
    for number, value in _fields(message):
        if number == _EVENT_TYPE and isinstance(value, int):
            kind = value
        elif number == _EVENT_RECORD and isinstance(value, bytes):
            record += value  # parts of one message, where a field comes more than once
    return Event(EventKind(kind) if kind in _KINDS else EventKind.NEW, _read_build(record))


_KINDS: Final = frozenset(kind.value for kind in EventKind)


def _read_build(record: bytes) -> Build:
    ref, created = b"", b""
    for number, value in _fields(record):
        if number == _RECORD_REF and isinstance(value, bytes):
            ref = value
        elif number == _RECORD_CREATED_AT and isinstance(value, bytes):
            created += value
    if not ref:
        raise WireError("an event names no build")
    try:
        return Build(ref.decode(), _read_time(created))
    except UnicodeDecodeError:
        raise WireError("the name of a build is no text") from None


def _read_time(timestamp: bytes) -> datetime | None:
    """None for what no clock says: Go's zero time, and times that have no date here."""
    seconds = nanos = 0
    for number, value in _fields(timestamp):
        if number == _TIMESTAMP_SECONDS and isinstance(value, int):
            seconds = value
        elif number == _TIMESTAMP_NANOS and isinstance(value, int):
            nanos = value
    if not 0 < seconds < 2**63 or nanos >= 10**9:  # negative numbers have the highest bit set
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError:
        return None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes | None]]:
    """Number and value of each field; None for values of a fixed size, which nobody asks for."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, form = tag >> 3, tag & 7
        if number == 0:
            raise WireError("a field has no number")
        if form == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if form == _DELIMITED:
            size, at = _varint(data, at)
        elif form in _FIXED:
            size = _FIXED[form]
        else:
            raise WireError(f"a field has the unknown form {form}")
        if size > len(data) - at:
            raise WireError("a message ends in the middle of a field")
        yield number, data[at : at + size] if form == _DELIMITED else None
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, without sign, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise WireError("a message ends in the middle of a number")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (2**64 - 1), at
    raise WireError("a number has more than 64 bits")
