"""What is damaged, what that concerns, and what is to be read again to find more of it.

Pure. A suspicion is only that: the files are looked at once more before anything is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from buildpool.sidecars.keeper.inventory import Blob, Fault, Inventory, Key, Revision, Tag, Verdict
from buildpool.sidecars.keeper.retention import CacheRemoval

SCRUB_FROM_SHARE: Final = 0.75
"""Share of the interval at whose end a blob is due: early enough to be done within the interval."""
SCRUB_WITHIN_SHARE: Final = 0.2
"""Share of the interval within which all of them are read if all are due at once."""
MIN_SCRUB_BYTES: Final = 200 * 1000**2
"""Bytes that are read again in a round, at least."""


def suspects(inventory: Inventory) -> tuple[Key, ...]:
    """Manifests that seem to lack something, as far as can be told without reading blobs."""
    revisions = {revision.key for revision in inventory.revisions}
    links = {link.key for link in inventory.links if link.is_sound}

    def is_whole(revision: Revision) -> bool:
        if revision.refers is None:
            return False
        for each in revision.refers:
            blob = inventory.blobs.get(each.digest)
            known = revisions if each.is_manifest else links
            if Key(revision.repository, each.digest) not in known:
                return False
            if blob is None or blob.identity is None or blob.identity.size != each.size:
                return False
        return True

    return tuple(each.key for each in inventory.revisions if not is_whole(each))


def affected(inventory: Inventory, faults: Iterable[Fault]) -> CacheRemoval:
    """All that must not be handed out because of these faults, and every unreadable tag."""
    everywhere = {fault.digest: fault.what for fault in faults if fault.repository is None}
    somewhere = {
        (fault.repository, fault.digest): fault.what
        for fault in faults
        if fault.repository is not None
    }
    revisions = {revision.key: revision for revision in inventory.revisions}
    parents: dict[Key, list[Key]] = {}
    for revision in inventory.revisions:
        for each in revision.refers or ():
            parents.setdefault(Key(revision.repository, each.digest), []).append(revision.key)
    broken: dict[Key, str] = {}
    found = [
        (key, what)
        for key in revisions.keys() | parents.keys()
        if (what := somewhere.get(key) or everywhere.get(key.digest))
    ]
    while found:
        key, what = found.pop()
        if key not in broken:
            broken[key] = what
            found.extend((parent, what) for parent in parents.get(key, ()))
    return CacheRemoval(
        tags=tuple(
            (tag, "its link is unreadable" if tag.digest is None else what)
            for tag in inventory.tags
            if (what := _why(tag, broken)) is not None
        ),
        revisions=tuple((revisions[key], broken[key]) for key in sorted(broken.keys() & revisions)),
    )


def _why(tag: Tag, broken: Mapping[Key, str]) -> str | None:
    return "" if tag.digest is None else broken.get(Key(tag.repository, tag.digest))


def due_for_scrub(
    blobs: Mapping[str, Blob],
    verdicts: Mapping[str, Verdict],
    now: datetime,
    passed: timedelta,
    interval: timedelta,
) -> tuple[str, ...]:
    """The blobs to be read again in this round: those never read first, then the oldest verdicts.

    As many as it takes to read each within ``interval``, ``passed`` having passed since the last
    round, however long that took; and one at least.
    """
    share = passed / (interval * SCRUB_WITHIN_SHARE)
    budget = max(MIN_SCRUB_BYTES, int(share * sum(blob.size for blob in blobs.values())))
    never = now - 2 * interval
    read = {name: verdicts[name].at if name in verdicts else never for name in blobs}
    chosen = []
    for digest in sorted(blobs, key=lambda digest: (read[digest], digest)):
        if budget <= 0 or read[digest] > now - SCRUB_FROM_SHARE * interval:
            break
        budget -= blobs[digest].size
        chosen.append(digest)
    return tuple(chosen)
