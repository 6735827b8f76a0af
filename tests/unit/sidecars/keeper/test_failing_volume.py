"""A volume that fails for a while costs no cache; a file that fails for long is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildpool.sidecars.keeper import inspection, removing
from buildpool.sidecars.keeper.doubts import LASTING
from buildpool.sidecars.keeper.upkeep import State
from unit.sidecars.kept import MINUTE, Kept, failing
from unit.sidecars.stored import DAY, HOUR, digest_of


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "READ_AGAIN", MINUTE * 0)


def is_one(path: Path) -> bool:
    return (path.parent.name, path.name) == (digest_of(b"one").removeprefix("sha256:"), "data")


FILES = {
    "a layer": is_one,
    "the tag": lambda path: path.parent.name == "current",
    "the manifest's link": lambda path: "revisions" in path.parts,
    "a layer's link": lambda path: "_layers" in path.parts,
    "all": lambda _: True,
}


@pytest.mark.parametrize("is_hit", FILES.values(), ids=FILES)
async def test_what_cannot_be_read_for_a_while_is_kept_and_not_handed_out(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, is_hit: object
) -> None:
    digest = kept.cache("caches/app:main", [b"one"], age=HOUR)
    kept.cache("caches/app:old", [b"old"], age=15 * DAY)
    before = set((kept.root / "docker").rglob("*"))
    with monkeypatch.context() as patch:
        failing(patch, is_hit)  # type: ignore[arg-type]
        assert await kept.check() is None
        assert kept.checked is not None
        assert kept.checked.state is State.PENDING
        for _ in range(3):
            await kept.upkeep.round()
            kept.now += MINUTE
        assert (await kept.upkeep.usage()).is_failing
    assert set((kept.root / "docker").rglob("*")) == before
    await kept.upkeep.round()
    assert not (await kept.upkeep.usage()).is_failing
    await kept.upkeep.round()
    assert await kept.check() == digest
    assert kept.tags() == {"caches/app:main"}


async def test_a_blob_that_fails_for_long_is_damaged(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.cache("caches/app:main", [b"one"], age=HOUR)
    failing(monkeypatch, FILES["a layer"])
    await kept.upkeep.round()
    assert kept.has(b"one")
    kept.now += LASTING
    assert await kept.check() is None
    assert kept.checked is not None
    assert kept.checked.state is State.DAMAGED
    assert not kept.has(b"one")
    assert kept.tags() == set()


async def test_a_blob_is_read_twice_before_anyone_is_worried(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = kept.cache("caches/app:main", [b"one"], age=HOUR)
    failures = [1]

    def once(path: Path) -> bool:
        return is_one(path) and bool(failures) and bool(failures.pop())

    failing(monkeypatch, once)
    assert await kept.check() == digest
    assert not failures


async def test_more_damage_than_a_few_blobs_is_the_volumes_and_is_removed_slowly(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "MAX_DAMAGED", 3)
    contents = [f"{number}".encode() for number in range(8)]
    for number, content in enumerate(contents):
        kept.cache(f"caches/app:{number}", [content], age=HOUR)
    await kept.upkeep.round()
    for content in contents:
        kept.spoil(content)
    await kept.upkeep.round()
    usage = await kept.upkeep.usage()
    assert (usage.damaged, usage.refs, usage.is_failing) == (3, 8, True)
    assert len(kept.tags()) == 5
    left = next(iter(kept.tags())).partition(":")[2]
    assert await kept.check(left) is None, "it is not removed, and not handed out"
    assert kept.checked is not None
    assert kept.checked.state is State.DAMAGED
    for _ in range(3):
        await kept.upkeep.round()
    assert kept.tags() == set()
    assert (await kept.upkeep.usage()).damaged == 8
    await kept.upkeep.round()
    assert not (await kept.upkeep.usage()).is_failing


async def test_blobs_that_are_missing_all_at_once_are_no_reason_to_remove_every_cache(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "MAX_DAMAGED", 3)
    for number in range(8):
        kept.cache(f"caches/app:{number}", [f"{number}".encode()], age=HOUR)
    kept.storage.blobs.rename(kept.root / "away")
    await kept.upkeep.round()
    assert len(kept.tags()) >= 5
    assert (await kept.upkeep.usage()).is_failing
