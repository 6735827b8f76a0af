"""What a pool's conditions say in each situation: what holds, why, and what would help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from buildpool.core import naming
from buildpool.core.api import Reason
from buildpool.core.api.events import EventType
from buildpool.core.objects.pods import name_of_builder
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.reporting.outcome import Failure, Outcome
from memory_cluster import MemoryCluster, settled
from plans import image
from samples import DAY, NOW, a_pod, a_pool, clients, foreign
from unit.passes import (
    CERTIFICATES,
    MINUTE,
    PROGRESSING,
    READY,
    Story,
    condition,
    judged,
    says,
    told,
    told_story,
    with_pods,
)

SERVICE = Ref("Service", "builds", "ci")
V1, V2 = "r.example/buildkit:v1", "r.example/buildkit:v2"


# --- builders come, go and are replaced ----------------------------------------------------------


def test_a_rollout_tells_how_far_it_is_and_nobody_waits_for_it() -> None:
    story = told_story(replicas=2, builders={"image": V1})
    story.change(replicas=2, builders={"image": V2})
    messages = []
    while says(verdict := story.look(), PROGRESSING)[1] != "Settled":
        assert says(verdict, READY) == ("True", "Ready")
        assert says(verdict, PROGRESSING) in (("True", "RollingOut"), ("True", "Draining"))
        messages.append(condition(verdict, PROGRESSING).message)
        assert len(messages) < 20
    tail = "of 2 builders are as the spec wants them."
    steps = [message for message in messages if message.endswith(tail)]
    assert steps[0] == f"0 {tail}"
    assert f"1 {tail}" in steps
    assert steps == sorted(steps), "it never goes back"
    assert {builder.revision for builder in story.pool.status.builders} == {
        verdict.status.builders[0].revision
    }


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_rollout_that_is_stuck_says_why_and_how_many_of_before_keep_serving(
    replicas: int,
) -> None:
    story = told_story(replicas=replicas, builders={"image": V1})
    story.cluster.full = {f"ci-builder-{replicas}"}
    story.change(replicas=replicas, builders={"image": V2})
    verdict = story.settle()
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "Unschedulable")
    message = condition(verdict, PROGRESSING).message
    assert message.startswith(f"ci-builder-{replicas}: no node takes the pod: ")
    assert f"; {replicas} builder" in message
    assert " of the previous revision keep" in message
    assert verdict.status.ready == f"{replicas}/{replicas}"


def test_a_rollout_that_is_stuck_goes_on_when_the_spec_is_mended() -> None:
    story = told_story(builders={"image": V1})
    story.cluster.full = {"ci-builder-1"}
    story.change(builders={"image": V2})
    assert says(story.settle(), PROGRESSING) == ("False", "Unschedulable")
    story.cluster.full = set()
    story.change(builders={"image": V1})
    verdict = story.settle()
    assert says(verdict, PROGRESSING) == ("False", "Settled")
    assert says(verdict, READY) == ("True", "Ready")
    assert len(verdict.status.builders) == 1


def test_a_builder_that_cannot_start_is_told_with_nobody_of_before_where_there_is_nobody() -> None:
    story = Story(a_pool())
    story.cluster.full = {"ci-builder-0"}
    verdict = story.settle()
    assert says(verdict, READY) == says(verdict, PROGRESSING) == ("False", "Unschedulable")
    assert "keep serving" not in condition(verdict, PROGRESSING).message


def test_a_builder_that_is_replaced_while_it_builds_is_waited_for_by_name() -> None:
    story = told_story(builders={"image": V1})
    story.start(0, "x")
    story.change(builders={"image": V2})
    verdict = story.settle()
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("True", "Draining")
    assert condition(verdict, PROGRESSING).message == "Waiting for the builds of ci-builder-0."
    story.finish(0)
    assert says(story.settle(), PROGRESSING) == ("False", "Settled")


def test_builders_that_are_being_added_are_counted_and_then_named() -> None:
    story = told_story(replicas=1)
    story.cluster.full = {"ci-builder-1", "ci-builder-2"}
    story.change(replicas=3)
    verdict = story.look()
    assert says(verdict, PROGRESSING) == ("True", "Scaling")
    assert condition(verdict, PROGRESSING).message == "2 builders being added."
    assert says(verdict, READY) == ("False", "BuildersStarting")
    assert condition(verdict, READY).message == "1 of 3 builders are ready; more are being added."

    pool = story.pool
    pods = (a_pod("ci-builder-0"), a_pod("ci-builder-1", ready=False), a_pod("ci-builder-2"))
    starting = judged(pool, with_pods(story.observe(), *pods))
    assert says(starting, PROGRESSING) == ("True", "Scaling")
    assert condition(starting, PROGRESSING).message == "Waiting for ci-builder-1."


def test_a_smaller_pool_waits_until_builders_are_idle() -> None:
    story = told_story(replicas=3)
    for builder in range(3):
        story.start(builder, f"build-{builder}")
    story.change(replicas=1)
    verdict = story.settle()
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("True", "Scaling")
    message = "2 builders to be removed, each once it is idle."
    assert condition(verdict, PROGRESSING).message == message
    assert (verdict.status.ready, verdict.status.replicas) == ("1/1", 3)
    assert (verdict.status.busy, verdict.status.slots) == ("3/6", 6)

    story.finish(1)
    story.finish(2)
    verdict = story.settle()
    assert story.names() == ["ci-builder-0"]
    assert says(verdict, PROGRESSING) == ("False", "Settled")
    assert (verdict.status.busy, verdict.status.slots) == ("1/2", 2)


def test_idle_builders_that_are_too_many_drain_at_once() -> None:
    story = told_story(replicas=3)
    story.change(replicas=1)
    verdict = story.look()
    assert says(verdict, PROGRESSING) == ("True", "Draining")
    assert (verdict.status.ready, verdict.status.replicas) == ("1/1", 3)
    assert [b.state for b in verdict.status.builders] == ["Serving", "Draining", "Draining"]


def test_a_builder_whose_builds_never_end_keeps_a_pool_draining_but_ready() -> None:
    story = told_story(builders={"image": V1})
    story.start(0, "endless")
    story.change(builders={"image": V2})
    story.settle()
    story.wait(30 * MINUTE)
    verdict = story.look()
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("True", "Draining")


def test_the_remains_of_an_evicted_pod_trouble_nobody() -> None:
    pool = a_pool()
    evicted = a_pod(suffix="old", phase="Failed", ended={"exitCode": 137, "reason": "Error"})
    observation = with_pods(settled(pool).observe(pool), evicted, a_pod())
    verdict = judged(pool, observation)
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "Settled")
    assert verdict.status.builders[0].reason is None


def test_the_first_builder_in_trouble_gives_the_reason_not_one_that_just_starts() -> None:
    pool = a_pool(replicas=3)
    observation = settled(pool).observe(pool)
    pods = (
        a_pod("ci-builder-0"),
        a_pod("ci-builder-1", ready=False),
        a_pod("ci-builder-2", unschedulable="0/1 nodes are available: 1 Insufficient memory."),
    )
    verdict = judged(pool, with_pods(observation, *pods))
    assert says(verdict, READY) == ("False", "Unschedulable")
    message = condition(verdict, READY).message
    assert message.startswith("1 of 3 builders are ready; ci-builder-2: no node takes the pod")
    assert says(verdict, PROGRESSING) == ("False", "Unschedulable")
    assert [b.reason for b in verdict.status.builders] == [
        None,
        "BuildersStarting",
        "Unschedulable",
    ]


def test_a_pool_without_builders_says_how_to_get_some() -> None:
    pool = a_pool(replicas=0)
    verdict = judged(pool, settled(pool).observe(pool))
    assert says(verdict, READY) == ("True", "ScaledToZero"), "none is wanted, none is missing"
    assert "set spec.replicas to 1 or more" in condition(verdict, READY).message
    assert says(verdict, PROGRESSING) == ("False", "Settled")


def test_what_the_cluster_refuses_is_quoted() -> None:
    failure = Failure(
        Ref("Deployment", "builds", "ci-builder-0"), "admission webhook denied the request"
    )
    verdict = judged(a_pool(), Observation(), Outcome(failures=(failure,)))
    assert says(verdict, READY) == ("False", "ObjectRefused")
    assert "Deployment builds/ci-builder-0" in condition(verdict, READY).message
    assert "admission webhook denied the request" in condition(verdict, READY).message
    assert says(verdict, CERTIFICATES) == ("True", "Issued")


def test_builders_that_serve_are_ready_though_a_change_was_refused() -> None:
    pool = a_pool()
    failure = Failure(Ref("PersistentVolumeClaim", "builds", "ci-builder-0"), "cannot be shrunk")
    verdict = judged(pool, settled(pool).observe(pool), Outcome(failures=(failure,)))
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "ObjectRefused")
    assert "cannot be shrunk" in condition(verdict, PROGRESSING).message


def test_a_refused_secret_is_a_matter_of_certificates() -> None:
    failure = Failure(Ref("Secret", "builds", "ci-client-ana"), "exceeded quota: secrets")
    verdict = judged(a_pool(access=clients("ana")), Observation(), Outcome(failures=(failure,)))
    assert says(verdict, CERTIFICATES) == ("False", "CertificateFailed")
    assert "Secret builds/ci-client-ana" in condition(verdict, CERTIFICATES).message


@pytest.mark.parametrize(
    ("kind", "reason"), [("Secret", "SecretNotFound"), ("ConfigMap", "ConfigMapNotFound")]
)
def test_what_the_spec_names_and_is_not_there_is_named(kind: str, reason: str) -> None:
    pool = a_pool()
    observation = with_pods(settled(pool).observe(pool), a_pod(ready=False))
    observation = replace(observation, absent=frozenset({Ref(kind, "builds", "corporate-ca")}))
    verdict = judged(pool, observation)
    assert says(verdict, READY) == ("False", reason)
    assert f"{kind} builds/corporate-ca" in condition(verdict, READY).message
    assert "create it" in condition(verdict, READY).message


def test_a_rollout_that_waits_for_what_is_missing_says_so_though_the_pool_is_ready() -> None:
    cluster = settled(a_pool(replicas=1, builders=image("v1")))
    pool = a_pool(replicas=1, builders=image("v2"))
    cluster.step(pool)
    (new,) = (pod for pod in cluster.pods.values() if name_of_builder(pod) == "ci-builder-1")
    new["status"] = {"phase": "Pending", "conditions": []}
    secret = Ref("Secret", "builds", "corporate-ca")
    verdict = judged(pool, replace(cluster.observe(pool), absent=frozenset({secret})))
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "SecretNotFound")
    assert "Secret builds/corporate-ca" in condition(verdict, PROGRESSING).message


def test_what_is_missing_is_no_news_while_all_builders_serve() -> None:
    pool = a_pool()
    observation = replace(
        settled(pool).observe(pool), absent=frozenset({Ref("Secret", "builds", "gone")})
    )
    assert says(judged(pool, observation), READY) == ("True", "Ready")


# --- names that are taken -------------------------------------------------------------------------


def conflicting(cluster: MemoryCluster, ref: Ref, **fields: object) -> Observation:
    cluster.objects[ref] = foreign(ref, **fields)
    return cluster.observe(a_pool())


def test_a_conflict_is_named_with_its_remedy_and_nothing_is_claimed() -> None:
    verdict = judged(a_pool(), conflicting(MemoryCluster(), SERVICE))
    for kind in (READY, PROGRESSING, CERTIFICATES):
        assert says(verdict, kind) == ("False", "NameConflict")
        assert "Service builds/ci" in condition(verdict, kind).message
        assert "rename the pool or remove it" in condition(verdict, kind).message
    assert verdict.status.clients == ()
    assert verdict.status.authority is None
    assert told(verdict) == [(EventType.WARNING, "NameConflict")], "once, not three times"


def test_certificates_from_before_a_conflict_are_still_valid_until_they_end() -> None:
    pool = a_pool()
    cluster = settled(pool)
    del cluster.objects[SERVICE]
    observation = conflicting(cluster, SERVICE)
    assert says(judged(pool, observation), CERTIFICATES) == ("True", "Issued")
    later = judged(pool, observation, now=NOW + 91 * DAY)
    assert says(later, CERTIFICATES) == ("False", "NameConflict")


@pytest.mark.parametrize("name", ["ci-client-default", "authority.builds.ci"])
def test_a_secret_of_others_is_neither_read_nor_reported(name: str) -> None:
    pool = a_pool()
    cluster = settled(pool)
    ref = next(ref for ref in cluster.objects if ref.name == name)
    nonsense = dict.fromkeys(("ca.pem", "tls.crt", "tls.key"), "bm9uc2Vuc2U=")
    verdict = judged(pool, conflicting(cluster, ref, data=nonsense))
    is_needed = name != "ci-client-default"
    assert says(verdict, READY) == (("False", "NameConflict") if is_needed else ("True", "Ready"))
    if not is_needed:
        assert says(verdict, CERTIFICATES) == ("False", "NameConflict")
    assert (verdict.status.clients == ()) == (name == "ci-client-default")
    assert (verdict.status.authority is None) == (name == "authority.builds.ci")


def test_a_damaged_secret_of_ours_does_not_hide_a_conflict() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster["Secret/ci-client-default"]["data"]["tls.crt"] = "bm9uc2Vuc2U="
    del cluster.objects[SERVICE]
    verdict = judged(pool, conflicting(cluster, SERVICE))
    assert says(verdict, READY) == ("False", "NameConflict")
    assert says(verdict, CERTIFICATES) == ("False", "NameConflict")


def test_a_deployment_of_others_under_our_label_does_not_count() -> None:
    pool = a_pool()
    cluster = settled(pool)
    ref = Ref("Deployment", "builds", "theirs")
    cluster.objects[ref] = foreign(ref, spec={})
    cluster.objects[ref]["metadata"]["labels"] = {naming.LABEL_POOL: "ci"}
    verdict = judged(pool, cluster.observe(pool))
    assert verdict.status.replicas == 1
    assert says(verdict, PROGRESSING) == ("False", "Settled")


def test_every_reason_of_a_condition_is_a_word_of_the_vocabulary() -> None:
    pool = a_pool(replicas=2)
    verdict = judged(pool, with_pods(settled(pool).observe(pool), a_pod(ended={"exitCode": 1})))
    assert {c.reason for c in verdict.status.conditions} <= set(Reason)
