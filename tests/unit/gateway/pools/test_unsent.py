"""Lists that clients have not taken yet: bounded, at the cost of those who do not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from buildpool.buildkit import BuildEvent, BuildEventKind
from buildpool.core.naming import PoolKey
from buildpool.core.observed.load import RunningBuild
from buildpool.gateway.pools import unsent as module
from buildpool.gateway.pools.unsent import UnsentList, UnsentLists
from buildpool.gateway.slots.refusals import Exhausted

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


def events(number: int) -> list[BuildEvent]:
    """Of ten bytes each."""
    build = RunningBuild("ref", None)
    return [BuildEvent(BuildEventKind.COMPLETE, build, message=bytes(10)) for _ in range(number)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def is_given_up(unsent: UnsentList) -> bool:
    try:
        unsent.take()
    except Exhausted:
        return True
    return False


def test_a_list_is_taken_one_by_one_and_has_an_end() -> None:
    lists = UnsentLists()
    with lists.holding(CI, events(2)) as unsent:
        sizes = [(unsent.take() is not None, lists.size) for _ in range(3)]
    assert sizes == [(True, 10), (True, 0), (False, 0)]


def test_what_is_not_taken_is_dropped_at_the_end() -> None:
    lists = UnsentLists()
    with lists.holding(CI, events(2)) as unsent:
        pass
    assert (lists.size, unsent.size) == (0, 0)


def test_the_oldest_of_the_pool_that_has_the_most_makes_room(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNSENT_BYTES", 100)
    lists = UnsentLists()
    other = stack.enter_context(lists.holding(OTHER, events(3)))
    first, second = (stack.enter_context(lists.holding(CI, events(3))) for _ in range(2))
    assert not any(map(is_given_up, (other, first, second)))
    third = stack.enter_context(lists.holding(OTHER, events(5)))
    assert [is_given_up(each) for each in (other, first, second, third)] == [
        True, False, False, False,
    ]  # fmt: skip
    assert lists.size <= 100
