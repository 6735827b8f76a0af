from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import cycle, islice
from typing import Any

from chaos.campaign import work_through
from chaos.records import Result
from chaos.schedule import Kind, Step
from chaos.target import Act

NOW = timedelta(0)


class ATarget:
    """Is disrupted with these results, one after the other; scaling up is all that there is."""

    def __init__(self, *results: Result) -> None:
        self._results = iter(results)

    def acts(self) -> Mapping[Kind, Act]:
        return {Kind.SCALE_UP: lambda _: (next(self._results), "")}


def steps(number: int, *kinds: Kind) -> list[Step]:
    """So many, of these kinds in turn, without a pause."""
    following = islice(cycle(kinds or (Kind.SCALE_UP,)), number)
    return [Step(each, kind, timedelta(0), 0.0) for each, kind in enumerate(following, start=1)]


def results(target: Any, schedule: list[Step], enough: int) -> list[Result]:
    """What became of the disruptions that were tried."""
    return [one.result for _, one in work_through(target, schedule, lambda: NOW, enough=enough)]


def test_it_goes_on_until_so_many_disruptions_are_done() -> None:
    found = (Result.DONE, Result.PROTECTED, Result.PROTECTED, Result.DONE)
    assert results(ATarget(*found), steps(9), 2) == list(found)


def test_it_ends_with_the_schedule_however_few_are_done() -> None:
    assert results(ATarget(*[Result.PROTECTED] * 4), steps(4), 2) == [Result.PROTECTED] * 4


def test_what_is_not_there_is_no_disruption() -> None:
    both = steps(9, Kind.KILL_OPERATOR, Kind.SCALE_UP)
    expected = [Result.NOT_HERE, Result.DONE, Result.NOT_HERE, Result.DONE]
    assert results(ATarget(Result.DONE, Result.DONE), both, 2) == expected
