"""How damage is found and removed, on real files; only the time is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from buildpool.sidecars.keeper import files
from buildpool.sidecars.keeper.inventory import Identity
from unit.sidecars.kept import GRACE, MINUTE, Kept
from unit.sidecars.stored import (
    DAY,
    HOUR,
    digest_of,
    put,
)

LINK_OF_ONE = Path("_layers/sha256") / digest_of(b"one").removeprefix("sha256:") / "link"


def without_ctime(found: os.stat_result) -> Identity:
    return Identity(found.st_ino, found.st_size, 0)


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

    monkeypatch.setattr("buildpool.sidecars.keeper.storage.digest_file", digest_file)
    assert await kept.check() is None
    assert kept.has(b"one")
    assert kept.tags() == {"caches/app:main"}


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
