from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.records import Build, BuildKind, Disruption, Record, Result
from chaos.schedule import Kind
from chaos.tally import AFTERMATH, meanwhile, report, upper_bound, verdict


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def a_build(
    start: float = 100, end: float = 130, *, kind: BuildKind = BuildKind.LONG_BUILDX, **rest: str
) -> Build:
    return Build(kind, seconds(start), seconds(end), **rest)


def a_disruption(
    start: float,
    end: float,
    kind: Kind = Kind.IMAGE,
    result: Result = Result.DONE,
    detail: str = "",
) -> Disruption:
    return Disruption(kind, seconds(start), seconds(end), result, detail)


def a_record(
    *builds: Build,
    disruptions: tuple[Disruption, ...] = (),
    settled_after: timedelta | None = timedelta(0),
    trouble: str = "",
) -> Record:
    return Record("pool", 7, builds, disruptions, settled_after, trouble)


def chance_of_at_most(lost: int, total: int, share: float) -> float:
    """The binomial distribution function, without any rounding."""
    exact = Fraction(share)
    return float(
        sum(comb(total, k) * exact**k * (1 - exact) ** (total - k) for k in range(lost + 1))
    )


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_at_the_bound_so_few_losses_have_a_chance_of_one_in_twenty(counts: tuple[int, int]) -> None:
    lost, total = counts
    assert chance_of_at_most(lost, total, upper_bound(lost, total)) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("total", [100, 700, 5000])
def test_without_a_loss_the_bound_is_three_over_the_number_of_builds(total: int) -> None:
    assert upper_bound(0, total) == pytest.approx(3 / total, rel=0.02)


@pytest.mark.parametrize(
    ("lost", "total", "expected"), [(0, 10, 0.2589), (1, 10, 0.3942), (0, 59, 0.0495)]
)
def test_bounds_are_those_of_the_tables(lost: int, total: int, expected: float) -> None:
    assert upper_bound(lost, total) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_bound_is_above_what_was_seen_and_grows_with_confidence(counts: tuple[int, int]) -> None:
    lost, total = counts
    assert lost / total <= upper_bound(lost, total, 0.5) <= upper_bound(lost, total, 0.99) <= 1


def test_who_has_seen_nothing_or_only_losses_knows_nothing() -> None:
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1


def test_more_losses_than_builds_are_refused() -> None:
    with pytest.raises(ValueError, match="4 of 3"):
        upper_bound(4, 3)


def test_disruptions_during_a_build_and_shortly_before_have_to_do_with_it() -> None:
    before = 100 - AFTERMATH.total_seconds()
    near = (a_disruption(before - 2, before), a_disruption(99, 101), a_disruption(130, 140))
    far = (a_disruption(before - 2, before - 1), a_disruption(131, 132))
    assert meanwhile(a_build(100, 130), (*near, *far)) == near


def test_the_verdict_counts_what_was_done_and_apart_from_it_what_was_rightly_refused() -> None:
    record = a_record(
        a_build(),
        a_build(failure="exit code 1"),
        disruptions=tuple(a_disruption(0, 1, result=result) for result in (*Result, Result.DONE)),
    )
    assert verdict(record) == (
        "pool: lost 1/2 builds through 2 disruptions, beside 1 that were refused; "
        "with 95% confidence at most 97 %"
    )


def test_a_report_shows_each_loss_with_what_happened_and_what_the_client_said() -> None:
    text = report(
        a_record(
            a_build(),
            a_build(100, 112, failure="exit code 1", output="one\ntwo"),
            disruptions=(a_disruption(96, 97, Kind.EVICT, detail="pod-a"),),
        )
    )
    assert (
        "lost: buildx, 30 s, started at 100.0 s, after 12.0 s: exit code 1\n"
        "    -4.0 s  evict a builder's pod (done) pod-a\n"
        "  | one\n"
        "  | two\n"
    ) in text


def test_a_report_shows_builds_of_each_kind() -> None:
    text = report(
        a_record(
            a_build(0, 31), a_build(0, 33), a_build(0, 41), a_build(0, 99, failure="exit code 1")
        )
    )
    rows = {line[:27].strip(): line[27:].split() for line in text.splitlines()}
    assert rows["buildx, 30 s"] == ["3", "1", "33.0", "41.0"], "lost ones took no time"
    assert rows["buildctl, 1 s"] == ["0"]
    assert rows["all"] == ["3", "1", "33.0", "41.0"]


def test_a_report_says_which_disruption_failed_and_whether_all_settled() -> None:
    broken = a_disruption(3, 4, Kind.ENV, Result.FAILED, "no such pool")
    text = report(a_record(disruptions=(broken,), settled_after=None, trouble="it rolls"))
    assert "failed: another environment at 3.0 s: no such pool" in text
    assert "pool did not settle: it rolls" in text
    assert "pool settled 9.0 s after" in report(a_record(settled_after=seconds(9)))
