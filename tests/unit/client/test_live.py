"""Pools as ``top`` draws them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.live import page
from buildpool.client.parsing import Seen, pool_in
from buildpool.core.api.status import format_time
from samples import NOW, a_raw_pool


def ago(**span: float) -> str:
    return format_time(NOW - timedelta(**span))


def seen(name: str = "ci", **status: Any) -> Seen:
    known = {"observedGeneration": 1, "ready": "2/2", "busy": "3/4", **status}
    return pool_in(a_raw_pool(name=name, status=known, routing="Gateway"))


def a_builder(number: int, builds: int | None, *running: tuple[str, str], **fields: Any) -> Any:
    return {
        "name": f"ci-builder-{number}",
        "state": "Serving",
        "ready": True,
        "revision": "3f2a5b6c",
        "builds": builds,
        "running": [{"ref": ref, "since": since} for ref, since in running],
        **fields,
    }


PAGE = """\
builds/ci: 2/2 builders, 3/4 slots, 3 builds waiting
  AtMaximum: 6 builds run or wait.
  ci-builder-0   ■■  w2izmpx89u0c 12m, 949xh8lxtgqg 3s
  ci-builder-1   ■□  shared 1m
  ci-builder-10  ?  Draining
  waiting: ci 2, anna 1; none has got a slot for 20s"""


def test_a_pool_is_drawn_with_its_slots_its_builds_and_its_queue() -> None:
    pool = seen(
        waiting=3,
        scaling={"size": 2, "reason": "AtMaximum", "message": "6 builds run or wait."},
        builders=[
            a_builder(
                0,
                2,
                ("w2izmpx89u0c5vbn6u5zzzgl5", ago(minutes=12)),
                ("949xh8lxtgqglw2mn2i5a07nf", ago(seconds=3)),
            ),
            a_builder(1, 1, ("shared", ago(minutes=1))),
            a_builder(10, None, state="Draining"),
        ],
        gateways=[
            {
                "name": "one",
                "waiting": 2,
                "since": ago(seconds=20),
                "queue": [{"client": "anna", "waiting": 1}, {"client": "ci", "waiting": 1}],
            },
            {"name": "two", "waiting": 1, "queue": [{"client": "ci", "waiting": 1}]},
        ],
    )
    assert page([pool], now=NOW) == PAGE


def test_more_builds_than_are_named_are_counted() -> None:
    pool = seen(builders=[a_builder(0, 9, ("a", ago(minutes=1)))])
    assert "■■■■■■■■■  a 1m, and 8 more" in page([pool], now=NOW)


def test_a_node_whose_clock_is_ahead_shows_no_future() -> None:
    pool = seen(builders=[a_builder(0, 1, ("a", ago(minutes=-5)))])
    assert "a 0s" in page([pool], now=NOW)


def test_what_is_wrong_comes_first() -> None:
    bad = {
        "type": "Ready",
        "status": "False",
        "reason": "ImagePullFailed",
        "message": "no image",
        "lastTransitionTime": ago(minutes=1),
    }
    shown = page([seen("a"), seen("z", conditions=[bad])], now=NOW)
    assert shown.splitlines()[:2] == [
        "builds/z: 2/2 builders, 3/4 slots",
        "  ImagePullFailed: no image.",
    ]


texts = st.text(max_size=20)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)


@given(
    status=st.fixed_dictionaries(
        {
            "ready": jsons,
            "busy": jsons,
            "scaling": jsons
            | st.fixed_dictionaries({"size": st.integers(), "reason": texts, "message": texts}),
            "builders": st.lists(
                st.fixed_dictionaries(
                    {
                        "name": texts,
                        "ready": st.booleans(),
                        "revision": texts,
                        "state": texts,
                        "builds": st.integers() | st.none(),
                        "running": st.lists(
                            st.fixed_dictionaries({"ref": texts, "since": texts | st.none()}),
                            max_size=9,
                        ),
                    }
                ),
                max_size=3,
            ),
            "gateways": st.lists(
                st.fixed_dictionaries(
                    {
                        "name": texts,
                        "queue": st.lists(
                            st.fixed_dictionaries({"client": texts, "waiting": st.integers()}),
                            max_size=3,
                        ),
                    }
                ),
                max_size=2,
            ),
        }
    )
)
def test_whatever_stands_in_a_status_is_drawn_and_moves_no_cursor(status: Any) -> None:
    shown = page([seen(**status)], now=NOW)
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert shown.startswith("builds/ci: ")
