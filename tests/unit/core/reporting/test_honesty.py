"""The status never says more than is known, and says of each object what became of it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta

import pytest

from buildpool.core import naming
from buildpool.core.api import BuilderState, BuilderStatus, ConditionStatus, PoolStatus, Reason
from buildpool.core.api.status import MAX_BUILDERS
from buildpool.core.errors import RefusedError
from buildpool.core.objects.refs import Ref, ref_of
from buildpool.core.planning.plan import plan
from buildpool.core.reporting.builders import builder_statuses, shown
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.reporting.report import report_pass, report_removal, report_unseen
from memory_cluster import settled
from samples import DAY, HOME, NOW, a_pool, a_situation, planned
from unit.passes import (
    CERTIFICATES,
    PROGRESSING,
    READY,
    condition,
    judged,
    says,
    told,
    told_story,
    with_status,
)


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy"])
def test_a_pool_is_not_ready_whose_way_to_its_builders_is_refused(kind: str) -> None:
    pool = a_pool()
    failure = Failure(Ref(kind, "builds", "ci"), "forbidden: so says a policy")
    verdict = judged(pool, settled(pool).observe(pool), Outcome(failures=(failure,)))
    assert says(verdict, READY) == ("False", "ObjectRefused")
    assert "so says a policy" in condition(verdict, READY).message


def test_what_only_failed_is_not_called_refused() -> None:
    ref = Ref("ConfigMap", "builds", "ci-builder")
    failed = Failure(ref, "failed calling webhook", Reason.OBJECT_FAILED)
    assert str(failed) == f"{ref} could not be written: failed calling webhook"
    pool = a_pool()
    verdict = judged(pool, settled(pool).observe(pool), Outcome(failures=(failed,)))
    assert says(verdict, PROGRESSING) == ("False", "ObjectFailed")


def test_a_service_that_stands_may_fail_for_once() -> None:
    pool = a_pool()
    failed = Failure(Ref("Service", "builds", "ci"), "timeout", Reason.OBJECT_FAILED)
    verdict = judged(pool, settled(pool).observe(pool), Outcome(failures=(failed,)))
    assert says(verdict, READY)[0] == "True"


def test_a_builder_whose_retirement_was_refused_does_not_drain() -> None:
    story = told_story(replicas=2)
    story.change(replicas=1)
    s, todo = planned(story.pool, story.cluster.observe(story.pool), now=story.now)
    (retired,) = todo.decision.retire if todo.decision else ()
    ref = s.members[retired.index].ref
    outcome = Outcome(failures=(Failure(ref, "forbidden: so says a policy"),))
    assert builder_statuses(s, todo, Outcome())[retired.index].state is BuilderState.DRAINING
    assert builder_statuses(s, todo, outcome)[retired.index].state is not BuilderState.DRAINING


def test_of_a_pool_that_may_not_be_read_nothing_is_claimed() -> None:
    pool = a_pool()
    pool = with_status(pool, judged(pool, settled(pool).observe(pool)))
    error = RefusedError('networkpolicies is forbidden: User "buildpool" cannot list')
    verdict = report_unseen(pool, error, now=NOW)
    ready = condition(verdict, READY)
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, "Forbidden")
    assert "cannot list" in ready.message
    assert says(verdict, PROGRESSING) == ("False", "Forbidden")
    assert [reason for _, reason in told(verdict)] == ["Forbidden"]
    assert verdict.status.observed_generation == pool.generation, "tools go by it"
    assert report_unseen(with_status(pool, verdict), error, now=NOW + DAY).events == ()


def test_a_removal_that_is_refused_says_so() -> None:
    pool = a_pool()
    failure = Failure(Ref("Secret", "builds", "ci-builder"), "forbidden: protect Secrets")
    verdict = report_removal(pool, draining=(), failures=(failure,), now=NOW)
    assert says(verdict, READY) == ("False", "ObjectRefused")
    assert "protect Secrets" in condition(verdict, READY).message


def test_a_status_names_those_that_serve_where_it_cannot_name_all() -> None:
    draining = [
        BuilderStatus(name=f"old-{n:03}", state=BuilderState.DRAINING, ready=False, revision="a")
        for n in range(200)
    ]
    serving = [
        BuilderStatus(name=f"new-{n:03}", state=BuilderState.SERVING, ready=True, revision="b")
        for n in range(100)
    ]
    found = shown([*draining, *serving])
    assert len(found) == MAX_BUILDERS
    assert {b.name for b in serving} <= {b.name for b in found}
    PoolStatus(builders=found)


def test_the_counts_of_a_status_speak_of_all_builders_where_it_cannot_name_all() -> None:
    pool = a_pool(replicas=100)
    cluster = settled(a_pool())
    first = cluster["Deployment/ci-builder-0"]
    for number in range(1, 300):
        other = deepcopy(first)
        other["metadata"] |= {"name": f"ci-builder-{number}", "uid": f"uid-{number}"}
        if number >= 100:
            other["metadata"]["annotations"][naming.ANNOTATION_RETIRED] = NOW.isoformat()
        cluster.objects[ref_of(other)] = other
    status = judged(pool, cluster.observe(pool)).status
    assert len(status.builders) == MAX_BUILDERS
    assert sum(b.state is not BuilderState.DRAINING for b in status.builders) == 100
    assert status.replicas == 300


def test_an_authority_from_the_future_is_reported_and_not_thrown_away() -> None:
    pool, ahead = a_pool(), NOW + timedelta(days=30)
    cluster = settled(pool)
    cluster.objects.clear()
    cluster.now = ahead
    cluster.settle(pool)
    cluster.now = NOW
    s = a_situation(pool, cluster.observe(pool))
    verdict = report_pass(s, plan(s), Outcome())
    assert says(verdict, CERTIFICATES) == ("False", "CertificateFailed")
    assert "clock was ahead" in condition(verdict, CERTIFICATES).message
    assert Ref("Secret", HOME, "authority.builds.ci") in cluster.objects


def test_an_authority_of_a_clock_that_was_hours_ahead_is_valid_already() -> None:
    pool = a_pool()
    cluster = settled(pool)
    s = a_situation(pool, cluster.observe(pool), now=NOW - timedelta(hours=12))
    verdict = report_pass(s, plan(s), Outcome())
    assert says(verdict, CERTIFICATES)[0] == "True"


def test_a_reason_of_a_newer_operator_is_no_error() -> None:
    pool = a_pool()
    status = judged(pool, settled(pool).observe(pool)).status
    newer = tuple(c.model_copy(update={"reason": "FromTheFuture"}) for c in status.conditions)
    pool = replace(pool, status=status.model_copy(update={"conditions": newer}))
    assert report_removal(pool, draining=(), now=NOW).status.conditions
    assert judged(pool, settled(pool).observe(pool)).status.conditions
