"""What rounds remove and what they keep, on real files; only the time is said."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from buildpool.sidecars.keeper import upkeep as upkeep_module
from buildpool.sidecars.keeper.retention import Rules
from buildpool.sidecars.keeper.scanning import take_inventory
from buildpool.sidecars.keeper.storage import Disk, RegistryStorage
from buildpool.sidecars.keeper.upkeep import Checked, State, Upkeep
from unit.sidecars.kept import GRACE, MINUTE, RETENTION, Kept
from unit.sidecars.stored import (
    DAY,
    HOUR,
    MANIFEST,
    NOW,
    an_image_manifest,
    an_index,
    descriptor,
    digest_of,
    put,
)


async def test_a_use_outlives_a_restart(kept: Kept) -> None:
    kept.cache("caches/app:main", age=13 * DAY)
    assert await kept.check()
    kept.now += 10 * DAY
    await kept.restarted().round()
    assert kept.tags() == {"caches/app:main"}
    kept.now += 5 * DAY
    upkeep = kept.restarted()
    await upkeep.round()
    kept.now += HOUR  # until then, it might be the clock
    await upkeep.round()
    assert kept.tags() == set()


async def test_a_round_is_no_use(kept: Kept) -> None:
    kept.cache("caches/app:main", age=13 * DAY)
    await kept.upkeep.round()
    kept.now += 2 * DAY
    await kept.upkeep.round()
    assert kept.tags() == set()


async def test_a_manifest_in_use_outlives_its_tag_by_the_grace(kept: Kept) -> None:
    old = kept.cache("caches/app:main", [b"one", b"two"])
    assert await kept.check() == old
    kept.now += HOUR
    new = kept.cache("caches/app:main", [b"two", b"three"])
    await kept.upkeep.round()
    assert await kept.restarted().check("caches/app", old) == Checked(State.WHOLE, old)
    kept.now += GRACE + MINUTE
    await kept.upkeep.round()
    assert kept.revisions() == {("caches/app", new)}
    assert not kept.has(b"one")
    assert kept.has(b"two")
    assert await kept.check() == new


async def test_the_manifests_of_an_index_are_used_with_it(kept: Kept) -> None:
    child = kept.cache("caches/app", age=HOUR)
    content = kept.storage.data(child).read_bytes()
    index = kept.manifest(an_index(descriptor(content, MANIFEST)), "caches/app", "main")
    kept.now += DAY
    await kept.check()
    revision = kept.storage.revision("caches/app", child)
    assert revision is not None
    assert revision.used == kept.now
    assert await kept.check() == index


async def test_an_expired_cache_leaves_nothing_behind(kept: Kept) -> None:
    kept.cache("caches/app:main", age=15 * DAY)
    put(kept.storage.repositories / "caches/app/_uploads/1/data", b"half")
    put(kept.storage.repositories / "caches/app/_uploads/2/data", b"broken off", HOUR)
    size = kept.size()
    await kept.upkeep.round()
    assert kept.size() == len(b"half"), "an upload that goes on"
    usage = await kept.upkeep.usage()
    assert (usage.used, usage.refs, usage.reclaimed) == (4, 0, size - 4)


async def test_folders_that_stay_empty_go(kept: Kept) -> None:
    kept.cache("caches/app:main", age=15 * DAY)
    for _ in range(10):
        await kept.upkeep.round()
        kept.now = datetime.now(kept.now.tzinfo) + 10 * RETENTION
    assert list(kept.storage.repositories.iterdir()) == []


async def test_an_export_that_is_under_way_loses_nothing(kept: Kept) -> None:
    kept.blob(b"layer", "caches/app", age=HOUR)
    put(kept.storage.repositories / "caches/app/_uploads/1/data", b"half")
    before = set((kept.root / "docker").rglob("*"))
    await kept.upkeep.round()
    assert set((kept.root / "docker").rglob("*")) == before


async def test_a_manifest_that_comes_while_blobs_are_swept_keeps_them(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.blob(b"one", "caches/app")
    found = take_inventory

    def then_pushed(storage: RegistryStorage) -> object:
        inventory = found(storage)
        kept.manifest(an_image_manifest([b"one"], b"one"), "caches/app", "main")
        return inventory

    monkeypatch.setattr(upkeep_module, "take_inventory", then_pushed)
    await kept.upkeep.round()
    assert kept.has(b"one")
    assert await kept.check()


async def test_a_blob_that_is_mounted_while_blobs_are_swept_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.blob(b"one", "caches/app")
    found = take_inventory

    def then_mounted(storage: RegistryStorage) -> object:
        inventory = found(storage)
        put(storage.link_folder("caches/other", digest) / "link", digest.encode())
        return inventory

    monkeypatch.setattr(upkeep_module, "take_inventory", then_mounted)
    await kept.upkeep.round()
    assert kept.has(b"one")


async def test_a_use_while_a_round_decides_counts(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.cache("caches/app:main", age=15 * DAY)
    kept.cache("caches/app:young")
    decide = upkeep_module.retention.removal
    loop = asyncio.get_running_loop()

    def then_used(*arguments: object) -> object:
        decided = decide(*arguments)
        assert decided.tags
        asyncio.run_coroutine_threadsafe(kept.check(), loop).result(20)
        return decided

    monkeypatch.setattr(upkeep_module.retention, "removal", then_used)
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:main", "caches/app:young"}
    assert await kept.check() == digest


async def test_room_is_made_by_removing_the_least_recently_used(kept: Kept) -> None:
    for number in range(4):
        kept.cache(f"caches/app:{number}", [str(number).encode() * 10_000], age=(9 - number) * DAY)
    await kept.check("0")
    kept.capacity = kept.size()
    kept.upkeep = kept.restarted()
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:0", "caches/app:3"}
    usage = await kept.upkeep.usage()
    assert usage.used == kept.size() < 0.75 * kept.capacity
    assert usage.capacity == kept.capacity
    assert not usage.is_full


async def test_it_is_full_when_all_is_in_use(kept: Kept) -> None:
    for number in range(4):
        kept.cache(f"caches/app:{number}", [str(number).encode() * 10_000], age=HOUR)
    kept.capacity = kept.size()
    kept.upkeep = kept.restarted()
    await kept.upkeep.round()
    usage = await kept.upkeep.usage()
    assert usage.is_full
    assert usage.refs == 4


async def test_the_capacity_is_never_more_than_the_file_system_has(kept: Kept) -> None:
    kept.disk = Disk(total=10**9, free=10**9)
    await kept.upkeep.round()
    assert (await kept.upkeep.usage()).capacity == 10**9


async def test_each_ref_that_goes_is_told_with_the_reason(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.cache("caches/app:old", [b"two"], age=15 * DAY)
    kept.cache("caches/app:bad", [b"one"])
    kept.spoil(b"one")
    with caplog.at_level(logging.INFO):
        await kept.check("bad")
        await kept.upkeep.round()
    messages = [record.getMessage() for record in caplog.records]
    (bad,) = (message for message in messages if "removed caches/app:bad: " in message)
    (old,) = (message for message in messages if "removed caches/app:old: " in message)
    assert f"blob {digest_of(b'one')} has other content" in bad
    assert "was not used since 2025-12-17 12:00 UTC" in old


async def test_a_round_that_fails_is_told_and_the_next_one_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = RegistryStorage(tmp_path / "not/mounted")
    rules = Rules(10**9, RETENTION, GRACE)
    upkeep = Upkeep(storage, rules, interval=timedelta(0), clock=lambda: NOW)
    task = asyncio.create_task(upkeep.run())
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(20):
            while len(caplog.records) < 2:  # noqa: ASYNC110 - rounds are told of in the log only
                await asyncio.sleep(0)
            (tmp_path / "not/mounted").mkdir(parents=True)
            await upkeep.usage()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "a round failed" in caplog.records[0].getMessage()
