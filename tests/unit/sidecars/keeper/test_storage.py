"""Storage and inventories, on real files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buildpool.sidecars.keeper import files
from buildpool.sidecars.keeper.inventory import Key
from buildpool.sidecars.keeper.scanning import (
    repositories,
    take_inventory,
    take_refs,
    youngest_links,
)
from unit.sidecars.kept import failing
from unit.sidecars.stored import (
    DAY,
    HOUR,
    MANIFEST,
    NOW,
    Stored,
    an_image_manifest,
    an_index,
    descriptor,
    digest_of,
    put,
)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def test_an_empty_volume_has_an_empty_inventory(stored: Stored) -> None:
    inventory = take_inventory(stored.storage)
    assert (inventory.tags, inventory.revisions, inventory.links) == ((), (), ())
    assert not inventory.blobs
    assert inventory.used == 0


def test_an_inventory_tells_all_there_is(stored: Stored) -> None:
    digest = stored.cache("caches/app:main", [b"layer"], age=3 * HOUR)
    inventory = take_inventory(stored.storage)
    (tag,), (revision,) = inventory.tags, inventory.revisions
    assert (tag.ref, tag.digest, tag.used) == ("caches/app:main", digest, NOW - 3 * HOUR)
    assert (revision.key, revision.used) == (Key("caches/app", digest), NOW - 3 * HOUR)
    assert revision.refers is not None
    blobs = {digest, *(each.digest for each in revision.refers)}
    assert set(inventory.blobs) == blobs
    assert {link.digest for link in inventory.links} == blobs - {digest}
    assert inventory.used == stored.size()


def test_uploads_count_as_used_and_are_nothing_else(stored: Stored) -> None:
    upload = stored.storage.repositories / "caches/app/_uploads/1234/data"
    put(upload, b"x" * 1000)
    inventory = take_inventory(stored.storage)
    assert inventory.used == 1000
    assert all("_uploads" not in leftover.path for leftover in inventory.leftovers)
    (found,) = inventory.uploads
    put(upload, b"x" * 1001, -HOUR)
    assert stored.storage.remove_upload(found) == 0, "more has come"
    (found,) = take_inventory(stored.storage).uploads
    assert stored.storage.remove_upload(found) == 1001
    assert not upload.parent.exists()


def test_repositories_can_lie_within_each_other(stored: Stored) -> None:
    stored.cache("a:1")
    stored.cache("a/b/c:1")
    assert repositories(stored.storage) == ("a", "a/b", "a/b/c")
    assert {tag.ref for tag in take_refs(stored.storage).tags} == {"a:1", "a/b/c:1"}


DAMAGE: dict[str, Callable[[Stored, str], object]] = {
    "the link of the manifest is empty": lambda stored, digest: put(
        stored.storage.revision_folder("caches/app", digest) / "link", b""
    ),
    "the link of the manifest leads elsewhere": lambda stored, digest: put(
        stored.storage.revision_folder("caches/app", digest) / "link", digest_of(b"").encode()
    ),
    "the manifest is empty": lambda stored, digest: put(stored.storage.data(digest), b""),
    "the manifest is garbage": lambda stored, digest: put(stored.storage.data(digest), b"\xff{"),
    "the manifest is another one": lambda stored, digest: put(
        stored.storage.data(digest), an_image_manifest([b"other"])
    ),
    "the manifest is gone": lambda stored, digest: stored.storage.remove_blob(digest),
    "the manifest is a folder": lambda stored, digest: (
        stored.storage.data(digest).unlink(),
        stored.storage.data(digest).mkdir(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_manifest_refers_to_nothing(
    stored: Stored, damage: Callable[[Stored, str], object]
) -> None:
    digest = stored.cache("caches/app:main")
    storage = stored.storage
    assert take_inventory(storage).revisions[0].refers is not None
    damage(stored, digest)
    assert take_inventory(storage).revisions[0].refers is None


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 71, b"x" * 10_000])
def test_an_unreadable_tag_is_known_as_such(stored: Stored, content: bytes) -> None:
    stored.cache("caches/app:main")
    put(stored.storage.tag_folder("caches/app", "main") / "current/link", content)
    (tag,) = take_inventory(stored.storage).tags
    assert tag.digest is None


def test_a_manifest_that_is_too_large_is_none(stored: Stored) -> None:
    content = an_image_manifest([]) + b" " * 4 * 1024**2
    stored.manifest(content, "caches/app")
    assert take_inventory(stored.storage).revisions[0].refers is None


def test_files_that_were_being_written_are_counted_and_nothing_else(stored: Stored) -> None:
    digest = stored.cache("caches/app:main")
    put(stored.storage.data(digest).with_name("data.1234.tmp"), b"half")
    put(stored.storage.tag_folder("caches/app", "main") / "current/link.1234.tmp", b"half")
    inventory = take_inventory(stored.storage)
    assert inventory.used == stored.size()
    assert len(inventory.tags) == 1
    identity = inventory.blobs[digest].identity
    assert identity is not None
    assert inventory.blobs[digest].size == identity.size + 4


def test_a_use_is_recorded_in_the_link(stored: Stored) -> None:
    digest = stored.cache("caches/app:main", age=DAY)
    storage = stored.storage
    tag, revision = storage.tag("caches/app", "main"), storage.revision("caches/app", digest)
    assert tag is not None
    assert revision is not None
    storage.touch(tag, NOW)
    storage.touch(revision, NOW)
    inventory = take_inventory(Stored(stored.root).storage)
    assert [inventory.tags[0].used, inventory.revisions[0].used] == [NOW, NOW]


def test_to_touch_what_is_gone_is_no_error(stored: Stored) -> None:
    stored.cache("caches/app:main")
    storage = stored.storage
    tag = storage.tag("caches/app", "main")
    assert tag is not None
    storage.remove_tag(tag)
    storage.touch(tag, NOW)
    assert stored.tags() == set()


def test_a_tag_that_was_used_meanwhile_stays(stored: Stored) -> None:
    stored.cache("caches/app:main")
    storage = stored.storage
    (tag,) = take_inventory(storage).tags
    storage.touch(tag, NOW)
    assert storage.remove_tag(tag) is None
    assert stored.tags() == {"caches/app:main"}


def test_a_tag_that_moved_meanwhile_stays(stored: Stored) -> None:
    stored.cache("caches/app:main", [b"old"])
    storage = stored.storage
    (tag,) = take_inventory(storage).tags
    stored.cache("caches/app:main", [b"new"])
    assert storage.remove_tag(tag) is None


def test_a_manifest_that_was_used_meanwhile_stays(stored: Stored) -> None:
    digest = stored.cache("caches/app:main")
    storage = stored.storage
    (revision,) = take_inventory(storage).revisions
    storage.touch(revision, NOW)
    assert storage.remove_revision(revision) is None
    assert stored.revisions() == {("caches/app", digest)}


def test_nothing_is_left_of_a_removed_manifest_but_its_blobs(stored: Stored) -> None:
    digest = stored.cache("caches/app:main", [b"old"])
    stored.cache("caches/app:main", [b"new"])
    storage, before = stored.storage, stored.size()
    revision = storage.revision("caches/app", digest)
    assert revision is not None
    assert storage.remove_revision(revision) == before - stored.size() == 2 * len(digest)
    index = storage.tag_folder("caches/app", "main") / "index/sha256"
    assert len(list(index.iterdir())) == 1
    assert stored.has(digest)


def test_the_youngest_link_of_all_repositories_tells_when_a_blob_was_uploaded(
    stored: Stored,
) -> None:
    digest = stored.blob(b"layer", "caches/app", age=DAY)
    other = stored.blob(b"other", "caches/app", age=HOUR)
    assert youngest_links(stored.storage, {digest}) == {digest: NOW - DAY}
    put(stored.storage.link_folder("caches/other", digest) / "link", digest.encode())
    assert youngest_links(stored.storage, {digest, other}) == {digest: NOW, other: NOW - HOUR}


def test_a_tag_folder_without_a_link_is_a_leftover(stored: Stored) -> None:
    stored.cache("caches/app:main")
    storage = stored.storage
    (storage.tag_folder("caches/app", "main") / "current/link").unlink()
    (leftover,) = take_inventory(storage).leftovers
    assert storage.remove_leftover(leftover) == 71
    assert not storage.tag_folder("caches/app", "main").exists()


def test_a_leftover_that_got_its_link_stays(stored: Stored) -> None:
    stored.cache("caches/app:main")
    storage = stored.storage
    folder = storage.tag_folder("caches/app", "main")
    link, times = folder / "current/link", folder.stat()
    content = link.read_bytes()
    link.unlink()
    (leftover,) = take_inventory(storage).leftovers
    link.write_bytes(content)
    assert folder.stat().st_mtime_ns == times.st_mtime_ns, "the folder itself tells nothing"
    assert storage.remove_leftover(leftover) == 0
    assert stored.tags() == {"caches/app:main"}


def test_files_that_vanish_while_an_inventory_is_taken_are_no_error(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.cache("caches/app:main")
    listed = files.entries

    def then_gone(folder: os.PathLike[str] | str) -> list[os.DirEntry[str]]:
        found = listed(folder)
        for entry in found:
            if entry.is_file():
                Path(entry.path).unlink()
        return found

    monkeypatch.setattr("buildpool.sidecars.keeper.scanning.entries", then_gone)
    monkeypatch.setattr("buildpool.sidecars.keeper.files.entries", then_gone)
    inventory = take_inventory(stored.storage)
    assert inventory.tags == ()
    assert all(blob.identity is None for blob in inventory.blobs.values())


def test_scarce_file_handles_are_not_taken_for_damage(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.cache("caches/app:main")
    failing(monkeypatch, lambda _: True, errno.EMFILE)
    with pytest.raises(OSError, match="too many"):
        take_inventory(stored.storage)


def test_what_the_disk_cannot_read_seems_damaged_and_is_in_doubt(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.cache("caches/app:main")
    storage = stored.storage
    with monkeypatch.context() as patch:
        failing(patch, lambda _: True)
        inventory = take_inventory(storage)
        assert inventory.tags[0].digest is None
        assert inventory.revisions[0].refers is None
        assert storage.doubts.is_any()
    inventory = take_inventory(storage)
    assert inventory.tags[0].digest is not None
    assert not storage.doubts.is_any()


def test_the_manifests_of_an_index_are_told_apart_from_its_blobs(stored: Stored) -> None:
    child = an_image_manifest([b"layer"])
    stored.manifest(child, "caches/app")
    digest = stored.manifest(
        an_index(descriptor(child, MANIFEST), descriptor(b"layer")), "caches/app", "main"
    )
    revision = stored.storage.revision("caches/app", digest)
    assert revision is not None
    assert revision.refers is not None
    assert [each.is_manifest for each in revision.refers] == [True, False]


def test_the_disk_has_its_figures(stored: Stored) -> None:
    disk = stored.storage.disk()
    assert 0 < disk.free <= disk.total
