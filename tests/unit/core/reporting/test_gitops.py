"""What GitOps tools make of a pool: red where it is refused, green only once it is carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lupa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api import (
    ConditionStatus,
    ConditionType,
    Pool,
    PoolStatus,
    Reason,
    identify_pool,
)
from buildpool.core.errors import InvalidSpecError, RefusedError
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import AuthorityPhase
from buildpool.core.planning.plan import GRACE
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.reporting.report import (
    Report,
    report_invalid,
    report_removal,
    report_unseen,
)
from cluster import PROJECT
from memory_cluster import settled
from samples import NOW, a_pod, a_pool, a_raw_pool, foreign
from unit import kstatus
from unit.passes import (
    HOUR,
    MINUTE,
    READY,
    SECOND,
    Story,
    judged,
    says,
    told_story,
    with_pods,
    with_status,
)

V1, V2 = "r.example/buildkit:v1", "r.example/buildkit:v2"
PULL = ("ImagePullBackOff", 'Back-off pulling image "r.example/buildkit:v2"')
HEALTH = (PROJECT / "manifests" / "argocd" / "health.lua").read_text()


def health(obj: Object) -> str:
    """What Argo CD says: the script, run by a real Lua, as Argo CD runs it."""
    lua = lupa.LuaRuntime(register_eval=False, register_builtins=False)
    lua.globals().obj = lua.table_from(obj, recursive=True)
    answer = lua.execute(HEALTH)
    assert answer["message"], "people read it"
    return str(answer["status"])


def shown(verdict: Report, pool: Pool, **metadata: Any) -> Object:
    """The pool as tools read it."""
    return a_raw_pool(generation=pool.generation, status=verdict.status, metadata=metadata)


def story_of(story: Story, verdict: Report) -> Object:
    return shown(verdict, story.pool)


def seen(*pods: Object, pool: Pool | None = None, outcome: Outcome | None = None) -> Object:
    """A pool with these pods and nothing else the matter."""
    pool = pool or a_pool()
    return shown(judged(pool, with_pods(settled(pool).observe(pool), *pods), outcome), pool)


def not_seen() -> Object:
    """As the API server stores a new one."""
    return a_raw_pool(status={"observedGeneration": -1})


def refused(*, before: bool) -> Object:
    status = told_story().pool.status if before else None
    raw = a_raw_pool(builders={"config": "no toml"}, generation=2, status=status)
    pool = identify_pool(raw)
    verdict = report_invalid(pool, InvalidSpecError([]), now=NOW)
    return shown(verdict, pool)


def changed() -> Object:
    """The spec is new, and nobody has looked."""
    return a_raw_pool(generation=2, status=told_story().pool.status)


def rollout(*, stuck: str = "", later: timedelta = timedelta()) -> Object:
    story = told_story(builders={"image": V1})
    story.cluster.full = {"ci-builder-1"} if stuck == "full" else set()
    story.change(builders={"image": V2})
    verdict = story.look()
    if stuck == "image":
        pod = story.pod(1)
        pod["status"] = a_pod("ci-builder-1", waiting=PULL)["status"]
        verdict = story.look()
    elif stuck:
        story.look()
        story.wait(later)
        verdict = story.look()
    return story_of(story, verdict)


def finishing() -> Object:
    """All new builders serve; an old one has a build."""
    story = told_story(builders={"image": V1})
    story.start(0, "x")
    story.change(builders={"image": V2})
    return story_of(story, story.settle())


def conflict() -> Object:
    pool = a_pool()
    ref = Ref("Service", "builds", "ci")
    return shown(judged(pool, Observation(live={ref: foreign(ref)})), pool)


def growing(*, full: bool = False) -> Object:
    """Builds ask for more builders, which start, or find no node for however long."""
    story = told_story(scaling={"max": 4})
    story.cluster.full = {f"ci-builder-{number}" for number in range(1, 9)}
    story.start(0, "a", "b", "c")
    verdict = story.look()
    if full:
        story.look()
        story.wait(HOUR)
        verdict = story.look()
    assert verdict.status.scaling is not None
    assert verdict.status.scaling.size > verdict.status.ready_replicas
    return story_of(story, verdict)


def growth_is_refused() -> Object:
    """A quota takes no more Deployments."""
    story = told_story(scaling={"max": 4})
    story.start(0, "a", "b", "c")
    failure = Failure(Ref("Deployment", "builds", "ci-builder-1"), "exceeded quota")
    verdict = judged(story.pool, story.observe(), Outcome(failures=(failure,)), now=story.now)
    assert says(verdict, ConditionType.PROGRESSING) == ("False", "ObjectRefused")
    return story_of(story, verdict)


def shrinking(**spec: Any) -> Object:
    """Fewer are wanted; all are busy."""
    story = told_story(replicas=3)
    for builder in range(3):
        story.start(builder, f"build-{builder}")
    story.change(**spec)
    return story_of(story, story.settle())


def more_wanted() -> Object:
    story = told_story(scaling={"min": 1, "max": 4})
    story.change(scaling={"min": 3, "max": 4})
    return story_of(story, story.look())


def recycling() -> Object:
    story = told_story(builders={"recycle": {"maxAge": "24h"}})
    story.cluster.full = {"ci-builder-1"}
    story.wait(25 * HOUR)
    story.look()
    story.wait(HOUR)
    return story_of(story, story.look())


def asleep(**spec: Any) -> Object:
    pool = a_pool(**spec)
    observation = replace(settled(pool).observe(pool), gateways={"gateway-a": True})
    return shown(judged(pool, observation), pool)


def removed() -> Object:
    pool = told_story().pool
    verdict = report_removal(pool, draining=("ci-builder-0-a",), now=NOW)
    return shown(verdict, pool, deletionTimestamp="2026-01-01T12:00:00Z")


def unseen(later: timedelta) -> Object:
    pool = told_story().pool
    error = RefusedError("cannot list")
    first = report_unseen(pool, error, now=NOW)
    return shown(report_unseen(with_status(pool, first), error, now=NOW + later), pool)


def failing(reason: Reason) -> Object:
    failure = Failure(Ref("ConfigMap", "builds", "ci-builder"), "no", reason)
    return seen(a_pod(), outcome=Outcome(failures=(failure,)))


SLEEPY = {"routing": "Gateway", "scaling": {"min": 0, "max": 2}}
TABLE: dict[str, tuple[Callable[[], Object], str, str]] = {
    "nobody has looked": (not_seen, "InProgress", "Progressing"),
    "changed, and nobody has looked": (changed, "InProgress", "Progressing"),
    "starting": (lambda: seen(a_pod(ready=False)), "InProgress", "Progressing"),
    "ready": (lambda: seen(a_pod()), "Current", "Healthy"),
    "refused spec, new": (lambda: refused(before=False), "Failed", "Degraded"),
    "refused spec, others before": (lambda: refused(before=True), "Failed", "Degraded"),
    "image cannot be pulled": (lambda: seen(a_pod(waiting=PULL)), "Failed", "Degraded"),
    "name conflict": (conflict, "Failed", "Degraded"),
    "object refused": (lambda: failing(Reason.OBJECT_REFUSED), "Failed", "Degraded"),
    "webhook down": (lambda: failing(Reason.OBJECT_FAILED), "InProgress", "Progressing"),
    "rollout": (rollout, "InProgress", "Progressing"),
    "rollout, image": (lambda: rollout(stuck="image"), "Failed", "Degraded"),
    "rollout, no node yet": (lambda: rollout(stuck="full"), "InProgress", "Progressing"),
    "rollout, no node": (lambda: rollout(stuck="full", later=GRACE), "Failed", "Degraded"),
    "rolled out, old builds end": (finishing, "Current", "Healthy"),
    "more by spec": (more_wanted, "InProgress", "Progressing"),
    "fewer by spec, all busy": (lambda: shrinking(replicas=1), "Current", "Healthy"),
    "growing by load": (growing, "Current", "Healthy"),
    "growing by load, no node": (lambda: growing(full=True), "Current", "Healthy"),
    "growing by load, quota": (growth_is_refused, "Current", "Healthy"),
    "recycling, no node": (recycling, "Current", "Healthy"),
    "asleep": (lambda: asleep(**SLEEPY), "Current", "Healthy"),
    "scaled to zero": (lambda: asleep(replicas=0), "Current", "Healthy"),
    "scaled to zero, busy": (lambda: shrinking(replicas=0), "Current", "Healthy"),
    "terminating": (removed, "Terminating", "Progressing"),
    "may not be read": (lambda: unseen(SECOND), "InProgress", "Progressing"),
    "may not be read for long": (lambda: unseen(GRACE), "Failed", "Degraded"),
}


@pytest.mark.parametrize("case", TABLE)
def test_gitops_tools_see_how_it_is(case: str) -> None:
    make, by_kstatus, by_argo = TABLE[case]
    obj = make()
    assert (kstatus.compute(obj), health(obj)) == (by_kstatus, by_argo), obj["status"]


def test_a_pool_that_is_mended_is_red_no_more_in_its_first_pass() -> None:
    """Otherwise `helm upgrade --wait` would give up at once on the change that mends it."""
    story = Story(a_pool(builders={"image": V1}))
    story.look()
    story.pod(0)["status"] = a_pod(waiting=PULL)["status"]
    assert kstatus.compute(story_of(story, story.look())) == "Failed"
    story.change(builders={"image": V2})
    assert kstatus.compute(story_of(story, story.look())) == "InProgress"
    assert kstatus.compute(story_of(story, story.settle())) == "Current"


def test_a_trouble_that_may_end_is_looked_at_when_its_grace_is_over() -> None:
    story = Story(a_pool())
    story.cluster.full = {"ci-builder-0"}
    story.settle()
    since = story.pool.status.condition(READY)
    assert since is not None
    assert since.last_transition_time is not None
    plan = story.cluster.plan(story.pool)
    assert story.now + plan.recheck <= since.last_transition_time + GRACE


def test_a_settled_pool_writes_no_status() -> None:
    story = told_story()
    before = story.pool.status
    story.wait(10 * MINUTE)
    assert story.look().status == before


def test_what_a_status_says_is_what_is_read_of_it_at_any_moment_of_a_second() -> None:
    story = told_story()
    story.wait(timedelta(microseconds=123_456))
    story.ask("authority")
    for step in range(40):
        status = story.look().status
        assert PoolStatus.read(status.to_dict()) == status
        if step == 2:
            story.ask(None)
        if status.authority and status.authority.phase == AuthorityPhase.INTRODUCING:
            break
    else:
        raise AssertionError("the authority is never replaced")
    before = story.settle()
    assert story.look().status == before.status


@given(st.lists(st.sampled_from(["build", "finish", "wait", "full", "free"]), max_size=12))
def test_load_never_makes_anybody_wait(steps: list[str]) -> None:
    story = told_story(scaling={"max": 4, "idleAfter": "1m"})
    for number, step in enumerate(steps):
        if step == "build":
            story.start(0, f"build-{number}")
        elif step == "finish":
            story.finish(0)
        elif step == "wait":
            story.wait(HOUR)
        else:
            story.cluster.full = {f"ci-builder-{n}" for n in range(1, 5) if step == "full"}
        verdict = story.look()
        if says(verdict, READY)[0] == "True":
            assert kstatus.compute(story_of(story, verdict)) == "Current"
        said = [verdict.status.condition(kind) for kind in ("Reconciling", "Stalled")]
        assert all(each is not None for each in said), "kubectl wait needs them"
        assert sum(c.status is ConditionStatus.TRUE for c in said if c is not None) <= 1
