"""Where in a pool the record of a build is: each builder keeps those of its own builds.

A client sees one builder. So a record is looked for at all daemons, what is listed comes from all,
and what is read of the content of builds is read where it is.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from typing import Final

from buildpool.buildkit import BuildEvent
from buildpool.buildkit.history_merge import merged, within
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.buildkit.watcher import WatchedDaemon
from buildpool.gateway.pools.fleet import Answers, Fleet
from buildpool.gateway.pools.listeners import Listeners

AT_ONCE: Final = 2
"""Questions, of each kind, that go to all daemons of a pool at once: each costs a request to every
one, and may be answered by some megabytes."""
MAX_LISTED_BYTES: Final = 8 << 20
"""Of all records of one list; what is more is left out."""
MAX_REMEMBERED: Final = 5_000
"""Builds, and pieces of their content, of which it is remembered where they are."""
MAX_DIGESTS: Final = 500
"""Of the content of one build: its attestations for each platform, and little more."""
_DIGEST: Final = re.compile(rb"sha256:[0-9a-f]{64}")


class NoAnswer(Exception):  # noqa: N818 - it is one: that there is none
    """No daemon of the pool has answered."""


class BuildRecords:
    """Those of one pool. For one event loop."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.listeners = Listeners()
        self._asking, self._looking = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._known: OrderedDict[str, str] = OrderedDict()
        """The uids of the pods that have builds, by ref, and content, by digest, as they say."""
        self._built: OrderedDict[str, str] = OrderedDict()
        """The same of builds that went there from here."""

    def built(self, ref: str, uid: str) -> None:
        """A build goes to this builder, which alone speaks for it as long as it is there."""
        _remember(self._built, ref, uid)

    def tell(self, uid: str, event: BuildEvent) -> None:
        """A daemon has said this."""
        if self._speaks(uid, event):
            self.listeners.tell(uid, event)

    async def listed(self, request: HistoryRequest, *, runs_on: str = "") -> list[BuildEvent]:
        """What one daemon would list now. ``runs_on``: the builder on which the one build runs.

        Raises NoAnswer; DaemonRefusedError where none answers otherwise.
        """
        first = runs_on or self.holder_known(request.ref)
        if first and (told := await self._ask(request, only=(first,))).found.get(first):
            return list(told.found[first])
        answers = await self._ask_all(request)
        if not answers.found:
            raise answers.refusal or NoAnswer
        events = merged(answers.found.values(), limit=request.limit)
        return within(events, MAX_LISTED_BYTES)

    async def find(self, ref: str) -> str:
        """The builder that has a record of a build, by the uid of its pod; empty where none has."""
        if ref and not self.holder_known(ref):
            await self._ask_all(HistoryRequest(ref=ref))
        return self.holder_known(ref)

    def holder_known(self, name: str) -> str:
        """The builder that is known to have a build or a piece of content; empty: none is."""
        home = self._built.get(name, "")
        return home if self.fleet.has(home) else self._known.get(name, "")

    async def holder_of(self, digest: str) -> str:
        """The builder that has some content of builds, by the uid of its pod; empty: none has."""
        if digest not in self._known and _DIGEST.fullmatch(digest.encode()):
            async with self._looking:
                answers = await self.fleet.ask(partial(_has, digest), enough=bool)
            for uid, has in answers.found.items():
                if has:
                    _remember(self._known, digest, uid)
        return self.holder_known(digest)

    def forget(self, name: str) -> None:
        """A builder is gone of which it was known that it has this."""
        self._known.pop(name, None)

    async def _ask_all(self, request: HistoryRequest) -> Answers[tuple[BuildEvent, ...]]:
        async with self._asking:
            return await self._ask(request)

    async def _ask(
        self, request: HistoryRequest, *, only: Collection[str] | None = None
    ) -> Answers[tuple[BuildEvent, ...]]:
        """What daemons list. Notes what they have."""
        answers = await self.fleet.ask(
            partial(_records, request),
            enough=lambda events: bool(request.ref and events),
            only=only,
        )
        for uid, told in answers.found.items():
            answers.found[uid] = events = tuple(e for e in told if self._speaks(uid, e))
            for event in events:
                _remember(self._known, event.build.ref, uid)
                for digest in _DIGEST.findall(event.message)[:MAX_DIGESTS]:
                    _remember(self._known, digest.decode(), uid)
        return answers

    def _speaks(self, uid: str, event: BuildEvent) -> bool:
        """Whether a daemon may speak for a build: another may be known to have it."""
        home = self._built.get(event.build.ref, uid)
        return home == uid or not self.fleet.has(home)


def _remember(known: OrderedDict[str, str], name: str, uid: str) -> None:
    """Of what was said more than once, the last counts."""
    known[name] = uid
    known.move_to_end(name)
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)


async def _records(request: HistoryRequest, daemon: WatchedDaemon) -> tuple[BuildEvent, ...]:
    """What a daemon lists. It tells of other builds that run, whatever it is asked."""
    found = await daemon.records(request.for_daemon())
    return tuple(e for e in found if not request.ref or e.build.ref == request.ref)


async def _has(digest: str, daemon: WatchedDaemon) -> bool:
    return await daemon.has_content(digest)
