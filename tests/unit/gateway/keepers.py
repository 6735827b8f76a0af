"""Daemons that keep records of builds, and answer at once or never."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from buildpool.buildkit import BuildEvent, BuildEventKind, DaemonError, Room
from buildpool.buildkit.history import read_event
from daemons import STARTED, Silent, a_record, field

COMPLETE = BuildEventKind.COMPLETE


def named(number: int) -> str:
    """The digest of some content."""
    return f"sha256:{number:064x}"


def ended(ref: str, *digests: str, after: float = 0) -> BuildEvent:
    """The end of a build with these results, so many seconds after the others."""
    results = b"".join(field(9, field(1, digest.encode())) for digest in digests)
    record = a_record(ref, STARTED + timedelta(seconds=after)) + results
    return read_event(field(1, COMPLETE) + field(2, record))


class Keeper(Silent):
    """A daemon that keeps records of builds."""

    def __init__(self, *events: BuildEvent, content: tuple[str, ...] = ()) -> None:
        self.kept = list(events)
        self.content = content
        self.trouble: DaemonError | None = None
        self.is_hung = False
        self.asked: list[bytes] = []
        self.is_closed = False
        self.at_once = self.most_at_once = 0

    async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await (asyncio.Event().wait() if self.is_hung else asyncio.sleep(0))
        self.at_once -= 1
        if self.trouble is not None:
            raise self.trouble
        told = [event for event in self.kept if not ref or event.build.ref == ref]
        room.left -= sum(len(event.message) for event in told)
        return told

    async def has_content(self, digest: str) -> bool:
        self.asked.append(digest.encode())
        await (asyncio.Event().wait() if self.is_hung else asyncio.sleep(0))
        if self.trouble is not None:
            raise self.trouble
        return digest in self.content

    async def close(self) -> None:
        self.is_closed = True
