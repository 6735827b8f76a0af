"""How builders are replaced: the new one first, the old one drained, and never a build lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool
from buildpool.core.objects.pods import serves
from buildpool.core.objects.refs import is_terminating
from buildpool.core.scaling import NOTICE, SETTLE
from memory_cluster import PASS, MemoryCluster, settled
from plans import PERSISTENT, created, image, removed, retired, turnover
from samples import a_pool, a_situation

HOUR = timedelta(hours=1)
NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def a_pool_of(tag: str, replicas: int = 1, **builders: Any) -> Pool:
    """A pool whose builders run this image."""
    return a_pool(replicas=replicas, builders=image(tag, **builders))


def serving(cluster: MemoryCluster) -> set[str]:
    """The builders that get new builds."""
    return {
        pod["metadata"]["labels"][naming.LABEL_BUILDER]
        for pod in cluster.pods.values()
        if serves(pod)
        and not is_terminating(pod)
        # The last condition says whether it is ready; there is none without a node.
        and pod["status"]["conditions"][-1] == {"type": "Ready", "status": "True"}
    }


# --- one by one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("builders", [{}, PERSISTENT], ids=["ephemeral", "persistent"])
def test_a_new_image_brings_a_new_builder_and_then_the_old_one_goes(
    builders: dict[str, object],
) -> None:
    cluster = settled(a_pool_of("v1", **builders))
    assert [turnover(todo) for todo in cluster.settle(a_pool_of("v2", **builders))] == [
        (["ci-builder-1"], [], []),
        ([], ["ci-builder-0"], []),
        ([], [], ["ci-builder-0"]),
    ]
    assert serving(cluster) == {"ci-builder-1"}


def test_as_many_builders_as_wanted_serve_throughout_and_one_more_at_most() -> None:
    cluster = settled(a_pool_of("v1", 3))
    pool, plans = a_pool_of("v2", 3), []
    while not (todo := cluster.step(pool)).is_empty:
        plans.append(turnover(todo))
        assert 3 <= len(serving(cluster)) <= 4
    assert plans == [
        (["ci-builder-3"], [], []),
        (["ci-builder-4"], ["ci-builder-2"], []),
        (["ci-builder-5"], ["ci-builder-1"], ["ci-builder-2"]),
        ([], ["ci-builder-0"], ["ci-builder-1"]),
        ([], [], ["ci-builder-0"]),
    ]


def test_where_no_more_builders_than_wanted_may_serve_an_old_one_retires_first() -> None:
    rollout = {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}
    cluster = settled(a_pool_of("v1", 2, **rollout))
    pool, plans = a_pool_of("v2", 2, **rollout), []
    while not (todo := cluster.step(pool)).is_empty:
        plans.append(turnover(todo))
        assert 1 <= len(serving(cluster)) <= 2
    assert plans == [
        (["ci-builder-2"], ["ci-builder-1"], []),
        (["ci-builder-3"], ["ci-builder-0"], ["ci-builder-1"]),
        ([], [], ["ci-builder-0"]),
    ]


def test_an_old_builder_takes_builds_until_a_new_one_does() -> None:
    cluster = settled(a_pool_of("v1", 2))
    pool = a_pool_of("v2", 2)
    cluster.act(cluster.plan(pool))  # the controllers have not seen it yet
    assert cluster.plan(pool).is_empty
    cluster.roll()
    assert retired(cluster.plan(pool)) == ["ci-builder-1"]


def test_it_is_told_why_a_builder_retires_and_that_no_build_ran_when_it_went() -> None:
    cluster = settled(a_pool_of("v1"))
    _, second, third = cluster.settle(a_pool_of("v2"))
    (told,) = (mark.message for mark in second.mark if mark.reason is EventReason.RETIRED_BUILDER)
    assert told.startswith("retired Deployment builds/ci-builder-0 (Outdated): it does not run")
    assert [d.message for d in third.delete] == [
        "removed Deployment builds/ci-builder-0: no build runs on it"
    ]


def test_a_rollout_of_a_pool_that_grows_adds_all_that_are_wanted_and_one() -> None:
    cluster = settled(a_pool_of("v1", 2))
    assert created(cluster.step(a_pool_of("v2", 4))) == [
        "ci-builder-2",
        "ci-builder-3",
        "ci-builder-4",
    ]


# --- builds --------------------------------------------------------------------------------------


def test_a_busy_builder_stays_until_its_builds_end() -> None:
    cluster = settled(a_pool_of("v1"))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool_of("v2")
    assert [turnover(todo) for todo in cluster.settle(pool)] == [
        (["ci-builder-1"], [], []),
        ([], ["ci-builder-0"], []),
    ]
    cluster.now += HOUR
    assert cluster.settle(pool) == []

    cluster.builds = {}
    assert [turnover(todo) for todo in cluster.settle(pool)] == [([], [], ["ci-builder-0"])]


def test_the_idle_ones_are_replaced_first_and_the_busy_ones_hold_nobody_up() -> None:
    cluster = settled(a_pool_of("v1", 3))
    cluster.builds = {"ci-builder-1": 1, "ci-builder-2": 2}
    pool = a_pool_of("v2", 3)
    plans = cluster.settle(pool)
    order = [name for todo in plans for name in retired(todo)]
    assert order == ["ci-builder-0", "ci-builder-1", "ci-builder-2"]
    assert [name for todo in plans for name in removed(todo)] == ["ci-builder-0"]
    assert serving(cluster) == {"ci-builder-3", "ci-builder-4", "ci-builder-5"}


def test_what_was_seen_before_no_more_builds_could_come_proves_nothing() -> None:
    cluster = settled(a_pool_of("v1"))
    pool = a_pool_of("v2")
    cluster.step(pool)
    assert retired(cluster.step(pool)) == ["ci-builder-0"]
    cluster.now -= PASS
    cluster.now += SETTLE - timedelta(milliseconds=1)
    todo = cluster.plan(pool)
    assert removed(todo) == []
    assert todo.recheck == timedelta(milliseconds=1)
    cluster.now += todo.recheck
    assert removed(cluster.plan(pool)) == ["ci-builder-0"]


def test_a_build_that_came_late_to_a_retired_builder_is_waited_for() -> None:
    cluster = settled(a_pool_of("v1"))
    pool = a_pool_of("v2")
    cluster.step(pool)
    cluster.step(pool)
    cluster.builds = {"ci-builder-0": 1}
    assert removed(cluster.step(pool)) == []


def test_a_retired_builder_that_does_not_answer_is_not_removed() -> None:
    cluster = settled(a_pool_of("v1"))
    cluster.silent = {"ci-builder-0"}
    pool = a_pool_of("v2")
    assert [turnover(todo) for todo in cluster.settle(pool)] == [
        (["ci-builder-1"], [], []),
        ([], ["ci-builder-0"], []),
    ]
    assert cluster.plan(pool).recheck == timedelta(seconds=1), "it is asked again soon"
    cluster.silent = set()
    assert removed(cluster.step(pool)) == ["ci-builder-0"]


@pytest.mark.parametrize("is_silent", [False, True], ids=["busy", "silent"])
def test_a_builder_whose_builds_are_overdue_goes_ten_minutes_after_that_was_reported(
    is_silent: bool,
) -> None:
    cluster = settled(a_pool_of("v1", maxBuildDuration="1h"))
    cluster.builds = {"ci-builder-0": 1}
    cluster.silent = {"ci-builder-0"} if is_silent else set()
    pool = a_pool_of("v2", maxBuildDuration="1h")
    cluster.settle(pool)
    (since,) = (
        m.builder.retired
        for m in a_situation(pool, cluster.observe(pool)).members
        if m.builder.retired
    )

    cluster.now = since + HOUR - PASS
    assert cluster.step(pool).is_empty
    assert cluster.step(pool).is_empty, "it is only reported now"
    cluster.now = since + HOUR + NOTICE - PASS
    todo = cluster.step(pool)
    assert todo.is_empty
    assert todo.recheck <= PASS
    todo = cluster.step(pool)
    assert removed(todo) == ["ci-builder-0"]
    assert "overdue" in todo.delete[0].message
    # The grace of its pod begins: what is still running has its longest build once more.
    assert any(is_terminating(pod) for pod in cluster.pods.values())


def test_a_build_is_not_cut_short_because_the_operator_was_away() -> None:
    cluster = settled(a_pool_of("v1", maxBuildDuration="1h"))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool_of("v2", maxBuildDuration="1h")
    cluster.settle(pool)
    cluster.now += 5 * HOUR
    assert cluster.step(pool).is_empty, "nobody could have read the report"
    cluster.now += NOTICE - 2 * PASS
    assert cluster.step(pool).is_empty
    assert removed(cluster.step(pool)) == ["ci-builder-0"]


# --- revisions that do not work ------------------------------------------------------------------


@pytest.mark.parametrize("builders", [{}, PERSISTENT], ids=["ephemeral", "persistent"])
def test_a_bad_revision_stops_at_the_first_builder_and_the_next_one_mends_it(
    builders: dict[str, object],
) -> None:
    cluster = settled(a_pool_of("v1", 3, **builders))
    cluster.bad_images = {"r.example/buildkit:v2"}
    bad = cluster.settle(a_pool_of("v2", 3, **builders))
    assert [turnover(todo) for todo in bad] == [(["ci-builder-3"], [], [])]
    assert serving(cluster) == {"ci-builder-0", "ci-builder-1", "ci-builder-2"}

    mended = cluster.settle(a_pool_of("v3", 3, **builders))
    assert turnover(mended[0]) == (["ci-builder-4"], ["ci-builder-3"], [])
    assert [name for todo in mended for name in retired(todo)] == [
        "ci-builder-3",
        "ci-builder-2",
        "ci-builder-1",
        "ci-builder-0",
    ]
    assert len(serving(cluster)) == len(cluster.pods) == 3


def test_a_bad_revision_can_be_taken_back() -> None:
    before = a_pool_of("v1", 2)
    cluster = settled(before)
    cluster.bad_images = {"r.example/buildkit:v2"}
    cluster.settle(a_pool_of("v2", 2))
    assert [turnover(todo) for todo in cluster.settle(before)] == [
        ([], ["ci-builder-2"], []),
        ([], [], ["ci-builder-2"]),
    ]


def test_a_good_revision_that_is_taken_back_restores_what_still_drains() -> None:
    before = a_pool_of("v1")
    cluster = settled(before)
    cluster.builds = {"ci-builder-0": 1}
    cluster.settle(a_pool_of("v2"))
    assert [turnover(todo) for todo in cluster.settle(before)] == [
        NOTHING,  # builder 0 serves again
        ([], ["ci-builder-1"], []),
        ([], [], ["ci-builder-1"]),
    ]
    assert serving(cluster) == {"ci-builder-0"}


def test_builders_that_do_not_serve_are_replaced_first_and_together() -> None:
    cluster = settled(a_pool_of("v1", 4))
    cluster.full = {"ci-builder-1", "ci-builder-3"}
    cluster.roll()
    first = cluster.step(a_pool_of("v2", 4))
    assert retired(first) == ["ci-builder-1", "ci-builder-3"]
    assert len(created(first)) == 3


# --- crashes and others --------------------------------------------------------------------------


def test_a_crash_between_the_two_marks_of_a_retired_builder_is_mended() -> None:
    cluster = settled(a_pool_of("v1"))
    pool = a_pool_of("v2")
    cluster.step(pool)
    todo = cluster.plan(pool)
    assert [mark.ref.kind for mark in todo.mark] == ["Deployment", "Pod"]
    cluster.act(replace(todo, mark=todo.mark[:1], apply=(), delete=()))
    assert serving(cluster) == {"ci-builder-0", "ci-builder-1"}

    cluster.now += HOUR
    mending = cluster.step(pool)
    assert [mark.ref.kind for mark in mending.mark] == ["Pod"]
    assert removed(mending) == [], "until now it could get builds"
    assert serving(cluster) == {"ci-builder-1"}
    assert removed(cluster.step(pool)) == ["ci-builder-0"]


def test_a_pod_that_comes_again_to_a_retired_builder_is_taken_out_of_the_service() -> None:
    cluster = settled(a_pool_of("v1"))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool_of("v2")
    cluster.settle(pool)
    cluster.pods = {n: pod for n, pod in cluster.pods.items() if "builder-0" not in n}
    cluster.roll()
    assert serving(cluster) == {"ci-builder-0", "ci-builder-1"}
    cluster.step(pool)
    assert serving(cluster) == {"ci-builder-1"}


def test_a_builder_that_was_restored_meanwhile_is_not_removed() -> None:
    cluster = settled(a_pool_of("v1"))
    pool = a_pool_of("v2")
    cluster.step(pool)
    cluster.step(pool)
    late = cluster.plan(pool)
    assert removed(late) == ["ci-builder-0"]
    cluster.step(a_pool_of("v1"))  # by another leader
    cluster.act(late)
    assert "ci-builder-0" in cluster.names("Deployment")
