"""What goes, decided from inventories that are made of values only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.sidecars.keeper.inventory import (
    Blob,
    Descriptor,
    Identity,
    Inventory,
    Leftover,
    Link,
    Revision,
    Tag,
)
from buildpool.sidecars.keeper.retention import (
    ABANDONED,
    ROOMY_SHARE,
    SCARCE,
    Budget,
    CacheRemoval,
    Rules,
    removal,
    sweep,
)
from buildpool.sidecars.keeper.retention import (
    AMPLE as AMPLE_FREE,
)
from unit.sidecars.stored import DAY, HOUR, NOW, digest_of

GIB = 1024**3
RULES = Rules(capacity=100 * GIB, retention=14 * DAY, grace=2 * HOUR)
AMPLE = Budget(used=0, capacity=100 * GIB, free=150 * GIB)
ZERO = timedelta(0)
AMPLE_MOST = AMPLE_FREE[1]


def named(name: str) -> str:
    return digest_of(name.encode())


@dataclass
class Making:
    """An inventory being made; all is a day old unless a test says otherwise."""

    inventory: Inventory = field(default_factory=Inventory)

    def blob(
        self, name: str, size: int = GIB, *, age: timedelta = DAY, linked: timedelta = DAY
    ) -> Making:
        digest = named(name)
        blob = Blob(digest, Identity(1, size, 1), size, NOW - age)
        link = Link("app", digest, is_sound=True, changed=NOW - linked)
        return self._with(blobs={digest: blob}, links=(link,))

    def manifest(
        self, name: str, *layers: str, children: tuple[str, ...] = (), age: timedelta = DAY
    ) -> Making:
        refers = (
            *(Descriptor(named(each), GIB, is_manifest=False) for each in layers),
            *(Descriptor(named(each), 0, is_manifest=True) for each in children),
        )
        blob = Blob(named(name), Identity(1, 0, 1), 0, NOW - DAY)
        revision = Revision("app", named(name), NOW - age, refers)
        return self._with(blobs={blob.digest: blob}, revisions=(revision,))

    def tag(self, name: str, manifest: str | None, *, age: timedelta = DAY) -> Making:
        digest = None if manifest is None else named(manifest)
        return self._with(tags=(Tag("app", name, digest, NOW - age),))

    def _with(
        self,
        *,
        tags: tuple[Tag, ...] = (),
        revisions: tuple[Revision, ...] = (),
        links: tuple[Link, ...] = (),
        blobs: dict[str, Blob] | None = None,
    ) -> Making:
        old = self.inventory
        self.inventory = replace(
            old,
            tags=old.tags + tags,
            revisions=old.revisions + revisions,
            links=old.links + links,
            blobs={**old.blobs, **(blobs or {})},
        )
        return self


def tags_of(decided: CacheRemoval) -> list[str]:
    return [tag.name for tag, _ in decided.tags]


def manifests_of(decided: CacheRemoval) -> set[str]:
    return {revision.digest for revision, _ in decided.revisions}


def decide(making: Making, room: Budget = AMPLE, rules: Rules = RULES) -> CacheRemoval:
    return removal(making.inventory, rules, room, NOW)


def swept(making: Making) -> set[str]:
    return {blob.digest for blob in sweep(making.inventory, RULES, NOW).blobs}


@pytest.mark.parametrize(("age", "stays"), [(13 * DAY, True), (15 * DAY, False)])
def test_a_tag_goes_when_it_was_not_used_for_the_retention(age: timedelta, stays: bool) -> None:
    making = Making().manifest("m", age=age).tag("main", "m", age=age)
    decided = decide(making)
    assert tags_of(decided) == ([] if stays else ["main"])
    assert manifests_of(decided) == (set() if stays else {named("m")})


@pytest.mark.parametrize(("age", "stays"), [(HOUR, True), (3 * HOUR, False)])
def test_a_manifest_without_a_tag_stays_while_a_build_may_use_it(
    age: timedelta, stays: bool
) -> None:
    making = Making().manifest("old", age=age).manifest("new").tag("main", "new")
    assert manifests_of(decide(making)) == (set() if stays else {named("old")})


def test_a_manifest_with_another_tag_stays() -> None:
    making = Making().manifest("m").tag("old", "m", age=15 * DAY).tag("main", "m")
    decided = decide(making)
    assert tags_of(decided) == ["old"]
    assert manifests_of(decided) == set()


def test_a_tag_that_is_not_wanted_leaves_a_manifest_that_is_in_use() -> None:
    making = Making().manifest("m", age=HOUR).tag("old", "m", age=15 * DAY)
    decided = decide(making)
    assert tags_of(decided) == ["old"]
    assert manifests_of(decided) == set()


def test_the_manifests_of_a_kept_index_stay() -> None:
    making = Making().manifest("child").manifest("index", children=("child",)).tag("main", "index")
    assert manifests_of(decide(making)) == set()


def test_the_manifests_of_an_index_in_use_stay() -> None:
    making = Making().manifest("child").manifest("index", children=("child",), age=HOUR)
    assert manifests_of(decide(making)) == set()


def test_the_manifests_of_an_index_go_with_it() -> None:
    making = Making().manifest("leaf").manifest("child", children=("leaf",))
    making.manifest("index", children=("child",)).tag("main", "index", age=15 * DAY)
    assert manifests_of(decide(making)) == {named("leaf"), named("child"), named("index")}


def test_manifests_can_be_nested_as_deep_as_anybody_likes() -> None:
    making = Making().manifest("0")
    for number in range(1, 3000):
        making.manifest(str(number), children=(str(number - 1),))
    assert len(manifests_of(decide(making))) == 3000


def test_a_tag_that_points_to_no_manifest_goes() -> None:
    decided = decide(Making().tag("main", "gone", age=ZERO))
    assert [why for _, why in decided.tags] == ["it points to no manifest"]


def three_caches(last_uses: tuple[timedelta, ...] = (3 * DAY, 2 * DAY, DAY)) -> Making:
    """Three caches of 10 GiB, all of them sharing one more GiB."""
    making = Making().blob("shared", GIB)
    for name, age in zip("abc", last_uses, strict=True):
        making.blob(name, 10 * GIB)
        making.manifest(name.upper(), name, "shared", age=age).tag(name, name.upper(), age=age)
    return making


def room(used: float, **overrides: int) -> Budget:
    return replace(AMPLE, used=int(used * GIB), **overrides)


def test_nothing_goes_while_there_is_room() -> None:
    assert tags_of(decide(three_caches(), room(90))) == []


@pytest.mark.parametrize(
    ("used", "gone"), [(90.5, ["a", "b"]), (84, []), (95, ["a", "b"]), (99, ["a", "b", "c"])]
)
def test_the_least_recently_used_go_until_there_is_room(used: float, gone: list[str]) -> None:
    assert tags_of(decide(three_caches(), room(used))) == gone


def test_the_order_is_that_of_the_last_use_and_not_of_the_inventory() -> None:
    making = three_caches((DAY, 3 * DAY, 2 * DAY))
    assert tags_of(decide(making, room(95))) == ["b", "c"]


def test_a_ref_that_is_in_use_is_never_removed() -> None:
    making = three_caches((HOUR, HOUR, 3 * HOUR))
    assert tags_of(decide(making, room(100))) == ["c"]


def test_what_expires_anyway_counts_as_room() -> None:
    making = three_caches((15 * DAY, 2 * DAY, DAY))
    assert tags_of(decide(making, room(95))) == ["a"]


def test_what_can_be_swept_anyway_counts_as_room() -> None:
    making = three_caches().blob("garbage", 20 * GIB)
    assert tags_of(decide(making, room(95))) == []


def test_what_may_belong_to_an_export_counts_not_as_room() -> None:
    making = three_caches().blob("fresh", 20 * GIB, age=HOUR)
    assert tags_of(decide(making, room(95))) == ["a", "b"]


def test_a_file_system_that_others_filled_is_reason_enough() -> None:
    little = room(31, free=GIB - 1)
    assert tags_of(decide(three_caches(), little)) == ["a"]
    assert tags_of(decide(three_caches(), replace(little, free=GIB))) == []


def test_a_large_file_system_that_is_fairly_full_is_no_reason() -> None:
    # A filer of 100 TB is 96 % full for years.
    assert tags_of(decide(three_caches(), room(31, free=4_000 * GIB))) == []


SIZES = st.integers(0, 2**60)


@given(capacity=SIZES, free=SIZES, share=st.floats(0, ROOMY_SHARE))
def test_nothing_goes_for_room_while_our_share_is_small_and_a_little_is_free(
    capacity: int, free: int, share: float
) -> None:
    found = Budget(int(share * capacity), capacity, SCARCE[1] + free)
    assert found.needed(0) == 0
    assert not found.is_full or capacity == 0


@given(capacity=SIZES, free=SIZES, used=SIZES)
def test_no_more_is_asked_for_than_helps(capacity: int, free: int, used: int) -> None:
    needed = Budget(used, capacity, free).needed(0)
    assert needed <= max(ceil(used - ROOMY_SHARE * capacity), AMPLE_MOST, 0)
    assert Budget(used, capacity, free).needed(needed) == 0


@pytest.mark.parametrize(
    ("found", "is_full"),
    [
        (room(97), False),
        (room(98), True),
        (room(10, free=GIB // 4), False),
        (room(10, free=GIB // 4 - 1), True),
        (room(0, capacity=GIB, free=GIB // 100 + 1), False),
        (room(0, capacity=GIB, free=GIB // 100), True),
        (room(0, capacity=50 * 1024**2, free=5 * 1024**2), False),
        (room(0, capacity=50 * 1024**2, free=3 * 1024**2), True),
    ],
)
def test_when_it_is_full(found: Budget, is_full: bool) -> None:
    assert found.is_full is is_full


def test_what_a_manifest_needs_is_not_swept() -> None:
    making = Making().blob("layer").manifest("m", "layer").blob("garbage")
    assert swept(making) == {named("garbage")}


def test_a_blob_is_safe_for_a_while_after_its_upload() -> None:
    assert swept(Making().blob("layer", age=HOUR)) == set()


def test_a_blob_is_safe_for_a_while_after_an_export_counted_on_it() -> None:
    # The registry keeps the old file and writes a new link.
    assert swept(Making().blob("layer", age=30 * DAY, linked=HOUR)) == set()


LINKS = {
    "of a blob that is there": (True, True, DAY, False),
    "of a blob that is gone": (False, True, DAY, True),
    "of a blob that may be on its way": (False, True, HOUR, False),
    "that is garbage": (True, False, ZERO, True),
}


@pytest.mark.parametrize(("is_there", "is_sound", "age", "goes"), LINKS.values(), ids=LINKS)
def test_which_links_go(is_there: bool, is_sound: bool, age: timedelta, goes: bool) -> None:
    making = Making().manifest("m", "layer")
    if is_there:
        making.blob("layer")
    link = Link("other", named("layer"), is_sound, NOW - age)
    inventory = replace(making.inventory, links=(link,))
    assert sweep(inventory, RULES, NOW).links == ((link,) if goes else ())


def test_an_upload_goes_when_nothing_has_come_of_it_for_a_while() -> None:
    abandoned, stalled = (Leftover(name, NOW - ABANDONED + age) for name, age in UPLOADS.items())
    inventory = Inventory(uploads=(abandoned, stalled))
    assert sweep(inventory, RULES, NOW).uploads == (abandoned,)


UPLOADS = {"abandoned": ZERO, "stalled": timedelta(seconds=1)}


def test_leftovers_go_when_they_are_old() -> None:
    old, fresh = Leftover("old", NOW - DAY), Leftover("fresh", NOW - HOUR)
    inventory = Inventory(leftovers=(old, fresh))
    assert sweep(inventory, RULES, NOW).leftovers == (old,)
