"""What is vouched for, on real files; only the time is said."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from buildpool.sidecars.keeper import damage, files
from buildpool.sidecars.keeper.inspection import MAX_READERS
from buildpool.sidecars.keeper.inventory import Identity
from buildpool.sidecars.keeper.upkeep import State
from unit.sidecars.kept import MINUTE, Kept
from unit.sidecars.stored import (
    DAY,
    HOUR,
    LAYER,
    MANIFEST,
    an_index,
    descriptor,
    digest_of,
)


async def test_a_whole_cache_is_vouched_for_by_tag_and_by_digest(kept: Kept) -> None:
    digest = kept.cache("caches/app:main")
    assert await kept.check("main") == digest
    assert await kept.check(digest) == digest


async def test_an_index_of_layers_is_vouched_for(kept: Kept) -> None:
    for content in (b"one", b"config"):
        kept.blob(content, "caches/app")
    index = an_index(descriptor(b"one", LAYER), descriptor(b"config"))
    digest = kept.manifest(index, "caches/app", "main")
    assert await kept.check() == digest


async def test_an_index_of_manifests_is_followed(kept: Kept) -> None:
    child = kept.cache("caches/app")
    content = kept.storage.data(child).read_bytes()
    digest = kept.manifest(an_index(descriptor(content, MANIFEST)), "caches/app", "main")
    assert await kept.check() == digest
    kept.spoil(b"one")
    assert await kept.check() is None
    assert kept.revisions() == set()


@pytest.mark.parametrize("reference", ["other", digest_of(b"other")])
async def test_what_is_not_there_is_absent(kept: Kept, reference: str) -> None:
    kept.cache("caches/app:main")
    assert await kept.check(reference) is None
    assert kept.why == ""
    assert kept.tags() == {"caches/app:main"}


async def test_a_manifest_of_another_repository_is_absent(kept: Kept) -> None:
    digest = kept.cache("caches/app:main")
    assert await kept.check(digest, "caches/other") is None
    assert kept.why == ""


async def test_a_blob_is_read_once_and_again_when_it_changed_or_a_day_passed(kept: Kept) -> None:
    kept.cache("caches/app:main", [b"one"], age=HOUR)
    await kept.check()
    assert len(kept.read) == 2, "the layer and the config"
    await kept.check()
    assert len(kept.read) == 2
    kept.storage.data(digest_of(b"one")).touch()
    await kept.check()
    assert kept.read[2:] == [digest_of(b"one").removeprefix("sha256:")]
    kept.now += DAY
    await kept.check()
    assert len(kept.read) == 5


async def test_a_blob_that_two_ask_for_at_once_is_read_once_for_both(kept: Kept) -> None:
    digest = kept.blob(b"one")
    inspector = kept.upkeep._inspector
    found = await asyncio.gather(inspector.read(digest), inspector.read(digest))
    assert found == [None, None]
    assert len(kept.read) == 1


async def test_a_check_does_not_wait_for_the_blobs_of_another(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = kept.cache("caches/app:main", [b"one"])
    await kept.check()
    go_on, is_reading = threading.Event(), threading.Event()

    def digest_file(path: Path) -> tuple[Identity, str] | None:
        is_reading.set()
        assert go_on.wait(20)
        return files.digest_file(path)

    monkeypatch.setattr("buildpool.sidecars.keeper.storage.digest_file", digest_file)
    slow = [kept.cache(f"caches/app:{number}", [str(number).encode()]) for number in range(40)]
    waiting = [asyncio.create_task(kept.check(digest)) for digest in slow]
    try:
        await asyncio.to_thread(is_reading.wait, 20)
        async with asyncio.timeout(20):
            assert await kept.check() == quick
        assert not any(task.done() for task in waiting)
    finally:
        go_on.set()
    assert await asyncio.gather(*waiting) == slow


async def test_a_check_that_takes_long_says_so_and_the_blobs_are_read_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.cache("caches/app:main", [b"one"])
    kept.patience = timedelta(seconds=0.05)
    kept.upkeep = kept.restarted()
    go_on = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(
            "buildpool.sidecars.keeper.storage.digest_file",
            lambda path: go_on.wait(20) and files.digest_file(path),
        )
        try:
            assert await kept.check() is None
            assert kept.checked is not None
            assert kept.checked.state is State.PENDING
        finally:
            go_on.set()
        await asyncio.gather(*kept.upkeep._judging)
    kept.read.clear()
    assert await kept.check() == digest
    assert kept.read == []


async def test_damage_that_is_found_when_nobody_waits_any_more_is_removed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.cache("caches/app:main", [b"one"])
    kept.spoil(b"one")
    kept.patience = timedelta(0)
    kept.upkeep = kept.restarted()
    assert await kept.check() is None
    await asyncio.gather(*kept.upkeep._judging)
    assert kept.tags() == set()


async def test_the_blobs_of_a_cache_are_read_side_by_side_but_not_all_at_once(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.cache("caches/app:main", [f"{number}".encode() for number in range(20)])
    meet, most, now = threading.Barrier(MAX_READERS), [0], [0]
    guard = threading.Lock()

    def digest_file(path: Path) -> tuple[Identity, str] | None:
        with guard:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if path != kept.storage.data(digest_of(b"19")):  # 20 of 21: a multiple of the readers
            meet.wait(20)
        found = files.digest_file(path)
        with guard:
            now[0] -= 1
        return found

    monkeypatch.setattr("buildpool.sidecars.keeper.storage.digest_file", digest_file)
    assert await kept.check() == digest
    assert most == [MAX_READERS]


async def test_nothing_is_read_again_where_that_is_off(kept: Kept) -> None:
    kept.scrub = None
    kept.upkeep = kept.restarted()
    kept.cache("caches/app:main", age=HOUR)
    await kept.upkeep.round()
    assert kept.read == []
    await kept.check()
    count = len(kept.read)
    kept.now += 100 * DAY
    await kept.check()
    assert len(kept.read) == count


async def test_a_round_reads_again_what_is_due_for_the_time_that_has_passed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "MIN_SCRUB_BYTES", 1)
    kept.cache("caches/app:main", [f"{number:02000}".encode() for number in range(1000)])
    await kept.check()  # each of them is read
    kept.now += DAY
    read: list[Path] = []

    def digest_file(path: Path) -> tuple[Identity, str] | None:
        read.append(path)
        return files.digest_file(path)

    monkeypatch.setattr("buildpool.sidecars.keeper.storage.digest_file", digest_file)
    counts = []
    for minutes in (1, 2, 10, 20):
        kept.now += minutes * MINUTE
        read.clear()
        await kept.upkeep.round()
        counts.append(len(read))
    _, two, ten, twenty = counts
    assert 4 * two <= ten <= 6 * two
    assert 8 * two <= twenty <= 12 * two
