from __future__ import annotations

from collections import Counter
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from chaos.removals import ALWAYS, DELETED, LONGEST_THEFT, SHORT, Act, Moment, Turn, order, steps

SEEDS = st.integers(0, 2**32)
LONG = range(1, 21)
"""The seeds of the long form."""


@given(SEEDS)
def test_a_seed_is_one_order(seed: int) -> None:
    assert order(seed) == order(seed)


@given(SEEDS)
def test_a_pool_is_deleted_once_and_all_else_happens_once_or_twice(seed: int) -> None:
    found = Counter(turn.act for turn in order(seed))
    assert found[Act.DELETE] == 1
    assert {found[Act.KILL], found[Act.TAKE]} <= {1, 2}
    assert found.total() <= 4


@given(SEEDS)
def test_nothing_of_a_deletion_is_waited_for_before_it(seed: int) -> None:
    turns = order(seed)
    deleted = [turn.act for turn in turns].index(Act.DELETE)
    assert all(turn.after in ALWAYS for turn in turns[: deleted + 1])


@given(SEEDS)
def test_a_build_has_a_step_for_each_that_is_waited_for(seed: int) -> None:
    turns = order(seed)
    assert steps(turns) == 1 + [turn.after for turn in turns].count(Moment.STEP)


@given(st.floats(0, 1, exclude_max=True))
def test_a_theft_lasts_for_whole_seconds(draw: float) -> None:
    assert 1 <= Turn(Moment.AT_ONCE, Act.TAKE, draw).seconds <= LONGEST_THEFT


def test_the_long_form_has_every_order_and_waits_for_everything() -> None:
    found = [tuple(dict.fromkeys(turn.act for turn in order(seed))) for seed in LONG]
    assert set(found) == set(permutations(Act))
    assert {turn.after for seed in LONG for turn in order(seed)} == set(DELETED)
    kills = [turn for seed in LONG for turn in order(seed) if turn.act is Act.KILL]
    assert {turn.takes_the_pod for turn in kills} == {True, False}


def test_the_short_form_deletes_first_and_in_the_midst_and_kills_with_the_pod_and_without() -> None:
    found = [order(seed) for seed in SHORT]
    assert {[turn.act for turn in turns].index(Act.DELETE) for turns in found} == {0, 1}
    kills = [turn.takes_the_pod for turns in found for turn in turns if turn.act is Act.KILL]
    assert set(kills) == {True, False}


def test_an_order_is_the_same_in_every_version_of_this_code() -> None:
    """Else a seed in a report says nothing. Whoever changes acts or moments changes this, too."""
    assert [(turn.after, turn.act) for turn in order(5)] == [
        (Moment.LED, Act.DELETE),
        (Moment.TOLD, Act.KILL),
        (Moment.LEAVES, Act.TAKE),
        (Moment.MARKED, Act.TAKE),
    ]
