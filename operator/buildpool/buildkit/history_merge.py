"""The answers of many histories, as one daemon would give them.

Pure. Says what ``Listen`` in ``solver/llbsolver/history/buildhistory.go`` does: first the builds
that run, then those that have ended. With a limit, these are the newest, the newest first; without
one, all of them, in the order of their refs, which is that of BuildKit's database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from buildpool.buildkit.history import BuildEvent, BuildEventKind

_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""What BuildKit takes the start of a build for that has none."""


def merged(answers: Iterable[Sequence[BuildEvent]], *, limit: int = 0) -> list[BuildEvent]:
    """What one daemon would answer that had the builds of all.

    Each has kept to the same limit, and to the same filters; 0: there is no limit. Of a build of
    which several tell, the first counts.
    """
    running: dict[str, BuildEvent] = {}
    ended: dict[str, BuildEvent] = {}
    for event in chain.from_iterable(answers):
        which = running if event.kind is BuildEventKind.STARTED else ended
        which.setdefault(event.build.ref, event)
    if limit > 0:
        listed = sorted(ended.values(), key=_started, reverse=True)[:limit]
    else:
        listed = sorted(ended.values(), key=_ref)
    return [*running.values(), *listed]


def within(events: Iterable[BuildEvent], room: int) -> list[BuildEvent]:
    """These events, without those that find no room in so many bytes: the first come first."""
    kept = []
    for event in events:
        if (size := len(event.message)) <= room:
            kept.append(event)
            room -= size
    return kept


def _started(event: BuildEvent) -> datetime:
    return event.build.started or _NO_TIME


def _ref(event: BuildEvent) -> str:
    return event.build.ref
