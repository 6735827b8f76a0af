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

    Each has kept to the same limit, and to the same filters; 0: there is no limit.
    """
    running: list[BuildEvent] = []
    ended: list[BuildEvent] = []
    for event in chain.from_iterable(answers):
        (running if event.kind is BuildEventKind.STARTED else ended).append(event)
    if limit > 0:
        ended.sort(key=_started, reverse=True)
        del ended[limit:]
    else:
        ended.sort(key=_ref)
    return running + ended


def within(events: Iterable[BuildEvent], room: int) -> list[BuildEvent]:
    """The first of these events, as many as have no more than so many bytes together."""
    kept = []
    for event in events:
        room -= len(event.message)
        if room < 0:
            break
        kept.append(event)
    return kept


def _started(event: BuildEvent) -> datetime:
    return event.build.started or _NO_TIME


def _ref(event: BuildEvent) -> str:
    return event.build.ref
