"""Each build is counted once, and no more of them are remembered than is needed for that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit.served import REMEMBERED_SECONDS, ServedBuilds


def test_a_build_that_is_named_again_is_counted_once() -> None:
    served = ServedBuilds()
    served.count(["a", "b", "a"], now=0)
    served.count(["b"], now=REMEMBERED_SECONDS)
    assert served.total == 2


def test_what_was_not_named_for_a_while_is_forgotten_and_stays_counted() -> None:
    served = ServedBuilds()
    served.count(["ended", "runs"], now=0)
    served.count(["runs"], now=REMEMBERED_SECONDS)
    served.forget(now=REMEMBERED_SECONDS)
    assert (served.remembered, served.total) == (("runs",), 2)


def test_of_a_flood_only_the_builds_named_last_are_remembered() -> None:
    served = ServedBuilds(most=10)
    served.count(["runs"], now=0)
    served.count((f"short-{number}" for number in range(100)), now=1)
    assert served.total == 101
    assert served.remembered == tuple(f"short-{number}" for number in range(90, 100))


@given(st.lists(st.sampled_from("abcdefgh")), st.integers(8, 10))
def test_the_total_is_the_number_of_different_builds(refs: list[str], most: int) -> None:
    served = ServedBuilds(most=most)
    served.count(refs, now=0)
    assert served.total == len(set(refs))
    assert set(served.remembered) == set(refs)
