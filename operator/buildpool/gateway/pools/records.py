"""Where in a pool the record of a build is: each builder keeps those of its own builds.

A client sees one builder. So a record is looked for at all daemons, what is listed comes from all,
and what a connection reads of the content of builds it is given by the builder that has it.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from buildpool.buildkit.history_requests import by_ref, is_about
from buildpool.buildkit.solve_requests import frame

AT_ONCE: Final = 2
"""Questions that go to all daemons of a pool at once: each may be answered by some megabytes."""
MAX_LISTED_BYTES: Final = 8 << 20
"""Of the records of other builders that are added to those of one; what is more is left out."""
MAX_READERS: Final = 128
"""Connections of which it is known what they have read; the oldest are forgotten."""
MAX_DIGESTS: Final = 2_000
"""Of the content of builds, for one connection: what fifty builds on ten builders have made."""
_DIGEST: Final = re.compile(rb"sha256:[0-9a-f]{64}")

Ask = Callable[[bytes], Awaitable[Mapping[str, tuple[bytes, ...]]]]
"""What all daemons answer to a BuildHistoryRequest, by the uids of their pods."""


class Listing(NamedTuple):
    """The records of a pool: one builder lists its own, those of the others are added."""

    builder: str = ""
    """The uid of the pod of that with the most; empty where none has any."""
    others: bytes = b""
    """Messages of a stream of gRPC."""


@dataclass(slots=True)
class _Reader:
    """What a connection has read."""

    last: str = ""
    """The builder that it was sent to last, by the uid of its pod."""
    digests: dict[bytes, str] = field(default_factory=dict)
    """The builders that have the content which it was told of."""


class BuildRecords:
    """Those of one pool. For one event loop."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._readers: OrderedDict[str, _Reader] = OrderedDict()
        """By connection."""

    async def find(self, ref: str) -> str:
        """The builder that has a record of a build, by the uid of its pod; empty where none has."""
        request = by_ref(ref)
        if request is None:
            return ""
        async with self._asking:
            answers = await self._ask(request)
        return next((uid for uid, events in answers.items() if _tells_of(ref, events)), "")

    async def gather(self, connection: str, request: bytes) -> Listing:
        """All that the daemons list. ``request`` has an end, and names no ref."""
        async with self._asking:
            answers = dict(await self._ask(request))
            most = max(answers, key=lambda uid: len(answers[uid]), default="")
            if not most or not answers[most]:
                return Listing()
            reader = self._reader(connection)
            for uid, events in answers.items():
                for event in events:
                    _note(reader.digests, event, uid)
            reader.last = most
            answers.pop(most)
            listed, room = [], MAX_LISTED_BYTES
            for events in answers.values():
                for event in events:
                    room -= len(event)
                    if room >= 0:
                        listed.append(frame(event))
        return Listing(most, b"".join(listed))

    def reads(self, connection: str, builder: str) -> None:
        """A connection was sent to this builder, and may read there what it was told of."""
        self._reader(connection).last = builder

    def holder_of(self, connection: str, digest: str) -> str:
        """The builder that has some content, by what a connection was told; empty: not known.

        What lies within other content, as the layers of an image do, is where that is.
        """
        reader = self._readers.get(connection)
        if reader is None:
            return ""
        reader.last = reader.digests.get(digest.encode(), reader.last)
        return reader.last

    def forget(self, connection: str) -> None:
        """A connection has ended."""
        self._readers.pop(connection, None)

    def _reader(self, connection: str) -> _Reader:
        reader = self._readers.setdefault(connection, _Reader())
        self._readers.move_to_end(connection)
        while len(self._readers) > MAX_READERS:
            self._readers.popitem(last=False)
        return reader


def _note(digests: dict[bytes, str], event: bytes, uid: str) -> None:
    """Notes which content an event names."""
    for digest in _DIGEST.findall(event):
        if len(digests) < MAX_DIGESTS:
            digests.setdefault(digest, uid)


def _tells_of(ref: str, events: tuple[bytes, ...]) -> bool:
    """Whether any of these events is about a build. A daemon tells of others beside it.

    Only the start of each is looked at: a hostile daemon may send what takes long to read.
    """
    return any(is_about(event, ref) for event in events)
