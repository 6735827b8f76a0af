from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api.quantity import canonical, format_bytes, parse, parse_bytes

numbers = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,6})?", fullmatch=True)
suffixes = st.sampled_from(["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e1", "e3", "E6"])

SPELLINGS = {
    "a thousand thousandths are one": ("1000m", "1"),
    "a fraction becomes thousandths": ("0.5", "500m"),
    "binary suffixes grow": ("1024Mi", "1Gi"),
    "binary suffixes stay binary": ("1.5Gi", "1536Mi"),
    "decimal suffixes stay decimal": ("1000k", "1M"),
    "a kibibyte count that is no mebibyte stays": ("1000Ki", "1000Ki"),
    "less than a kibibyte is spelled in decimals": ("0.5Ki", "512"),
    "what is finer than a thousandth is rounded up": ("0.0001", "1m"),
    "exponents stay exponents": ("1e3", "1e3"),
    "zero has no suffix": ("0Gi", "0"),
    "a plain number is text too": (2, "2"),
}


@pytest.mark.parametrize(("written", "stored"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_quantity_is_spelled_as_the_api_server_stores_it(written: str | int, stored: str) -> None:
    assert canonical(written) == stored


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1gb", "-1", "1.", ".5", "1GiB", "٣", "1\n", "9" * 40, "16Ei"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        canonical(text)


@given(numbers, suffixes)
def test_the_canonical_spelling_means_the_same(number: str, suffix: str) -> None:
    assert parse(canonical(number + suffix)) == parse(number + suffix)


@given(numbers, suffixes)
def test_the_canonical_spelling_is_its_own(number: str, suffix: str) -> None:
    once = canonical(number + suffix)
    assert canonical(once) == once


@given(st.integers(min_value=0, max_value=2**60))
def test_bytes_survive_being_written_and_read(number: int) -> None:
    assert parse_bytes(format_bytes(number)) == number


def test_quantities_are_exact() -> None:
    assert parse("0.1") + parse("0.2") == parse("0.3")
    assert parse("1Gi") == Decimal(2**30)


def test_a_part_of_a_byte_needs_a_whole_one() -> None:
    assert parse_bytes("1500m") == 2
