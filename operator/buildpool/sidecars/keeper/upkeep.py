"""Keeps a registry's storage whole and small enough: vouches for manifests, and makes rounds.

What goes is decided by ``retention`` and ``damage``. The lock covers each look at a manifest, which
records its use, and each removal; never the reading of blobs nor an inventory. So whoever removes
sees that a manifest is in use, or whoever looked finds it gone.

The registry knows nothing of the lock. An export that counted on a blob nobody used for long may
find it gone at its very end, and fails; and a manifest that came in just then is found damaged when
it is checked. Neither ever reaches a build that imports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.observed.usage import Usage
from buildpool.sidecars.keeper import damage, retention
from buildpool.sidecars.keeper.inspection import BlobInspector, look
from buildpool.sidecars.keeper.inventory import Fault, Inventory, Revision, Tag
from buildpool.sidecars.keeper.retention import Budget, CacheRemoval, Rules, Sweep
from buildpool.sidecars.keeper.scanning import (
    repositories,
    take_inventory,
    take_references,
    take_refs,
)
from buildpool.sidecars.keeper.storage import RegistryStorage

SORE: Final = timedelta(hours=1)
"""How long a ref that was removed because of damage is told of, unless it is exported again."""
MAX_SORE: Final = 10
"""How many of these are told of: the latest."""
_BATCH: Final = 50
"""Things that are removed at a time. Whoever wants to look at a manifest waits for no more."""
log = logging.getLogger(__name__)


class Upkeep:
    """Looks after one storage."""

    def __init__(
        self,
        storage: RegistryStorage,
        rules: Rules,
        *,
        interval: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._storage = storage
        self._rules = rules
        self._interval = interval
        self._clock = clock
        self._inspector = BlobInspector(storage, clock)
        self._lock = asyncio.Lock()
        self._measured = asyncio.Event()
        self._usage = Usage()
        self._reclaimed = 0
        self._damaged = 0
        self._sore: dict[str, tuple[Tag, datetime]] = {}

    async def check(self, repository: str, reference: str) -> tuple[str | None, str]:
        """The digest of a manifest that is whole; or None, and what is wrong with it, for people.

        Nothing is wrong with one that is not there. What is damaged is removed before this returns.
        Both names must be well-formed: they become paths.
        """
        async with self._lock:
            seen = await asyncio.to_thread(
                look, self._storage, repository, reference, used=self._clock()
            )
        faults = seen.faults or await self._inspector.faults(seen.parts)
        if faults:
            await self._heal(faults)
            return None, faults[0].what
        return seen.digest, ""

    async def usage(self) -> Usage:
        """What there is to be told; waits for the first inventory."""
        await self._measured.wait()
        return replace(
            self._usage,
            reclaimed=self._reclaimed,
            damaged=self._damaged,
            unhealed=await asyncio.to_thread(self._unhealed),
        )

    async def run(self) -> None:
        """Makes rounds for ever."""
        try:
            while True:
                try:
                    await self.round()
                except Exception:
                    log.exception("a round failed; the next one is in %s", self._interval)
                await asyncio.sleep(self._interval.total_seconds())
        finally:
            self._inspector.close()

    async def round(self) -> None:
        """Removes what is damaged, what nobody wants any more, and what room is needed for."""
        inventory = await self._take_inventory()
        if await self._mend(inventory):
            inventory = await self._take_inventory()
        now = self._clock()
        room = await asyncio.to_thread(self._room, inventory)
        removal = await asyncio.to_thread(retention.removal, inventory, self._rules, room, now)
        if removal.tags or removal.revisions:
            for step in removal.steps(_BATCH):
                async with self._lock:
                    await asyncio.to_thread(self._remove, step)
            inventory = await self._take_inventory()
        if await self._sweep(retention.sweep(inventory, self._rules, now), now):
            inventory = await self._take_inventory()
        self._tell(inventory, await asyncio.to_thread(self._room, inventory))
        await self._scrub(inventory)

    async def _take_inventory(self) -> Inventory:
        inventory = await asyncio.to_thread(take_inventory, self._storage)
        if not self._measured.is_set():
            room = await asyncio.to_thread(self._room, inventory)
            self._tell(inventory, room)
        return inventory

    def _room(self, inventory: Inventory) -> Budget:
        disk = self._storage.disk()
        capacity = min(self._rules.capacity, disk.total)
        return Budget(inventory.used, capacity, disk.total, disk.free)

    def _tell(self, inventory: Inventory, room: Budget) -> None:
        is_full = self._measured.is_set() and room.is_full  # not before room could be made
        self._usage = Usage(room.used, room.capacity, len(inventory.tags), is_full=is_full)
        self._measured.set()

    async def _mend(self, inventory: Inventory) -> bool:
        faults: list[Fault] = []
        for key in damage.suspects(inventory):
            async with self._lock:
                seen = await asyncio.to_thread(look, self._storage, *key, used=None)
            faults.extend(seen.faults)
        if faults or any(tag.digest is None for tag in inventory.tags):
            await self._heal(faults)
            return True
        return False

    async def _scrub(self, inventory: Inventory) -> None:
        identities = {digest: blob.identity for digest, blob in inventory.blobs.items()}
        verdicts = self._inspector.verdicts(identities)
        due = damage.due_for_scrub(inventory.blobs, verdicts, self._clock(), self._interval)
        for digest in due:
            verdict = await self._inspector.read(digest)
            fault = verdict.fault(digest)
            if fault is not None and fault.identity is not None:  # otherwise it went meanwhile
                await self._heal((fault,))

    async def _heal(self, faults: Iterable[Fault]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._remove_damage, tuple(faults))

    def _remove_damage(self, faults: tuple[Fault, ...]) -> None:
        # What was uploaded anew meanwhile is not what was found at fault.
        current = [
            fault
            for fault in faults
            if fault.repository is not None
            or (fault.digest and self._storage.identity(fault.digest) == fault.identity)
        ]
        now = self._clock()
        removal = damage.affected(take_refs(self._storage), current)
        for tag in self._remove(removal):
            self._sore.pop(tag.ref, None)
            self._sore[tag.ref] = tag, now
        for revision, _ in removal.revisions:
            self._spare_blobs(revision, now)
        for digest, repository in {(fault.digest, fault.repository) for fault in current}:
            if digest is None:
                continue
            if repository is None:
                self._reclaimed += self._storage.remove_blob(digest)
                self._damaged += 1
            else:
                self._reclaimed += self._storage.remove_link(repository, digest)

    def _spare_blobs(self, revision: Revision, now: datetime) -> None:
        """Keeps its sound blobs for a while: for builds that are at it, and for the next export."""
        for each in revision.refers or ():
            if (link := self._storage.link(revision.repository, each.digest)) is not None:
                self._storage.touch(link, now)

    def _remove(self, removal: CacheRemoval) -> list[Tag]:
        """Removes tags first, so that nothing is called by a name that leads nowhere."""
        removed = []
        for tag, why in removal.tags:
            freed = self._storage.remove_tag(tag)
            if freed is not None:
                log.info("removed %s: %s", tag.ref, why)
                self._reclaimed += freed
                removed.append(tag)
        for revision, why in removal.revisions:
            freed = self._storage.remove_revision(revision)
            if freed is not None:
                log.info("removed %s@%s: %s", *revision.key, why)
                self._reclaimed += freed
        return removed

    async def _sweep(self, found: Sweep, now: datetime) -> bool:
        before, settled = self._reclaimed, now - self._rules.grace
        is_any = False
        for step in found.steps(_BATCH):
            is_any = True
            async with self._lock:
                await asyncio.to_thread(self._remove_useless, step, settled)
        if freed := self._reclaimed - before:
            log.info("swept %d bytes that nothing refers to", freed)
        return is_any

    def _remove_useless(self, found: Sweep, settled: datetime) -> None:
        storage, freed = self._storage, 0
        if found.blobs:
            # Manifests and links may have come since the inventory. This leaves the least time.
            names, needed = repositories(storage), take_references(storage)
            for blob in found.blobs:
                if blob.digest not in needed and storage.is_untouched(blob, settled, names):
                    freed += storage.remove_blob(blob.digest)
        for link in found.links:
            is_useless = not link.is_sound or storage.identity(link.digest) is None
            if is_useless and storage.link(*link.key) == link:
                freed += storage.remove_link(*link.key)
        for upload in found.uploads:
            freed += storage.remove_upload(upload)
        for leftover in found.leftovers:
            freed += storage.remove_leftover(leftover)
        self._reclaimed += freed

    def _unhealed(self) -> tuple[str, ...]:
        oldest = self._clock() - SORE
        return tuple(
            ref
            for ref, (tag, at) in list(self._sore.items())
            if at > oldest and self._storage.tag(tag.repository, tag.name) is None
        )[-MAX_SORE:]
