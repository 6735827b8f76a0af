"""A registry's storage on disk, thing by thing: read, touched, and taken away from.

The registry keeps running beside it and locks nothing, so files come and go at any time. This never
writes a file, never removes an upload that is under way, and decides nothing: what it is told to
remove goes, unless it is no longer what the teller saw.

A file that the volume fails to read seems to be damaged, and is noted in ``doubts``. Nothing must
be removed because of what was seen while there are any.

The last use of a manifest is the time of its link, which is set anew whenever the manifest is
about to be handed out. That outlives a restart and needs no space on a full disk.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from buildpool.sidecars.keeper.doubts import Doubts
from buildpool.sidecars.keeper.files import (
    GONE,
    UnreadableError,
    digest_file,
    digest_of,
    discard,
    folders,
    identify,
    identity_of,
    last_change,
    modified,
    read,
    state,
    unlink,
)
from buildpool.sidecars.keeper.inventory import (
    Descriptor,
    Identity,
    Inventory,
    Key,
    Leftover,
    Link,
    Revision,
    Tag,
    references,
)
from buildpool.sidecars.names import hex_of, is_digest

MAX_MANIFEST_BYTES: Final = 4 * 1024**2
"""Bytes; the registry takes no larger manifest, so a larger file is none."""
_MAX_LINK_BYTES: Final = 256


class Disk(NamedTuple):
    """The file system that the storage is on. In bytes."""

    total: int
    free: int
    """For us. Scarce inodes count like scarce bytes: either way nothing can be written."""


class RegistryStorage:
    """The storage below the root directory of the registry's filesystem driver."""

    def __init__(self, root: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` tells seconds, and never jumps."""
        self.root: Final = root
        """What the registry calls its root directory."""
        self.doubts: Final = Doubts(monotonic)
        """What could not be read."""
        self.repositories: Final = root / "docker/registry/v2/repositories"
        """The folder of all repositories."""
        self.blobs: Final = root / "docker/registry/v2/blobs/sha256"
        """The folder of all blobs, by their first two digits."""
        self._real = Path(os.path.realpath(root))
        self._manifests: dict[str, tuple[Identity, tuple[Descriptor, ...]]] = {}
        self._links: dict[Key, Identity] = {}

    def holds(self, path: Path) -> bool:
        """Whether a path below the root is there and leads nowhere else: a link in it might."""
        try:
            real = os.path.realpath(path, strict=True)
        except OSError as error:
            if isinstance(error, GONE) or error.errno == errno.ELOOP:
                return False
            raise
        return Path(real) == self._real / path.relative_to(self.root)

    def disk(self) -> Disk:
        """How much room the file system has."""
        found = os.statvfs(self.root)
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        if found.f_files:
            free = min(free, total * found.f_favail // found.f_files)
        return Disk(total, free)

    def tag(self, repository: str, name: str) -> Tag | None:
        """A tag as it is now; None if there is none."""
        try:
            digest, used = self._read_link(self.tag_folder(repository, name) / "current")
        except GONE:
            return None
        return Tag(repository, name, digest, used)

    def revision(self, repository: str, digest: str) -> Revision | None:
        """A manifest that a repository has, as it is now; None if it has none such."""
        try:
            target, used = self._read_link(self.revision_folder(repository, digest))
        except GONE:
            return None
        refers = self.manifest(digest) if target == digest else None
        return Revision(repository, digest, used, refers)

    def link(self, repository: str, digest: str, *, fresh: bool = False) -> Link | None:
        """A repository's right to a blob, as it is now; None if it has none.

        ``fresh``: it is read even if its file seems to be the one that was read before.
        """
        file, key = self.link_folder(repository, digest) / "link", Key(repository, digest)
        try:
            found = state(file)
            identity = identify(found)
            if fresh or self._links.get(key) != identity:
                self._links.pop(key, None)
                if self._read(file, _MAX_LINK_BYTES) == digest.encode():
                    self._links[key] = identity
        except GONE:
            return None
        return Link(repository, digest, key in self._links, modified(found))

    def manifest(self, digest: str, *, fresh: bool = False) -> tuple[Descriptor, ...] | None:
        """What a manifest refers to; None if it is missing or damaged.

        ``fresh``: it is read even if its file seems to be the one that was read before.
        """
        identity = self.identity(digest)
        known = self._manifests.get(digest)
        if known and known[0] == identity and not fresh:
            return known[1]
        try:
            content = self._read(self.data(digest), MAX_MANIFEST_BYTES)
        except GONE:
            return None
        refers = references(content) if digest_of(content) == digest else None
        if identity and refers is not None:
            self._manifests[digest] = identity, refers
        return refers

    def remember_only(self, inventory: Inventory) -> None:
        """Drops what is remembered of all manifests and links that are gone."""
        for digest in self._manifests.keys() - {each.digest for each in inventory.revisions}:
            self._manifests.pop(digest, None)
        for key in self._links.keys() - {link.key for link in inventory.links}:
            self._links.pop(key, None)

    def identity(self, digest: str) -> Identity | None:
        """What a blob's data is known by; None if there is none."""
        return identity_of(self.data(digest))

    def digest(self, digest: str) -> tuple[Identity, str] | None:
        """Reads a blob's data: what was read, and its true digest; None if there is none.

        Raises UnreadableError if reading failed.
        """
        file = self.data(digest)
        try:
            found = digest_file(file)
        except UnreadableError:
            self.doubts.note(file)
            raise
        self.doubts.clear(file)
        return found

    def touch(self, thing: Tag | Revision | Link, now: datetime) -> None:
        """Records a use."""
        match thing:
            case Tag():
                folder = self.tag_folder(thing.repository, thing.name) / "current"
            case Revision():
                folder = self.revision_folder(*thing.key)
            case Link():
                folder = self.link_folder(*thing.key)
        with suppress(*GONE):
            state(folder / "link")
            os.utime(folder / "link", (now.timestamp(), now.timestamp()), follow_symlinks=False)

    def remove_tag(self, tag: Tag) -> int | None:
        """Bytes that this freed; None if it is no longer that tag, and stays."""
        if self.tag(tag.repository, tag.name) != tag:
            return None
        folder = self.tag_folder(tag.repository, tag.name)
        freed = unlink(folder / "current/link")  # first: with it the tag is gone
        return freed + discard(folder)

    def remove_revision(self, revision: Revision) -> int | None:
        """Bytes that this freed; None if it is no longer that revision, and stays."""
        if self.revision(*revision.key) != revision:
            return None
        freed = discard(self.revision_folder(*revision.key))
        tags = self.repositories / revision.repository / "_manifests/tags"
        for tag in folders(tags) if self.holds(tags) else ():
            freed += discard(Path(tag.path, "index/sha256", hex_of(revision.digest)))
        return freed

    def remove_blob(self, digest: str) -> int:
        """Bytes that this freed. Manifests that refer to it must be gone before."""
        return discard(self.data(digest).parent)

    def remove_link(self, repository: str, digest: str) -> int:
        """Bytes that this freed."""
        return discard(self.link_folder(repository, digest))

    def remove_leftover(self, leftover: Leftover) -> int:
        """Bytes that this freed: none if something happened in the folder meanwhile."""
        folder = Path(leftover.path)
        if any((folder / link).exists() for link in ("link", "current/link")):
            return 0
        try:
            is_same = modified(state(folder)) == leftover.changed
        except GONE:
            return 0
        return discard(folder) if is_same else 0

    def remove_upload(self, upload: Leftover) -> int:
        """Bytes that this freed: none if something has come in meanwhile."""
        folder = Path(upload.path)
        return discard(folder) if last_change(folder) == upload.changed else 0

    def data(self, digest: str) -> Path:
        """The file of a blob's data."""
        name = hex_of(digest)
        return self.blobs / f"{name[:2]}/{name}/data"

    def tag_folder(self, repository: str, name: str) -> Path:
        """Where a tag is."""
        return self.repositories / f"{repository}/_manifests/tags/{name}"

    def revision_folder(self, repository: str, digest: str) -> Path:
        """Where a repository's link to a manifest is."""
        return self.repositories / f"{repository}/_manifests/revisions/sha256/{hex_of(digest)}"

    def link_folder(self, repository: str, digest: str) -> Path:
        """Where a repository's link to a blob is."""
        return self.repositories / f"{repository}/_layers/sha256/{hex_of(digest)}"

    def _read_link(self, folder: Path) -> tuple[str | None, datetime]:
        file = folder / "link"
        content = self._read(file, _MAX_LINK_BYTES).decode("ascii", "replace")
        return content if is_digest(content) else None, modified(state(file))

    def _read(self, file: Path, limit: int) -> bytes:
        try:
            content = read(file, limit)
        except UnreadableError:
            self.doubts.note(file)
            return b""
        except GONE:
            self.doubts.clear(file)
            raise
        self.doubts.clear(file)
        return content
