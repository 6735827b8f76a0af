"""The registry and builds are at work while the keeper is: what each of them may count on."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from buildpool.sidecars.keeper import files, removing, scanning, storage
from buildpool.sidecars.keeper.damage import suspects
from buildpool.sidecars.keeper.inventory import Identity, Key
from buildpool.sidecars.keeper.scanning import take_inventory
from buildpool.sidecars.keeper.upkeep import State
from unit.sidecars.kept import Kept
from unit.sidecars.stored import DAY, HOUR, Stored, an_image_manifest, digest_of, put

A_LITTLE = 0.3
"""Seconds that a check has which must not come to an end."""


def before(patch: pytest.MonkeyPatch, where: Any, name: str, act: Callable[[], object]) -> None:
    """Has something happen right before a function is called, once."""
    function, is_done = getattr(where, name), []

    def first(*arguments: Any, **named: Any) -> Any:
        if not is_done:
            is_done.append(True)
            act()
        return function(*arguments, **named)

    patch.setattr(where, name, first)


class Checking:
    """A check that comes while a thread is at work; that it cannot end before, it need not."""

    def __init__(self, kept: Kept) -> None:
        self._kept, self._loop = kept, asyncio.get_running_loop()
        self._futures: list[Any] = []

    def __call__(self) -> None:
        future = asyncio.run_coroutine_threadsafe(self._kept.check(), self._loop)
        self._futures.append(future)
        with suppress(TimeoutError):
            future.result(A_LITTLE)

    async def digest(self) -> str | None:
        (future,) = self._futures
        digest: str | None = await asyncio.wrap_future(future)
        return digest


async def test_a_cache_that_is_found_whole_while_its_tag_is_removed_keeps_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.cache("caches/app:main", age=15 * DAY)
    kept.cache("caches/app:young", [b"young"])
    checking = Checking(kept)
    before(monkeypatch, storage, "unlink", checking)  # after the second look
    await kept.upkeep.round()
    assert (await checking.digest() is not None) == ("caches/app:main" in kept.tags())


async def test_a_cache_that_is_found_whole_while_its_damage_is_removed_is_whole(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.cache("caches/app:main", [b"one"], age=HOUR)
    await kept.check()
    kept.now += DAY - HOUR
    checking = Checking(kept)
    before(monkeypatch, removing.damage, "affected", checking)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "digest_file", a_file_with_other_content)
        await kept.upkeep.round()
    assert (await checking.digest() is not None) == kept.has(b"one")


def a_file_with_other_content(path: Path) -> tuple[Identity, str] | None:
    found = files.digest_file(path)
    return found and (found[0], digest_of(b"other"))


async def test_a_cache_that_is_found_whole_while_blobs_are_swept_keeps_them(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.blob(b"one", "caches/app")
    checking = Checking(kept)

    def push_and_check() -> None:
        kept.manifest(an_image_manifest([b"one"], b"one"), "caches/app", "main", age=HOUR)
        checking()

    before(monkeypatch, removing, "youngest_links", push_and_check)  # the last of the second look
    await kept.upkeep.round()
    assert await checking.digest() is not None
    assert kept.has(b"one")


@pytest.mark.parametrize("part", ["_scan_tags", "_scan_revisions", "_scan_blobs"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_pushed_while_an_inventory_is_taken_is_not_seen_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, when: str
) -> None:
    stored = Stored(tmp_path)
    stored.cache("caches/app:old", [b"old"])
    scan = getattr(scanning, part)

    def then_pushed(*arguments: Any) -> None:
        if when == "after":
            scan(*arguments)
        if "caches" not in arguments:  # the folder above is looked at, too
            stored.cache("caches/app:new", [b"new"])
        if when == "before":
            scan(*arguments)

    monkeypatch.setattr(scanning, part, then_pushed)
    inventory = take_inventory(stored.storage)
    revisions = {revision.key for revision in inventory.revisions}
    assert suspects(inventory) == ()
    assert {Key(tag.repository, str(tag.digest)) for tag in inventory.tags} <= revisions
    assert stored.tags() == {"caches/app:old", "caches/app:new"}


async def test_a_link_that_was_mended_meanwhile_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.blob(b"one", "caches/app", age=HOUR)
    file = kept.storage.link_folder("caches/app", digest) / "link"
    put(file, b"garbage", age=DAY)
    before(monkeypatch, removing, "_for_a_moment", lambda: put(file, digest.encode()))
    await kept.upkeep.round()
    assert file.read_bytes() == digest.encode()


async def test_a_blob_that_was_uploaded_again_meanwhile_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.blob(b"one", age=DAY)

    def upload_again() -> None:
        kept.storage.remove_blob(digest)
        kept.blob(b"one", age=DAY)

    before(monkeypatch, removing, "_for_a_moment", upload_again)
    await kept.upkeep.round()
    assert kept.has(b"one")


def test_a_leftover_in_which_something_has_begun_stays(tmp_path: Path) -> None:
    # The registry writes a tag's index before the tag's own link.
    stored = Stored(tmp_path)
    folder = stored.storage.tag_folder("caches/app", "main")
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    (leftover,) = take_inventory(stored.storage).leftovers[:1]
    assert Path(leftover.path) == folder
    (folder / "index/sha256").mkdir(parents=True)
    assert stored.storage.remove_leftover(leftover) == 0
    assert (folder / "index/sha256").is_dir()


def test_a_step_ends_with_the_first_thing_that_is_done_after_its_time() -> None:
    assert timedelta(milliseconds=100) >= removing.HOLD, "a build waits as long for its look"
    things, slow = deque(range(100)), removing.HOLD.total_seconds() / 4
    begun = time.monotonic()
    removing._for_a_moment(things, lambda _: time.sleep(slow))
    # Each takes longer than that, never shorter; how late the machine wakes us is not its doing.
    assert 100 - 5 <= len(things) < 100
    assert time.monotonic() - begun >= slow


async def test_the_lock_is_free_between_two_steps(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "HOLD", removing.HOLD * 0)
    whole = kept.cache("caches/app:main", [b"kept"], age=HOUR)
    for number in range(50):
        kept.blob(f"useless {number}".encode(), "caches/app")
    checked: list[tuple[str | None, int]] = []
    loop = asyncio.get_running_loop()
    act = removing._for_a_moment

    def and_checked(things: Any, *arguments: Any) -> None:
        act(things, *arguments)
        future = asyncio.run_coroutine_threadsafe(kept.check(), loop)
        future.add_done_callback(lambda done: checked.append((done.result(), len(things))))

    monkeypatch.setattr(removing, "_for_a_moment", and_checked)
    await kept.upkeep.round()
    assert {digest for digest, _ in checked} == {whole}
    assert any(0 < left < 49 for _, left in checked), "while there was more to remove"


@pytest.mark.parametrize("what", ["blobs of many repositories", "caches that expire"])
async def test_the_work_of_a_round_grows_as_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    looks: list[object] = []
    stat, scandir = Path.stat, os.scandir
    monkeypatch.setattr(Path, "stat", lambda *a, **k: looks.append(a) or stat(*a, **k))
    monkeypatch.setattr(files.os, "scandir", lambda *a: looks.append(a) or scandir(*a))

    async def work(size: int) -> int:
        kept = Kept(tmp_path / str(size))
        kept.cache("young:main", age=HOUR)
        for number in range(size):
            content = f"{number}".encode()
            if what.startswith("blobs"):
                kept.blob(content, f"app/{number}")
            else:
                kept.cache(f"app/{number}:main", [content], age=15 * DAY)
        looks.clear()
        await kept.upkeep.round()
        assert not kept.has(b"1")
        return len(looks)

    few, many = await work(20), await work(80)
    assert many < 4 * few, "or it is more than linear"


async def test_a_blob_is_removed_by_the_round_if_nobody_counts_on_it(kept: Kept) -> None:
    kept.blob(b"one", "caches/app")
    kept.cache("caches/app:main", [b"two"], age=HOUR)
    assert await kept.check()
    assert kept.checked is not None
    assert kept.checked.state is State.WHOLE
    await kept.upkeep.round()
    assert not kept.has(b"one")
    assert kept.has(b"two")
