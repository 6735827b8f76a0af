"""Keeps a registry's storage whole and small enough: vouches for manifests, and makes rounds.

What goes is decided by ``retention`` and ``damage``, and removed by ``removing``. The lock covers
each look at a manifest, which records its use; never the reading of blobs nor an inventory.

The registry knows nothing of the lock. An export that counted on a blob nobody used for long may
find it gone at its very end, and fails; and a manifest that came in just then is found damaged when
it is checked. Neither ever reaches a build that imports.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from buildpool.core.observed.usage import Usage
from buildpool.sidecars.keeper import damage, retention, verdicts
from buildpool.sidecars.keeper.clock import CautiousClock
from buildpool.sidecars.keeper.files import is_of_the_volume
from buildpool.sidecars.keeper.inspection import BlobInspector, Look, look
from buildpool.sidecars.keeper.inventory import Fault, Inventory, Tag, Verdict
from buildpool.sidecars.keeper.removing import Remover
from buildpool.sidecars.keeper.retention import Budget, Rules
from buildpool.sidecars.keeper.scanning import take_inventory
from buildpool.sidecars.keeper.storage import RegistryStorage

SORE: Final = timedelta(hours=1)
"""How long a ref that was removed because of damage is reported, unless it is exported again."""
MAX_SORE: Final = 10
"""How many of these are reported: the latest."""
PATIENCE: Final = timedelta(seconds=20)
"""How long a check waits for blobs to be read; then they are read on without it."""
VERDICTS: Final = "keeper-verdicts"
"""The file of verdicts, in the storage's root directory, where the registry never looks."""
log = logging.getLogger(__name__)


class State(StrEnum):
    """How a manifest is that was asked for."""

    WHOLE = "whole"
    ABSENT = "absent"
    DAMAGED = "damaged"
    """It was removed, unless the volume seems to fail."""
    PENDING = "pending"
    """Nobody knows yet."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check has shown."""

    state: State
    digest: str | None = None
    """Of the manifest, where it is whole."""
    message: str = ""
    """What is wrong, for people."""


class Upkeep:
    """Looks after one storage."""

    def __init__(
        self,
        storage: RegistryStorage,
        rules: Rules,
        *,
        interval: timedelta,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        scrub: timedelta | None = timedelta(days=1),
        patience: timedelta = PATIENCE,
    ) -> None:
        """``monotonic`` tells seconds, and never leaps as ``clock`` may.

        ``scrub`` is how often each blob is read again; None: a verdict ends with the file.
        """
        self._storage = storage
        self._rules = rules
        self._interval = interval
        self._clock = clock
        self._monotonic = monotonic
        self._scrubbing = scrub
        self._patience = patience
        self._file: Path = storage.root / VERDICTS
        known, self._last_known = _known(self._file)
        self._saved: Mapping[str, Verdict] = dict(known)
        self._inspector = BlobInspector(storage, clock, scrub, known)
        self._cautious = CautiousClock()
        self._lock = asyncio.Lock()
        self._remover = Remover(storage, self._lock)
        self._judging: set[asyncio.Task[Checked]] = set()
        self._measured = asyncio.Event()
        self._usage = Usage()
        self._sore: dict[str, tuple[Tag, datetime]] = {}
        self._scrubbed_at: float | None = None
        self._is_failing = False
        self._is_certain = True

    async def check(self, repository: str, reference: str) -> Checked:
        """Whether a manifest is whole.

        What is damaged is removed before this returns. Both names must be well-formed: they become
        paths.
        """
        async with self._lock:
            seen = await asyncio.to_thread(
                look, self._storage, repository, reference, used=self._clock()
            )
            self._remover.spare(seen)
        judging = asyncio.create_task(self._judge(seen))
        self._judging.add(judging)  # it goes on if nobody waits any more
        judging.add_done_callback(self._judged)
        await asyncio.wait((judging,), timeout=self._patience.total_seconds())
        if not judging.done():
            return Checked(State.PENDING, message="it is still being read; later builds can use it")
        return judging.result()

    async def usage(self) -> Usage:
        """What there is to be told; waits for the first inventory."""
        await self._measured.wait()
        return replace(
            self._usage,
            reclaimed=self._remover.reclaimed,
            damaged=self._remover.damaged,
            unhealed=await asyncio.to_thread(self._unhealed),
            is_failing=self._is_failing or self._remover.is_failing,
        )

    async def run(self) -> None:
        """Makes rounds for ever."""
        try:
            while True:
                try:
                    await self.round()
                    self._is_failing = False
                except Exception as error:
                    self._is_failing = is_of_the_volume(error)
                    log.exception("a round failed; the next one is in %s", self._interval)
                await asyncio.sleep(self._interval.total_seconds())
        finally:
            for task in self._judging:
                task.cancel()
            self._inspector.close()
            self._save(self._inspector.known())

    async def round(self) -> None:
        """Removes what is damaged, what nobody wants any more, and what room is needed for."""
        self._remover.begin_round()
        inventory = await self._take_inventory()
        now = self._believed(inventory)
        if await self._mend(inventory):
            inventory = await self._take_inventory()
        if not self._storage.doubts.is_any():
            inventory = await self._make_room(inventory, now)
        self._tell(inventory, await asyncio.to_thread(self._room, inventory))
        await self._scrub(inventory)
        await asyncio.to_thread(self._save, self._inspector.known())
        await asyncio.to_thread(self._stamp, now)

    async def _make_room(self, inventory: Inventory, now: datetime) -> Inventory:
        room = await asyncio.to_thread(self._room, inventory)
        removal = await asyncio.to_thread(retention.removal, inventory, self._rules, room, now)
        if removal.tags or removal.revisions:
            await self._remover.remove(removal)
            inventory = await self._take_inventory()
        useless = await asyncio.to_thread(retention.sweep, inventory, self._rules, now)
        if await self._remover.sweep(useless, now - self._rules.grace):
            inventory = await self._take_inventory()
        return inventory

    async def _take_inventory(self) -> Inventory:
        inventory = await asyncio.to_thread(take_inventory, self._storage)
        if not self._measured.is_set():
            room = await asyncio.to_thread(self._room, inventory)
            self._tell(inventory, room)
        return inventory

    def _believed(self, inventory: Inventory) -> datetime:
        """The time by which things expire."""
        passed = timedelta(seconds=self._monotonic())
        now, known = self._clock(), self._last_known or inventory.youngest()
        was_certain, believed = self._is_certain, self._cautious.believed(now, passed, known)
        self._is_certain = believed >= now
        if was_certain and not self._is_certain:
            log.warning("the clock leapt to %s; things expire as if it were %s", now, believed)
        return believed

    def _room(self, inventory: Inventory) -> Budget:
        disk = self._storage.disk()
        capacity = min(self._rules.capacity, disk.total)
        return Budget(inventory.used, capacity, disk.free)

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
            await self._heal(tuple(faults))
            return True
        return False

    async def _judge(self, seen: Look) -> Checked:
        faults = seen.faults or await self._inspector.faults(seen.parts)
        if faults:
            return await self._heal(faults)
        if seen.digest is None:
            return Checked(State.ABSENT)
        return Checked(State.WHOLE, seen.digest)

    def _judged(self, task: asyncio.Task[Checked]) -> None:
        self._judging.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a check failed: %s", error)

    async def _heal(self, faults: tuple[Fault, ...]) -> Checked:
        now = self._clock()
        if self._storage.doubts.is_any():
            return Checked(State.PENDING, message="the volume cannot be read at present")
        for tag in await self._remover.heal(faults, now):
            self._sore.pop(tag.ref, None)
            self._sore[tag.ref] = tag, now
        return Checked(State.DAMAGED, message=faults[0].what if faults else "")

    async def _scrub(self, inventory: Inventory) -> None:
        identities = {digest: blob.identity for digest, blob in inventory.blobs.items()}
        known = self._inspector.verdicts(identities)
        if self._scrubbing is None:
            return
        now, last = self._monotonic(), self._scrubbed_at
        passed = self._interval if last is None else timedelta(seconds=now - last)
        self._scrubbed_at = now
        for digest in damage.due_for_scrub(
            inventory.blobs, known, self._clock(), passed, self._scrubbing
        ):
            fault = await self._inspector.read(digest)
            if fault is not None and fault.identity is not None:  # otherwise it went meanwhile
                await self._heal((fault,))

    def _save(self, known: Mapping[str, Verdict]) -> None:
        if known == self._saved and self._file.exists():
            return
        try:
            verdicts.save(self._file, known)
        except OSError as error:
            log.warning("what was found sound cannot be written down: %s", error)
        else:
            self._saved = known

    def _stamp(self, now: datetime) -> None:
        try:
            verdicts.stamp(self._file, now)
        except OSError as error:
            log.warning("the time cannot be written down: %s", error)

    def _unhealed(self) -> tuple[str, ...]:
        oldest = self._clock() - SORE
        return tuple(
            ref
            for ref, (tag, at) in list(self._sore.items())
            if at > oldest and self._storage.tag(tag.repository, tag.name) is None
        )[-MAX_SORE:]


def _known(file: Path) -> tuple[Mapping[str, Verdict], datetime | None]:
    try:
        return verdicts.load(file)
    except OSError as error:
        log.warning("what was found sound before cannot be read: %s", error)
        return {}, None
