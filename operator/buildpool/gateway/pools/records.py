"""Where in a pool the record of a build is: each builder keeps those of its own builds.

A client sees one builder. So a record is looked for at all daemons, what is listed comes from all,
and what is read of the content of builds is read where it is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from buildpool.buildkit import BuildEvent, Room
from buildpool.buildkit.history_merge import merged, within
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.errors import BuildpoolError
from buildpool.gateway.pools.fleet import Asked, Fleet, Keeper
from buildpool.gateway.pools.listeners import Listeners
from buildpool.gateway.pools.whereabouts import Whereabouts

LISTS_AT_ONCE: Final = 2
"""Lists of all builds that a pool is asked for at once: each costs a request to every daemon, and
may be answered by some megabytes."""
SEARCHES_AT_ONCE: Final = 8
"""Questions about one build or one piece of content: the answers are short, and a daemon that hangs
holds each of them up for seconds."""
MAX_LISTED_BYTES: Final = 8 << 20
"""Of all records of one list; of more, some are left out."""
MAX_COMING_BYTES: Final = 8 << 20
"""Of the answers to one question that were not made a part of the list yet."""
MAX_REFS: Final = 1_000
"""Builds of one daemon of which it is remembered that it has them,"""
MAX_DIGESTS: Final = 2_000
"""and pieces of content."""
MAX_DIGESTS_OF_BUILD: Final = 100
"""Of the content of one build: its attestations for each platform, and little more."""
NOTED_BYTES: Final = 1 << 18
"""Of records that are looked through at a time; then others have their turn."""
MAX_READ_BYTES: Final = 1 << 20
"""Of one record, that are looked through."""
_DIGEST: Final = re.compile(rb"sha256:[0-9a-f]{64}")


class NoAnswer(BuildpoolError):  # noqa: N818 - it is one: that there is none
    """No daemon of the pool has answered."""


@dataclass(slots=True)
class _Listed:
    """What daemons list."""

    events: list[BuildEvent] = field(default_factory=list)
    asked: Asked = field(default_factory=Asked)


class BuildRecords:
    """Those of one pool. For one event loop."""

    def __init__(self, fleet: Fleet, *, unheard: Room | None = None) -> None:
        """``unheard`` is the room of what those who listen have not heard, which pools share."""
        self.fleet = fleet
        self.listeners = Listeners(unheard)
        self._listing = asyncio.Semaphore(LISTS_AT_ONCE)
        self._searching = asyncio.Semaphore(SEARCHES_AT_ONCE)
        self._built = Whereabouts(fleet.has, most=MAX_REFS)
        """Builds that went there from here."""
        self._refs = Whereabouts(fleet.has, most=MAX_REFS)
        """Builds, as daemons say."""
        self._digests = Whereabouts(fleet.has, most=MAX_DIGESTS)
        """The same of content. It is sure where a build names it that went there from here."""

    def built(self, ref: str, uid: str) -> None:
        """A build goes to this builder, which alone speaks for it as long as it is there.

        Clients choose refs: another build by the same one takes no record from this one.
        """
        if self._built.holder(ref) in ("", uid):
            self._built.forget(ref)
            self._built.note(ref, uid)

    def tell(self, uid: str, event: BuildEvent) -> None:
        """A daemon has said this."""
        if self._speaks(uid, event):
            self.listeners.tell(uid, event)

    async def listed(self, request: HistoryRequest, *, runs_on: str = "") -> list[BuildEvent]:
        """What one daemon would list now. ``runs_on``: the builder on which the one build runs.

        Raises NoAnswer; DaemonRefusedError where none answers otherwise.
        """
        first = runs_on or self.holder_known(request.ref)
        asked = Asked()
        if first:
            found = await self._ask(request, only=(first,))
            if found.events:
                return found.events
            asked = found.asked
            if asked.answered:
                self._refs.forget(request.ref)
        found = await self._ask_all(request, without=(first,))
        if not (found.asked.answered or asked.answered):
            raise found.asked.refusal or asked.refusal or NoAnswer
        return found.events

    async def find(self, ref: str) -> str:
        """The builder that has a record of a build, by the uid of its pod; empty where none has."""
        if ref and not self.holder_known(ref):
            await self._ask_all(HistoryRequest(ref=ref))
        return self.holder_known(ref)

    def holder_known(self, ref: str) -> str:
        """The builder that is known to have a build; empty where none is."""
        return self._built.holder(ref) or self._refs.holder(ref)

    async def holder_of(self, digest: str) -> str:
        """The builder that has some content of builds, by the uid of its pod; empty: none has."""
        if not self._digests.holder(digest) and _DIGEST.fullmatch(digest.encode()):

            async def has(keeper: Keeper) -> bool:
                return await keeper.has_content(digest)

            async def take(uid: str, is_there: bool) -> bool:
                if is_there:
                    self._digests.note(digest, uid)
                return is_there

            async with self._searching:
                await self.fleet.ask(has, take, is_search=True)
        return self._digests.holder(digest)

    async def _ask_all(self, request: HistoryRequest, *, without: Collection[str] = ()) -> _Listed:
        async with self._searching if request.ref else self._listing:
            return await self._ask(request, without=without)

    async def _ask(
        self,
        request: HistoryRequest,
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> _Listed:
        """What daemons list. Notes what they have."""
        room, listed = Room(MAX_COMING_BYTES), _Listed()
        message = request.for_daemon()

        async def records(keeper: Keeper) -> list[BuildEvent]:
            return await keeper.records(message, room, ref=request.ref)

        async def take(uid: str, told: list[BuildEvent]) -> bool:
            await self._note(uid, told)
            spoken = [event for event in told if self._speaks(uid, event)]
            events = merged([listed.events, spoken], limit=max(0, request.limit))
            listed.events = events if request.ref else within(events, MAX_LISTED_BYTES)
            room.left += sum(len(event.message) for event in told)
            return bool(request.ref and spoken)

        # Whether a build runs, the others say: nobody waits for one that was late.
        is_search = bool(request.ref) and not request.is_active_only
        listed.asked = await self.fleet.ask(
            records, take, only=only, without=without, is_search=is_search
        )
        return listed

    async def _note(self, uid: str, told: list[BuildEvent]) -> None:
        """What a daemon has, as it says."""
        read = 0
        for event in told:
            ref = event.build.ref
            self._refs.note(ref, uid)
            is_sure = self._built.holder(ref) == uid
            digests = _DIGEST.finditer(event.message, 0, MAX_READ_BYTES)
            for digest in islice(digests, MAX_DIGESTS_OF_BUILD) if self._speaks(uid, event) else ():
                self._digests.note(digest[0].decode(), uid, is_sure=is_sure)
            read += len(event.message)
            if read >= NOTED_BYTES:
                read = 0
                await asyncio.sleep(0)

    def _speaks(self, uid: str, event: BuildEvent) -> bool:
        """Whether a daemon may speak for a build: another may be known to have it."""
        return self.holder_known(event.build.ref) in ("", uid)
