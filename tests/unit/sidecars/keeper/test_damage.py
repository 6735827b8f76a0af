from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from buildpool.sidecars.keeper.damage import MIN_SCRUB_BYTES, affected, due_for_scrub, suspects
from buildpool.sidecars.keeper.inventory import Blob, Fault, Identity, Inventory, Key, Verdict
from buildpool.sidecars.keeper.scanning import take_inventory
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

MINUTE = timedelta(minutes=1)
LAYER = digest_of(b"one")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def names(inventory: Inventory, *faults: Fault) -> tuple[set[str], set[Key]]:
    found = affected(inventory, faults)
    return {tag.ref for tag, _ in found.tags}, {revision.key for revision, _ in found.revisions}


def test_a_whole_cache_is_not_suspicious(stored: Stored) -> None:
    stored.cache()
    assert suspects(take_inventory(stored.storage)) == ()


def test_a_cache_that_lacks_something_is_suspicious(stored: Stored) -> None:
    digest = stored.cache("app:main")
    whole = take_inventory(stored.storage)
    revision = whole.revisions[0]
    blobs = {name: blob for name, blob in whole.blobs.items() if name != LAYER}
    lacking = {
        "blob": replace(whole, blobs=blobs),
        "data": replace(whole, blobs={**blobs, LAYER: Blob(LAYER, None, 0, NOW)}),
        "bytes": replace(whole, blobs={**blobs, LAYER: Blob(LAYER, Identity(1, 2, 3), 2, NOW)}),
        "link": replace(whole, links=tuple(link for link in whole.links if link.digest != LAYER)),
        "sound link": replace(
            whole, links=tuple(replace(link, is_sound=False) for link in whole.links)
        ),
        "readable manifest": replace(whole, revisions=(replace(revision, refers=None),)),
    }
    assert {what: suspects(inventory) for what, inventory in lacking.items()} == dict.fromkeys(
        lacking, (Key("app", digest),)
    )


def test_an_index_that_lacks_a_manifest_is_suspicious(stored: Stored) -> None:
    child = an_image_manifest([b"one"])
    stored.blob(child, "app")
    digest = stored.manifest(an_index(descriptor(child, MANIFEST)), "app", "main")
    assert suspects(take_inventory(stored.storage)) == (Key("app", digest),)


def test_a_damaged_blob_concerns_all_repositories(stored: Stored) -> None:
    first = stored.cache("a:main", [b"one"])
    second = stored.cache("b/c:main", [b"one", b"more"])
    stored.cache("d:main", [b"other"])
    inventory = take_inventory(stored.storage)
    assert names(inventory, Fault(LAYER, "is short")) == (
        {"a:main", "b/c:main"},
        {Key("a", first), Key("b/c", second)},
    )


def test_a_damaged_link_concerns_its_repository(stored: Stored) -> None:
    first = stored.cache("a:main", [b"one"])
    stored.cache("b:main", [b"one"])
    inventory = take_inventory(stored.storage)
    assert names(inventory, Fault(LAYER, "no link", "a")) == ({"a:main"}, {Key("a", first)})


def test_a_manifest_without_a_tag_is_concerned_too(stored: Stored) -> None:
    digest = stored.cache("a", [b"one"])
    inventory = take_inventory(stored.storage)
    assert names(inventory, Fault(LAYER, "is short")) == (set(), {Key("a", digest)})


def test_what_lists_a_damaged_manifest_is_concerned_and_its_sisters_are_not(
    stored: Stored,
) -> None:
    good, bad = an_image_manifest([b"two"]), an_image_manifest([b"one"])
    stored.manifest(good, "a")
    index = an_index(descriptor(good, MANIFEST), descriptor(bad, MANIFEST))
    expected = {
        Key("a", stored.manifest(bad, "a")),
        Key("a", stored.manifest(index, "a", "index")),
        Key("a", stored.manifest(an_index(descriptor(index, MANIFEST)), "a", "outer")),
    }
    inventory = take_inventory(stored.storage)
    assert names(inventory, Fault(LAYER, "is short")) == ({"a:index", "a:outer"}, expected)


def test_unreadable_tags_are_always_concerned(stored: Stored) -> None:
    stored.cache("a:main")
    put(stored.storage.tag_folder("a", "main") / "current/link", b"")
    assert names(take_inventory(stored.storage)) == ({"a:main"}, set())


def blobs(count: int, size: int) -> dict[str, Blob]:
    made = [digest_of(str(number).encode()) for number in range(count)]
    return {name: Blob(name, Identity(1, size, 1), size, NOW) for name in made}


def read_at(found: dict[str, Blob], *ages: timedelta) -> dict[str, Verdict]:
    identities = [(name, blob.identity) for name, blob in found.items() if blob.identity]
    return {
        name: Verdict(identity, NOW - age)
        for (name, identity), age in zip(identities, ages, strict=False)
    }


def test_what_was_never_read_is_read_first_and_then_the_oldest() -> None:
    found = blobs(4, MIN_SCRUB_BYTES // 4)
    first, second, _, unread = found
    verdicts = read_at(found, 20 * HOUR, 22 * HOUR, HOUR)
    assert due_for_scrub(found, verdicts, NOW, MINUTE, DAY) == (unread, second, first)


def test_no_more_is_read_in_a_round_than_its_share() -> None:
    assert len(due_for_scrub(blobs(10, MIN_SCRUB_BYTES // 4), {}, NOW, MINUTE, DAY)) == 4


def test_a_blob_that_exceeds_the_share_is_read_all_the_same() -> None:
    assert len(due_for_scrub(blobs(3, 10 * MIN_SCRUB_BYTES), {}, NOW, MINUTE, DAY)) == 1


def test_nothing_is_due_when_all_was_read_today() -> None:
    found = blobs(3, 1)
    assert due_for_scrub(found, read_at(found, *3 * [17 * HOUR]), NOW, DAY, DAY) == ()


@pytest.mark.parametrize("interval", [DAY, 7 * DAY])
@pytest.mark.parametrize("scans", [timedelta(seconds=2), timedelta(seconds=15), 4 * MINUTE])
def test_each_blob_is_read_within_the_interval_however_long_a_round_takes(
    scans: timedelta, interval: timedelta
) -> None:
    # 500 GB, read at 100 MB/s, and a pause of a minute after each round.
    found = blobs(50, 10 * 1000**3)
    now, passed = NOW, MINUTE
    verdicts: dict[str, Verdict] = {}
    oldest = timedelta(0)
    while now < NOW + 3 * interval:
        due = due_for_scrub(found, verdicts, now, passed, interval)
        reading = timedelta(seconds=100) * len(due)
        passed = MINUTE + scans + reading
        now += passed
        for name in due:
            oldest = max(oldest, now - verdicts[name].at if name in verdicts else oldest)
            verdicts[name] = Verdict(Identity(1, 1, 1), now)
    assert len(verdicts) == 50, "each was read at all"
    assert max(oldest, *(now - verdict.at for verdict in verdicts.values())) <= interval
