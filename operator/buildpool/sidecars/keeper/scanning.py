"""Walks through a registry's storage and tells all that lies there. Changes nothing.

The order matters, because the registry is at work meanwhile. It stores blobs, then a manifest, then
its tag; this looks at tags, then manifests, then blobs. So whatever a manifest that was seen refers
to was there before, and what is not seen then is really missing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from os import DirEntry
from pathlib import Path
from typing import Final

from buildpool.sidecars.keeper.files import (
    GONE,
    entries,
    folders,
    identify,
    is_folder,
    last_change,
    modified,
    size_of,
    stat_of,
    state,
)
from buildpool.sidecars.keeper.inventory import (
    Blob,
    Identity,
    Inventory,
    Leftover,
    Link,
    Revision,
    Tag,
)
from buildpool.sidecars.keeper.storage import RegistryStorage
from buildpool.sidecars.names import PREFIX, is_digest, is_repository

_REVISIONS: Final = "_manifests/revisions/sha256"
_LAYERS: Final = "_layers/sha256"
_STRUCTURE: Final = (
    "_manifests/tags",
    _REVISIONS,
    "_manifests/revisions",
    "_manifests",
    _LAYERS,
    "_layers",
    "_uploads",
    "",
)
"""Folders of a repository that may become empty."""


@dataclass(slots=True)
class _Scan:
    """An inventory that is being taken."""

    tags: list[Tag] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    blobs: dict[str, Blob] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)
    uploads: list[Leftover] = field(default_factory=list)
    used: int = 0

    def leave(self, folder: Path) -> None:
        with suppress(*GONE):
            self.leftovers.append(Leftover(str(folder), modified(state(folder))))


def take_inventory(storage: RegistryStorage) -> Inventory:
    """All that lies in a storage."""
    scan = _Scan()
    for repository in repositories(storage):
        _scan_repository(storage, repository, scan)
    _scan_blobs(storage, scan)
    inventory = Inventory(
        tags=tuple(scan.tags),
        revisions=tuple(scan.revisions),
        links=tuple(scan.links),
        blobs=scan.blobs,
        leftovers=tuple(scan.leftovers),
        uploads=tuple(scan.uploads),
        used=scan.used,
    )
    storage.remember_only(inventory)
    return inventory


def take_refs(storage: RegistryStorage) -> Inventory:
    """An inventory of tags and manifests only: much faster, as few files are looked at."""
    scan = _Scan()
    for repository in repositories(storage):
        _scan_tags(storage, repository, scan)
        _scan_revisions(storage, repository, scan)
    return Inventory(tags=tuple(scan.tags), revisions=tuple(scan.revisions))


def take_references(storage: RegistryStorage) -> frozenset[str]:
    """The blobs that the manifests which are there now need, their own among them. Fast, too."""
    needed: set[str] = set()
    for repository in repositories(storage):
        for _, digest in _digests(_within(storage.repositories / repository, _REVISIONS)):
            needed.add(digest)
            needed.update(each.digest for each in storage.manifest(digest) or ())
    return frozenset(needed)


def youngest_links(storage: RegistryStorage, digests: Container[str]) -> dict[str, datetime]:
    """When each of these blobs was last uploaded to, or mounted into, any repository."""
    youngest: dict[str, datetime] = {}
    for repository in repositories(storage):
        for folder, digest in _digests(_within(storage.repositories / repository, _LAYERS)):
            if digest in digests:
                with suppress(*GONE):
                    changed = modified(state(Path(folder.path, "link")))
                    youngest[digest] = max(changed, youngest.get(digest, changed))
    return youngest


def repositories(storage: RegistryStorage) -> tuple[str, ...]:
    """The names of all repositories, and of folders above them; what has no such name is none."""
    found: list[str] = []
    todo = [""] if storage.holds(storage.repositories) else []
    while todo:
        above = todo.pop()
        for entry in folders(storage.repositories / above):
            name = f"{above}/{entry.name}" if above else entry.name
            if is_repository(name):
                found.append(name)
                todo.append(name)
    return tuple(sorted(found))


def _scan_repository(storage: RegistryStorage, repository: str, scan: _Scan) -> None:
    home = storage.repositories / repository
    _scan_tags(storage, repository, scan)
    _scan_revisions(storage, repository, scan)
    for folder, digest in _digests(_within(home, _LAYERS)):
        scan.used += len(digest)  # of the link: most files are such, and all are that long
        if (link := storage.link(repository, digest)) is None:
            scan.leave(Path(folder.path))
        else:
            scan.links.append(link)
    for upload in _within(home, "_uploads"):
        scan.used += size_of(upload)
        if (changed := last_change(upload)) is not None:
            scan.uploads.append(Leftover(upload.path, changed))
    for part in _STRUCTURE:
        if _is_part(home, part) and not entries(home / part):
            scan.leave(home / part)


def _scan_tags(storage: RegistryStorage, repository: str, scan: _Scan) -> None:
    for folder in _within(storage.repositories / repository, "_manifests/tags"):
        scan.used += size_of(folder)
        if (tag := storage.tag(repository, folder.name)) is None:
            scan.leave(Path(folder.path))
        else:
            scan.tags.append(tag)


def _scan_revisions(storage: RegistryStorage, repository: str, scan: _Scan) -> None:
    for folder, digest in _digests(_within(storage.repositories / repository, _REVISIONS)):
        scan.used += size_of(folder)
        if (revision := storage.revision(repository, digest)) is None:
            scan.leave(Path(folder.path))
        else:
            scan.revisions.append(revision)


def _scan_blobs(storage: RegistryStorage, scan: _Scan) -> None:
    for shard in folders(storage.blobs) if storage.holds(storage.blobs) else ():
        for folder, digest in _digests(folders(shard.path)):
            blob = _blob(folder, digest)
            if blob is not None:
                scan.blobs[digest] = blob
                scan.used += blob.size


def _blob(folder: DirEntry[str], digest: str) -> Blob | None:
    if (found := stat_of(folder)) is None:
        return None
    identity: Identity | None = None
    size, times = 0, []
    for entry in entries(folder):
        if entry.is_dir(follow_symlinks=False):
            size += size_of(entry.path)
        elif (state := stat_of(entry)) is not None:
            size += state.st_size
            times.append(modified(state))
            if entry.name == "data" and entry.is_file(follow_symlinks=False):
                identity = identify(state)
    return Blob(digest, identity, size, max(times, default=modified(found)))


def _digests(found: Iterable[DirEntry[str]]) -> Iterator[tuple[DirEntry[str], str]]:
    for entry in found:
        if is_digest(digest := PREFIX + entry.name):
            yield entry, digest


def _within(home: Path, part: str) -> list[DirEntry[str]]:
    """The folders in a part of a repository."""
    return folders(home / part) if _is_part(home, part) else []


def _is_part(home: Path, part: str) -> bool:
    """Whether it is there and no link on its way leads elsewhere."""
    names = part.split("/")
    return all(is_folder(home.joinpath(*names[:count])) for count in range(1, len(names) + 1))
