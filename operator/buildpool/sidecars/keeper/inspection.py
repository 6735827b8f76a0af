"""Looks at one manifest and all it refers to, and reads blobs to see whether they are sound.

A blob is read once; then its verdict stands for a while, as long as the file is the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool.sidecars.keeper.files import UnreadableError
from buildpool.sidecars.keeper.inventory import Descriptor, Fault, Identity, Verdict
from buildpool.sidecars.keeper.storage import RegistryStorage
from buildpool.sidecars.names import is_digest

MAX_READERS: Final = 4
"""Blobs that are read at once. They have threads of their own: nothing else waits for them."""
READ_AGAIN: Final = timedelta(seconds=2)
"""Pause after a read that failed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a manifest without reading its blobs."""

    digest: str | None
    """None: there is no such manifest, unless there are faults."""
    parts: Mapping[str, Identity]
    """Data to be read, by digest."""
    manifests: frozenset[str] = frozenset()
    """The manifest itself and all below it."""
    faults: tuple[Fault, ...] = ()


def look(
    storage: RegistryStorage, repository: str, reference: str, *, used: datetime | None
) -> Look:
    """Looks at the manifest behind a tag or digest, and records this as its use if ``used``."""
    tag = None if is_digest(reference) else storage.tag(repository, reference)
    digest = tag.digest if tag else reference
    if digest is None:
        what = f"the link of {repository}:{reference} is unreadable"
        return Look(None, {}, faults=(Fault(None, what, repository),))
    if not is_digest(digest) or storage.revision(repository, digest) is None:
        return Look(None, {})
    if tag is not None and used is not None:
        storage.touch(tag, used)
    walk = _Walk(storage, repository, used)
    todo, seen = [digest], {digest}
    while todo:  # and no recursion: anyone who may push can nest as deep as they like
        below = [each for each in walk.open(todo.pop()) if each not in seen]
        todo.extend(below)
        seen.update(below)
    return Look(digest, walk.parts, frozenset(seen), tuple(walk.faults))


class _Walk:
    """Through a manifest and those below it."""

    def __init__(self, storage: RegistryStorage, repository: str, used: datetime | None) -> None:
        self.parts: dict[str, Identity] = {}
        self.faults: list[Fault] = []
        self._storage = storage
        self._repository = repository
        self._used = used

    def open(self, digest: str) -> list[str]:
        """Looks at one manifest and returns those right below it."""
        revision = self._storage.revision(self._repository, digest)
        if revision is None:
            self._fault_here(digest, f"manifest {digest} is missing in {self._repository}")
            return []
        if self._used is not None:
            self._storage.touch(revision, self._used)
        identity = self._storage.identity(digest)
        refers = self._storage.manifest(digest, fresh=True)
        if refers is None:
            state = "missing" if identity is None else "damaged"
            self.faults.append(Fault(digest, f"manifest {digest} is {state}", None, identity))
            return []
        if revision.refers is None:
            self._fault_here(digest, f"the link of manifest {digest} is damaged")
        return [each.digest for each in refers if self._stat(each) and each.is_manifest]

    def _stat(self, wanted: Descriptor) -> bool:
        digest = wanted.digest
        found = self._storage.identity(digest)
        if found is None or found.size != wanted.size:
            state = f"has {found.size} of {wanted.size} bytes" if found else "is missing"
            self.faults.append(Fault(digest, f"blob {digest} {state}", None, found))
            return False
        if not wanted.is_manifest:
            link = self._storage.link(self._repository, digest, fresh=True)
            if link is None or not link.is_sound:
                state = "damaged" if link else "missing"
                self._fault_here(digest, f"the link of blob {digest} is {state}")
            self.parts[digest] = found
        return True

    def _fault_here(self, digest: str, what: str) -> None:
        self.faults.append(Fault(digest, what, self._repository))


class BlobInspector:
    """Reads blobs, and remembers which ones were sound."""

    def __init__(
        self,
        storage: RegistryStorage,
        clock: Callable[[], datetime],
        lifetime: timedelta | None,
        known: Mapping[str, Verdict],
    ) -> None:
        """``lifetime`` of a verdict; None: it ends with the file. ``known`` from earlier on."""
        self._storage = storage
        self._clock = clock
        self._lifetime = lifetime
        self._verdicts = dict(known)
        self._reading: dict[str, asyncio.Task[Fault | None]] = {}
        self._threads = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="reader")

    async def faults(self, parts: Mapping[str, Identity]) -> tuple[Fault, ...]:
        """What is wrong with these, as far as it was not known to be right already."""
        unread = [
            digest for digest, identity in parts.items() if not self._stands(digest, identity)
        ]
        found = await asyncio.gather(*(self.read(digest) for digest in unread))
        return tuple(fault for fault in found if fault is not None)

    async def read(self, digest: str) -> Fault | None:
        """Reads a blob now, and tells what is wrong with it.

        Anyone who asks while it is being read waits for the same result.
        """
        task = self._reading.get(digest)
        if task is None:
            task = asyncio.create_task(self._read(digest))
            self._reading[digest] = task
            task.add_done_callback(lambda _: self._reading.pop(digest))
        return await asyncio.shield(task)

    def verdicts(self, identities: Mapping[str, Identity | None]) -> Mapping[str, Verdict]:
        """Those of these blobs that stand, as far as it is the same file still; drops the others.

        One from the future stands for nothing: a clock was ahead when it was given.
        """
        now = self._clock()
        self._verdicts = {
            digest: verdict
            for digest, verdict in self._verdicts.items()
            if verdict.identity == identities.get(digest) and verdict.at <= now
        }
        return self._verdicts

    def known(self) -> Mapping[str, Verdict]:
        """All verdicts there are at this moment."""
        return dict(self._verdicts)

    def close(self) -> None:
        """Begins nothing more; what is being read is read to its end in vain."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _stands(self, digest: str, identity: Identity) -> bool:
        verdict = self._verdicts.get(digest)
        if verdict is None or verdict.identity != identity:
            return False
        age = self._clock() - verdict.at
        return timedelta(0) <= age and (self._lifetime is None or age < self._lifetime)

    async def _read(self, digest: str) -> Fault | None:
        loop = asyncio.get_running_loop()
        try:
            try:
                found = await loop.run_in_executor(self._threads, self._storage.digest, digest)
            except UnreadableError:
                await asyncio.sleep(READ_AGAIN.total_seconds())
                found = await loop.run_in_executor(self._threads, self._storage.digest, digest)
        except UnreadableError:
            identity = await asyncio.to_thread(self._storage.identity, digest)
            return Fault(digest, f"blob {digest} cannot be read", None, identity)
        if found is None:
            return Fault(digest, f"blob {digest} is missing")
        identity, content = found
        if content != digest:
            self._verdicts.pop(digest, None)
            what = f"blob {digest} has other content than its digest says"
            return Fault(digest, what, None, identity)
        self._verdicts[digest] = Verdict(identity, self._clock())
        return None
