"""Variants have caches of their own: each another one, the same after a restart, and so many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.routing.variants import FORGOTTEN_AFTER, MOST, NUMBERS, Variants
from samples import NOW

SECOND = timedelta(seconds=1)
names = st.lists(st.text(max_size=4), unique=True, max_size=MOST)


def numbers(variants: Variants, names: Sequence[str]) -> list[int | None]:
    return [variants.number_of(name, now=NOW, exports=True) for name in names]


@given(names, st.randoms())
def test_each_of_so_many_variants_has_a_number_of_its_own_and_keeps_it(
    names: list[str], random: object
) -> None:
    variants = Variants()
    first = numbers(variants, names)
    assert len(set(first)) == len(names)
    assert None not in first
    assert numbers(variants, names) == first
    assert all(number is not None and 0 <= number < NUMBERS for number in first)


@given(names)
def test_variants_have_the_same_numbers_once_they_are_forgotten(names: list[str]) -> None:
    assert numbers(Variants(), names) == numbers(Variants(), names)


@given(st.text(max_size=4), names)
def test_a_variant_that_does_not_export_finds_its_cache_and_takes_none(
    reader: str, others: list[str]
) -> None:
    variants = Variants()
    seen = variants.number_of(reader, now=NOW, exports=False)
    assert seen == Variants().number_of(reader, now=NOW, exports=True)
    assert numbers(variants, others) == numbers(Variants(), others)
    if reader in others:
        ours = variants.number_of(reader, now=NOW, exports=False)
        assert ours == variants.number_of(reader, now=NOW, exports=True)


def test_a_variant_too_many_has_no_cache_of_its_own_until_another_is_forgotten() -> None:
    variants = Variants()
    many = [f"{number}" for number in range(MOST)]
    assert None not in numbers(variants, many)
    for later in (SECOND, FORGOTTEN_AFTER - SECOND):
        assert variants.number_of("one more", now=NOW + later, exports=True) is None
        assert variants.number_of(many[0], now=NOW + later, exports=True) is not None
    assert variants.number_of("one more", now=NOW + FORGOTTEN_AFTER, exports=True) is not None


@given(st.lists(st.integers(0, 40), max_size=60))
def test_arguments_that_are_others_in_every_build_leave_a_bounded_number_of_caches(
    hours: list[int],
) -> None:
    variants, now, used = Variants(), NOW, set()
    for number, hour in enumerate(hours):
        now += timedelta(hours=hour)
        used.add(variants.number_of(f"commit {number}", now=now, exports=True))
    assert len(used - {None}) <= min(len(hours), NUMBERS)
