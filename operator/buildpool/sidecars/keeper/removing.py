"""Takes away from a storage what is damaged, not wanted or useless, while others use it.

What goes is decided by ``retention`` and ``damage``. Each thing is looked at once more right before
it goes. The lock is held meanwhile, and each look at a manifest holds it, too: so what removes sees
that a manifest is in use, or the look finds it gone. It is never held for long: what is much to do
is done in short steps, and looking through the whole storage needs no lock, damage excepted.

Nothing is removed while the volume fails to read anything, and no more than a few damaged blobs in
a round: a volume that fails makes all seem damaged, and is well again perhaps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, TypeVar

from buildpool.sidecars.keeper import damage
from buildpool.sidecars.keeper.inspection import Look
from buildpool.sidecars.keeper.inventory import Blob, Fault, Leftover, Link, Revision, Tag
from buildpool.sidecars.keeper.retention import CacheRemoval, Sweep
from buildpool.sidecars.keeper.scanning import take_references, take_refs, youngest_links
from buildpool.sidecars.keeper.storage import RegistryStorage

HOLD: Final = timedelta(milliseconds=50)
"""How long the lock is held until the last thing of a step is begun. A look waits as long."""
LOOK_AGAIN: Final = timedelta(seconds=5)
"""How long blobs are removed after one look through the storage, or for as long as that took."""
MAX_DAMAGED: Final = 20
"""Damaged blobs that are removed in a round. More say that the volume fails."""
_Thing = TypeVar("_Thing")
log = logging.getLogger(__name__)


class Remover:
    """Removes things, and counts what that freed."""

    def __init__(self, storage: RegistryStorage, lock: asyncio.Lock) -> None:
        self.reclaimed = 0
        """Bytes."""
        self.damaged = 0
        """Blobs that were damaged and removed."""
        self._storage = storage
        self._lock = lock
        self._in_use: set[str] = set()
        self._damaged_before = 0
        self._is_broken = False
        self._was_broken = False

    @property
    def is_failing(self) -> bool:
        """Whether the volume fails, so that less is removed than should be."""
        return self._is_broken or self._was_broken or self._storage.doubts.is_any()

    def begin_round(self) -> None:
        """From here on damage is counted from nothing."""
        self._was_broken, self._is_broken = self._is_broken, False
        self._damaged_before = self.damaged

    def spare(self, seen: Look) -> None:
        """A manifest was looked at: no sweep that is under way takes its blobs. Needs the lock."""
        self._in_use.update(seen.parts, seen.manifests)

    async def remove(self, removal: CacheRemoval) -> None:
        """Removes tags first, so that nothing is called by a name that leads nowhere."""
        await self._in_steps(deque(removal.tags), lambda each: self._remove_tag(*each))
        await self._in_steps(deque(removal.revisions), lambda each: self._remove_revision(*each))

    async def heal(self, faults: Iterable[Fault], now: datetime) -> list[Tag]:
        """Removes what is damaged and all that needs it; tells which tags that were."""
        async with self._lock:
            return await asyncio.to_thread(self._heal, tuple(faults), now)

    async def sweep(self, found: Sweep, settled: datetime) -> bool:
        """Removes what is useless, and no blob that was used later than ``settled``.

        Whether there was anything to do.
        """
        before = self.reclaimed
        await self._sweep_blobs(deque(found.blobs), settled)
        await self._in_steps(deque(found.links), self._remove_link)
        await self._in_steps(deque(found.uploads), self._remove_upload)
        await self._in_steps(deque(found.leftovers), self._remove_leftover)
        if freed := self.reclaimed - before:
            log.info("swept %d bytes that nothing refers to", freed)
        return any((found.blobs, found.links, found.uploads, found.leftovers))

    async def _sweep_blobs(self, blobs: deque[Blob], settled: datetime) -> None:
        while blobs and not self._storage.doubts.is_any():
            begin = time.monotonic()
            async with self._lock:
                self._in_use.clear()
            # Manifests and links may have come since the inventory.
            needed = await asyncio.to_thread(take_references, self._storage)
            wanted = frozenset(blob.digest for blob in blobs)
            linked = await asyncio.to_thread(youngest_links, self._storage, wanted)
            end = time.monotonic()

            def remove(blob: Blob, needed: frozenset[str] = needed) -> None:
                is_old = linked.get(blob.digest, settled) <= settled  # noqa: B023 - used at once
                if blob.digest not in needed and blob.digest not in self._in_use and is_old:
                    self._remove_blob(blob)

            await self._in_steps(blobs, remove, until=end + max(end - begin, _seconds(LOOK_AGAIN)))

    async def _in_steps(
        self, things: deque[_Thing], act: Callable[[_Thing], object], until: float | None = None
    ) -> None:
        """Takes things from the left and does this to them, until a moment of the clock."""
        while things and (until is None or time.monotonic() < until):
            async with self._lock:
                if self._storage.doubts.is_any():
                    return
                await asyncio.to_thread(_for_a_moment, things, act)

    def _remove_tag(self, tag: Tag, why: str) -> bool:
        freed = self._storage.remove_tag(tag)
        if freed is None:
            return False
        log.info("removed %s: %s", tag.ref, why)
        self.reclaimed += freed
        return True

    def _remove_revision(self, revision: Revision, why: str) -> None:
        freed = self._storage.remove_revision(revision)
        if freed is not None:
            log.info("removed %s@%s: %s", *revision.key, why)
            self.reclaimed += freed

    def _remove_blob(self, blob: Blob) -> None:
        if self._storage.identity(blob.digest) == blob.identity:
            self.reclaimed += self._storage.remove_blob(blob.digest)

    def _remove_link(self, link: Link) -> None:
        is_useless = not link.is_sound or self._storage.identity(link.digest) is None
        if is_useless and self._storage.link(*link.key) == link:
            self.reclaimed += self._storage.remove_link(*link.key)

    def _remove_upload(self, upload: Leftover) -> None:
        self.reclaimed += self._storage.remove_upload(upload)

    def _remove_leftover(self, leftover: Leftover) -> None:
        self.reclaimed += self._storage.remove_leftover(leftover)

    def _heal(self, faults: tuple[Fault, ...], now: datetime) -> list[Tag]:
        current = self._bounded(fault for fault in faults if self._is_current(fault))
        if current is None:
            return []
        refs = take_refs(self._storage)
        if self._storage.doubts.is_any():
            return []
        removal = damage.affected(refs, current)
        removed = [tag for tag, why in removal.tags if self._remove_tag(tag, why)]
        for revision, why in removal.revisions:
            self._remove_revision(revision, why)
            self._spare_blobs(revision, now)
        for digest, repository in {(fault.digest, fault.repository) for fault in current}:
            if digest is None:
                continue
            if repository is None:
                self.reclaimed += self._storage.remove_blob(digest)
                self.damaged += 1
            else:
                self.reclaimed += self._storage.remove_link(repository, digest)
        return removed

    def _is_current(self, fault: Fault) -> bool:
        """What was uploaded again meanwhile is not what was found at fault."""
        if fault.repository is not None or fault.digest is None:
            return fault.repository is not None
        return self._storage.identity(fault.digest) == fault.identity

    def _bounded(self, faults: Iterable[Fault]) -> list[Fault] | None:
        """As many of these as may be believed in this round; None: nothing may."""
        left = MAX_DAMAGED - (self.damaged - self._damaged_before)
        believed: list[Fault] = []
        blobs: set[str | None] = set()
        for fault in faults:
            if fault.repository is None:
                blobs.add(fault.digest)
            if len(blobs) > left:
                if not self._is_broken:
                    log.error("the volume fails: more than %d blobs are damaged", MAX_DAMAGED)
                self._is_broken = True
                return believed or None
            believed.append(fault)
        return believed

    def _spare_blobs(self, revision: Revision, now: datetime) -> None:
        """Keeps its sound blobs for a while: for builds that are at it, and for the next export."""
        for each in revision.refers or ():
            if (link := self._storage.link(revision.repository, each.digest)) is not None:
                self._storage.touch(link, now)


def _for_a_moment(things: deque[_Thing], act: Callable[[_Thing], object]) -> None:
    end = time.monotonic() + _seconds(HOLD)
    while things:
        act(things.popleft())
        if time.monotonic() >= end:
            return


def _seconds(span: timedelta) -> float:
    return span.total_seconds()
