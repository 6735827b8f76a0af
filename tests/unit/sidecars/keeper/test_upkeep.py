"""Checks and rounds, on real files; only the time is said."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from buildpool.sidecars.keeper import files
from buildpool.sidecars.keeper import upkeep as upkeep_module
from buildpool.sidecars.keeper.inventory import Identity
from buildpool.sidecars.keeper.retention import Rules
from buildpool.sidecars.keeper.scanning import take_inventory
from buildpool.sidecars.keeper.storage import Disk, RegistryStorage
from buildpool.sidecars.keeper.upkeep import Upkeep
from unit.sidecars.stored import (
    DAY,
    HOUR,
    LAYER,
    MANIFEST,
    NOW,
    Stored,
    an_image_manifest,
    an_index,
    descriptor,
    digest_of,
    put,
)

RETENTION, GRACE = 14 * DAY, 2 * HOUR
MINUTE = timedelta(minutes=1)
LINK_OF_ONE = Path("_layers/sha256") / digest_of(b"one").removeprefix("sha256:") / "link"


@dataclass
class Kept(Stored):
    """A storage and who looks after it."""

    now: datetime = NOW
    capacity: int = 10**12
    disk: Disk = field(default_factory=lambda: Disk(10**12, 10**12))
    digest: str = ""
    """Of the cache that a test is about."""
    why: str = ""
    """What the last check found wrong."""
    read: list[str] = field(default_factory=list)
    """Blobs that were read, in this order."""

    def __post_init__(self) -> None:
        self.upkeep = self.restarted()

    def restarted(self) -> Upkeep:
        storage = RegistryStorage(self.root)
        storage.disk = lambda: self.disk  # type: ignore[method-assign]
        rules = Rules(self.capacity, RETENTION, GRACE)
        return Upkeep(storage, rules, interval=MINUTE, clock=lambda: self.now)

    async def check(self, reference: str = "main", repository: str = "caches/app") -> str | None:
        """The digest if it is whole; otherwise None."""
        digest, self.why = await self.upkeep.check(repository, reference)
        return digest

    def spoil(self, content: bytes) -> None:
        """Changes a bit, as a disk would, and not the size."""
        file = self.storage.data(digest_of(content))
        file.write_bytes(bytes((content[0] ^ 1,)) + content[1:])


def without_ctime(found: os.stat_result) -> Identity:
    return Identity(found.st_ino, found.st_size, 0)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept(tmp_path)

    def digest_file(path: Path) -> tuple[Identity, str] | None:
        kept.read.append(path.parent.name)
        return files.digest_file(path)

    monkeypatch.setattr("buildpool.sidecars.keeper.inspection.digest_file", digest_file)
    return kept


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


DAMAGE: dict[str, Callable[[Kept], object]] = {
    "a blob is gone": lambda kept: kept.storage.remove_blob(digest_of(b"one")),
    "a blob's data is gone": lambda kept: kept.storage.data(digest_of(b"one")).unlink(),
    "a blob is empty": lambda kept: put(kept.storage.data(digest_of(b"one")), b""),
    "a blob is too long": lambda kept: put(kept.storage.data(digest_of(b"one")), b"one\0"),
    "a blob has another content": lambda kept: kept.spoil(b"one"),
    "a blob is a folder": lambda kept: (
        kept.storage.data(digest_of(b"one")).unlink(),
        kept.storage.data(digest_of(b"one")).mkdir(),
    ),
    "a blob has no link": lambda kept: (
        kept.storage.repositories / "caches/app" / LINK_OF_ONE
    ).unlink(),
    "a blob's link is empty": lambda kept: put(
        kept.storage.repositories / "caches/app" / LINK_OF_ONE, b""
    ),
    "the tag's link is empty": lambda kept: put(
        kept.storage.tag_folder("caches/app", "main") / "current/link", b""
    ),
    "the manifest's link is empty": lambda kept: put(
        kept.storage.revision_folder("caches/app", kept.digest) / "link", b""
    ),
    "the manifest is empty": lambda kept: put(kept.storage.data(kept.digest), b""),
    "the manifest is gone": lambda kept: kept.storage.remove_blob(kept.digest),
    "the manifest is no manifest": lambda kept: kept.spoil(
        kept.storage.data(kept.digest).read_bytes()
    ),
}


@pytest.mark.parametrize("by", ["a check", "rounds"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_found_and_the_next_export_heals_it(
    kept: Kept, damage: Callable[[Kept], object], by: str
) -> None:
    kept.digest = kept.cache("caches/app:main", age=HOUR)
    await kept.upkeep.round()
    damage(kept)
    if by == "a check":
        assert await kept.check() is None
        assert kept.why
    else:
        await kept.upkeep.round()
    assert kept.tags() == set()
    usage = await kept.upkeep.usage()
    assert usage.unhealed == ("caches/app:main",)
    link = kept.storage.link("caches/app", digest_of(b"one"))
    assert link is None or link.is_sound, "otherwise the registry would fail, not deny it"

    kept.cache("caches/app:main", age=HOUR)
    assert await kept.check() is not None
    assert (await kept.upkeep.usage()).unhealed == ()


async def test_a_damaged_blob_takes_all_caches_with_it_that_need_it(kept: Kept) -> None:
    kept.cache("caches/app:main", [b"one", b"two"])
    kept.cache("caches/app", [b"one", b"three"])
    kept.cache("other:main", [b"one"])
    whole = kept.cache("caches/app:whole", [b"two"])
    kept.spoil(b"one")
    assert await kept.check() is None
    assert not kept.has(b"one")
    assert kept.tags() == {"caches/app:whole"}
    assert kept.revisions() == {("caches/app", whole)}
    await kept.upkeep.round()
    assert (await kept.upkeep.usage()).damaged == 1


async def test_the_sound_blobs_of_a_damaged_cache_stay_for_a_while(kept: Kept) -> None:
    # A build may be at it already, and the next export need not upload them again.
    kept.cache("caches/app:main", [b"one", b"two"], age=DAY)
    kept.spoil(b"one")
    assert await kept.check() is None
    await kept.upkeep.round()
    assert kept.has(b"two")
    kept.now += GRACE + MINUTE
    await kept.upkeep.round()
    assert not kept.has(b"two")


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
    first, second = await asyncio.gather(inspector.read(digest), inspector.read(digest))
    assert first == second
    assert first.is_sound
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

    monkeypatch.setattr("buildpool.sidecars.keeper.inspection.digest_file", digest_file)
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


async def test_a_blob_that_came_anew_while_it_was_read_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.cache("caches/app:main", [b"one"])
    kept.spoil(b"one")

    def digest_file(path: Path) -> tuple[Identity, str] | None:
        found = files.digest_file(path)
        if path == kept.storage.data(digest_of(b"one")):
            kept.storage.remove_blob(digest_of(b"one"))
            kept.blob(b"one")
        return found

    monkeypatch.setattr("buildpool.sidecars.keeper.inspection.digest_file", digest_file)
    assert await kept.check() is None
    assert kept.has(b"one")
    assert kept.tags() == {"caches/app:main"}


async def test_a_use_outlives_a_restart(kept: Kept) -> None:
    kept.cache("caches/app:main", age=13 * DAY)
    assert await kept.check()
    kept.now += 10 * DAY
    await kept.restarted().round()
    assert kept.tags() == {"caches/app:main"}
    kept.now += 5 * DAY
    await kept.restarted().round()
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
    assert await kept.restarted().check("caches/app", old) == (old, "")
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
    before = {file for file in kept.root.rglob("*") if file.is_file()}
    await kept.upkeep.round()
    assert {file for file in kept.root.rglob("*") if file.is_file()} == before


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
    decide = upkeep_module.retention.removal
    loop = asyncio.get_running_loop()

    def then_used(*arguments: object) -> object:
        decided = decide(*arguments)
        assert decided.tags
        asyncio.run_coroutine_threadsafe(kept.check(), loop).result(20)
        return decided

    monkeypatch.setattr(upkeep_module.retention, "removal", then_used)
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:main"}
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


async def test_bits_that_are_lost_without_a_trace_are_found_within_a_day(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("files", "scanning"):
        monkeypatch.setattr(f"buildpool.sidecars.keeper.{module}.identify", without_ctime)
    kept.cache("caches/app:main", [b"one"], age=HOUR)
    await kept.upkeep.round()
    assert len(kept.read) == 3, "the manifest, the layer and the config"
    kept.spoil(b"one")
    kept.now += HOUR
    await kept.upkeep.round()
    assert kept.has(b"one"), "a day has not passed"
    kept.now += DAY
    await kept.upkeep.round()
    assert not kept.has(b"one")
    assert kept.tags() == set()


async def test_a_blob_that_nothing_refers_to_is_read_too(kept: Kept) -> None:
    # The next export would count on it.
    kept.blob(b"one", "caches/app", age=HOUR)
    kept.spoil(b"one")
    await kept.upkeep.round()
    assert not kept.has(b"one")


async def test_refs_are_told_of_for_an_hour(kept: Kept) -> None:
    for number in range(12):
        kept.cache(f"caches/app:{number:02}", [b"one"])
    await kept.upkeep.round()
    kept.spoil(b"one")
    await kept.check("05")
    unhealed = (await kept.upkeep.usage()).unhealed
    assert len(unhealed) == 10
    assert set(unhealed) < {f"caches/app:{number:02}" for number in range(12)}
    kept.now += timedelta(hours=1)
    assert (await kept.upkeep.usage()).unhealed == ()


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
