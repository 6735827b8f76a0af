"""What goes and what stays, decided from an inventory and the present time.

Pure. Nothing here removes anything, and whatever it says is carried out only where the storage
still is what it was when the inventory was taken.

``grace`` is how long anything just used or uploaded is safe from all but damage: a build may have
imported a manifest and fetch its blobs later, or has uploaded blobs and sends their manifest later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from buildpool.sidecars.keeper.inventory import Blob, Inventory, Key, Leftover, Link, Revision, Tag

_MIB: Final = 1024**2
CROWDED_SHARE: Final = 0.90
"""Share of the capacity above which room is made."""
ROOMY_SHARE: Final = 0.75
"""Share of the capacity down to which it is made."""
FULL_SHARE: Final = 0.98
"""Share of the capacity from which on it counts as full."""
SCARCE: Final = (0.05, 1024 * _MIB)
"""What is free on the file system below which room is made: that share of the capacity, and never
more than so many bytes. A share of the file system itself would say nothing: on one that is shared
and large, no cache that is thrown away brings it about, however full it is for years."""
AMPLE: Final = (0.10, 2048 * _MIB)
"""What is free up to which room is made then, likewise."""
MIN_FREE: Final = (0.01, 256 * _MIB)
"""What is free below which it counts as full, likewise."""
MIN_FREE_BYTES: Final = 4 * _MIB
"""Bytes that must be free in any case, or it counts as full."""

ABANDONED: Final = timedelta(minutes=15)
"""How long nothing has come of an upload that nobody will end: its bytes come in one stream. The
registry would keep them for a day, or for ever where the disk was full when it began."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner of the cache wants."""

    capacity: int
    """Bytes that it may take, if the file system has as many."""
    retention: timedelta
    """How long a tag that nobody uses is kept."""
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Budget:
    """How much there is, in bytes."""

    used: int
    capacity: int
    """No more than the file system has."""
    free: int
    """Of the file system, which others may fill, too."""

    @property
    def is_full(self) -> bool:
        """Whether hardly anything can be stored."""
        return self.used >= FULL_SHARE * self.capacity or self.free < max(
            self._bounded(MIN_FREE), MIN_FREE_BYTES
        )

    def needed(self, freed: int) -> int:
        """Bytes that should become free besides these; 0 while there is enough room."""
        used, free = self.used - freed, self.free + freed
        if used <= CROWDED_SHARE * self.capacity and free >= self._bounded(SCARCE):
            return 0
        return max(0, ceil(used - ROOMY_SHARE * self.capacity), ceil(self._bounded(AMPLE) - free))

    def _bounded(self, limit: tuple[float, int]) -> float:
        share, most = limit
        return min(share * self.capacity, most)


@dataclass(frozen=True, slots=True)
class CacheRemoval:
    """Tags and manifests to be removed, each with the reason."""

    tags: tuple[tuple[Tag, str], ...] = ()
    revisions: tuple[tuple[Revision, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Sweep:
    """What nothing refers to any more."""

    blobs: tuple[Blob, ...] = ()
    links: tuple[Link, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    uploads: tuple[Leftover, ...] = ()


def removal(inventory: Inventory, rules: Rules, room: Budget, now: datetime) -> CacheRemoval:
    """Tags that are not wanted any more, and manifests that have lost their last tag.

    Where room is needed, more tags go in the order of their last use.
    """
    ledger = _Ledger(inventory, now - rules.grace)
    gone: list[tuple[Tag, str]] = []
    kept: list[Tag] = []
    for tag in inventory.tags:
        why = _why_expired(tag, ledger, now - rules.retention)
        if why is None:
            kept.append(tag)
        else:
            gone.append((tag, why))
            ledger.release(tag)
    goal = ledger.freed + room.needed(ledger.freed)
    for tag in sorted(kept, key=lambda tag: (tag.used, tag.ref)):
        if ledger.freed >= goal or tag.used > now - rules.grace:
            break
        gone.append((tag, "room is needed, and no other was unused for longer"))
        ledger.release(tag)
    why = f"no tag points to it, and it was not used for {rules.grace}"
    return CacheRemoval(tuple(gone), tuple((revision, why) for revision in ledger.gone))


def _why_expired(tag: Tag, ledger: _Ledger, oldest: datetime) -> str | None:
    if tag.digest is None:
        return None  # that is damage
    if Key(tag.repository, tag.digest) not in ledger.revisions:
        return "it points to no manifest"
    if tag.used < oldest:
        return f"it was not used since {tag.used:%Y-%m-%d %H:%M} UTC"
    return None


class _Ledger:
    """Counts who holds what while one decision is made."""

    def __init__(self, inventory: Inventory, settled: datetime) -> None:
        self.revisions = {revision.key: revision for revision in inventory.revisions}
        self.gone: list[Revision] = []
        """Manifests that nothing holds any more, and that nobody uses."""
        self._blobs = inventory.blobs
        self._uploaded = uploads(inventory)
        self._settled = settled
        self._pins: Counter[Key] = Counter(
            Key(tag.repository, tag.digest) for tag in inventory.tags if tag.digest is not None
        )
        self._holders: Counter[str] = Counter()
        for revision in inventory.revisions:
            self._holders.update(_held(revision))
            self._pins.update(_children(revision))
        self.freed = sum(self._size(digest) for digest in inventory.blobs)
        """Bytes that can be swept then."""
        self._let_go(*self.revisions)

    def release(self, tag: Tag) -> None:
        """The tag goes."""
        if tag.digest is not None:
            key = Key(tag.repository, tag.digest)
            self._pins[key] -= 1
            self._let_go(key)

    def _let_go(self, *unpinned: Key) -> None:
        keys = list(unpinned)  # and no recursion: anyone who may push can nest deep
        while keys:
            revision = self.revisions.get(key := keys.pop())
            if revision is None or self._pins[key] > 0 or revision.used > self._settled:
                continue
            del self.revisions[key]
            self.gone.append(revision)
            for digest in _held(revision):
                self._holders[digest] -= 1
                self.freed += self._size(digest)
            children = _children(revision)
            self._pins.subtract(children)
            keys.extend(children)

    def _size(self, digest: str) -> int:
        """Of a blob that can be swept; 0 of any other."""
        if self._holders[digest] > 0 or digest not in self._blobs:
            return 0
        return self._blobs[digest].size if self._uploaded[digest] <= self._settled else 0


def _held(revision: Revision) -> frozenset[str]:
    return frozenset((revision.digest, *(each.digest for each in revision.refers or ())))


def _children(revision: Revision) -> frozenset[Key]:
    return frozenset(
        Key(revision.repository, each.digest) for each in revision.refers or () if each.is_manifest
    )


def uploads(inventory: Inventory) -> dict[str, datetime]:
    """When each blob was last uploaded.

    The registry keeps the old file if it has the blob already, and only writes a new link.
    """
    times = {digest: blob.changed for digest, blob in inventory.blobs.items()}
    for link in inventory.links:
        if link.digest in times:
            times[link.digest] = max(times[link.digest], link.changed)
    return times


def sweep(inventory: Inventory, rules: Rules, now: datetime) -> Sweep:
    """What nothing refers to and no export that is under way can count on."""
    settled = now - rules.grace
    needed = frozenset(digest for each in inventory.revisions for digest in _held(each))
    uploaded = uploads(inventory)
    blobs = {
        digest: blob
        for digest, blob in inventory.blobs.items()
        if digest not in needed and uploaded[digest] <= settled
    }
    there = inventory.blobs.keys() - blobs.keys()
    return Sweep(
        blobs=tuple(blobs.values()),
        links=tuple(
            link
            for link in inventory.links
            if not link.is_sound or (link.digest not in there and link.changed <= settled)
        ),
        leftovers=tuple(each for each in inventory.leftovers if each.changed <= settled),
        uploads=tuple(each for each in inventory.uploads if each.changed <= now - ABANDONED),
    )
