"""The few bytes of BuildKit's history of builds that matter here: which build started or ended.

Pure. Knows some field numbers of ``moby.buildkit.v1`` and skips all others: a record also holds
build arguments, which may be secrets, so they are not decoded; a message is passed on as it is.

A build that breaks out of its sandbox speaks for its daemon. So an event is read with the limits of
a request: what the gateway lets in, a record has room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import chain
from typing import Final

from buildpool.buildkit.protobuf import Reader, WireError, text
from buildpool.buildkit.solve_requests import MAX_FIELDS, MAX_NAME_CHARACTERS
from buildpool.core.observed.load import RunningBuild

METHOD: Final = "/moby.buildkit.v1.Control/ListenBuildHistory"
RUNNING_BUILDS: Final = b"\x08\x01\x18\x01"
"""A BuildHistoryRequest: ActiveOnly and EarlyExit, so one event for each running build, and end."""
RUNNING_BUILDS_AND_ON: Final = b"\x08\x01"
"""ActiveOnly alone: the same, and then every event there is, not only those of running builds."""
# Never with a Ref: BuildKit 0.34 keeps a record for ever that somebody listened to by its ref.

_EVENT_TYPE: Final = 1
_EVENT_RECORD: Final = 2
_RECORD_REF: Final = 1
_RECORD_CREATED_AT: Final = 6
_RECORD_CACHED_STEPS: Final = 15
_RECORD_STEPS: Final = 16
_TIMESTAMP_SECONDS: Final = 1
_TIMESTAMP_NANOS: Final = 2

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = 2**37
"""In the year 6325: to what is read as a time, any duration can be added."""


class BuildEventKind(IntEnum):
    """What has happened to a build."""

    NEW = -1
    """Something that BuildKit did not know yet when this was written."""
    STARTED = 0
    COMPLETE = 1
    """It has ended, well or not. BuildKit says so twice, some seconds apart."""
    DELETED = 2
    """It has been dropped from the history."""


@dataclass(frozen=True, slots=True)
class BuildEvent:
    """One message of the history."""

    kind: BuildEventKind
    build: RunningBuild
    steps: tuple[int, int] = (0, 0)
    """Steps that were cached, and all: so far, where it still runs."""
    message: bytes = field(default=b"", repr=False, compare=False)
    """All that the daemon says, for those who pass it on."""


def read_event(message: bytes) -> BuildEvent:
    """An event out of a BuildHistoryEvent. Raises WireError."""
    reader = Reader(MAX_FIELDS)
    kind, records = 0, []
    for number, value in reader.fields(message):
        if number == _EVENT_TYPE and isinstance(value, int):
            kind = value
        elif number == _EVENT_RECORD and isinstance(value, memoryview):
            records.append(value)
    known = BuildEventKind(kind) if kind in _KINDS else BuildEventKind.NEW
    return BuildEvent(known, *_read_record(reader, records), message)


_KINDS: Final = frozenset(kind.value for kind in BuildEventKind)


def _read_record(
    reader: Reader, parts: Iterable[memoryview]
) -> tuple[RunningBuild, tuple[int, int]]:
    """A build, and its steps."""
    ref, created = "", []
    counts = {_RECORD_CACHED_STEPS: 0, _RECORD_STEPS: 0}
    for number, value in _fields(reader, parts):
        if number == _RECORD_REF and isinstance(value, memoryview):
            ref = text(value, "Ref")
        elif number == _RECORD_CREATED_AT and isinstance(value, memoryview):
            created.append(value)
        elif number in counts and isinstance(value, int):
            counts[number] = value
    if not ref:
        raise WireError("an event names no build")
    if len(ref) > MAX_NAME_CHARACTERS:
        raise WireError(f"the name of a build has more than {MAX_NAME_CHARACTERS} characters")
    steps = counts[_RECORD_CACHED_STEPS], counts[_RECORD_STEPS]
    return RunningBuild(ref, _read_time(reader, created)), steps


def _read_time(reader: Reader, parts: Iterable[memoryview]) -> datetime | None:
    """None for what no clock says: Go's zero time, and times in a future that nobody will see."""
    seconds = nanos = 0
    for number, value in _fields(reader, parts):
        if number == _TIMESTAMP_SECONDS and isinstance(value, int):
            seconds = value
        elif number == _TIMESTAMP_NANOS and isinstance(value, int):
            nanos = value
    # Negative numbers have the highest bit set.
    if not 0 < seconds < _LAST_SECOND or nanos >= 10**9:
        return None
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _fields(
    reader: Reader, parts: Iterable[memoryview]
) -> Iterator[tuple[int, int | memoryview | None]]:
    """Those of a message that goes on where its field comes again.

    Nothing is joined: that would copy, with each part, all that came before.
    """
    return chain.from_iterable(map(reader.fields, parts))
