"""An upgrade of the operator changes builders in turns; what anybody else changes never waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import ConditionType, Pool
from buildpool.core.objects.refs import Ref
from buildpool.core.planning.issuances import Rotation
from buildpool.core.planning.turns import Turns, waiting_since
from buildpool.core.resources import has_guard
from memory_cluster import MemoryCluster, settled
from plans import created, image, retired, turnover
from samples import DAY, HOME, INSTALLATION, NOW, a_pool

NEWER = INSTALLATION._replace(image="r.example/buildpool:newer")
CACHE = {"registry": {"managed": {}}}
"""With it, a guard stands beside each builder, which runs the operator's image."""


def a_cached_pool(**spec: Any) -> Pool:
    return a_pool(cache=CACHE, **spec)


def upgraded(pool: Pool, cluster: MemoryCluster | None = None) -> MemoryCluster:
    """A settled pool whose operator is another one now; it is not its turn."""
    cluster = cluster or settled(pool)
    cluster.installation, cluster.may_roll = NEWER, False
    return cluster


def changed(pool: Pool, **overrides: Any) -> Pool:
    """The same pool with another spec, as its user writes it."""
    return replace(a_cached_pool(**overrides), uid=pool.uid, generation=pool.generation + 1)


def progress(cluster: MemoryCluster) -> tuple[str, str]:
    assert cluster.status is not None
    found = cluster.status.condition(ConditionType.PROGRESSING)
    assert found is not None
    return found.reason, found.message


def is_waiting(cluster: MemoryCluster) -> bool:
    """Whether the last pass said that the pool waits for its turn."""
    assert cluster.status is not None
    return waiting_since(cluster.status) is not None


def machines(cluster: MemoryCluster) -> dict[str, str]:
    assert cluster.status is not None
    wanted = ("Ready", "Reconciling", "Stalled")
    return {c.type: c.status for c in cluster.status.conditions if c.type in wanted}


def revisions(cluster: MemoryCluster) -> list[str]:
    assert cluster.status is not None
    return [builder.revision for builder in cluster.status.builders]


def test_builders_stay_until_it_is_the_pools_turn() -> None:
    pool = a_cached_pool(replicas=2)
    cluster = upgraded(pool)
    before = revisions(cluster)
    for plan in cluster.settle(pool):
        assert turnover(plan) == ([], [], [])
    assert revisions(cluster) == before
    reason, message = progress(cluster)
    assert reason == "WaitingForTurn"
    assert "2 builders to be replaced" in message
    cluster.may_roll = True
    assert [turnover(plan) for plan in cluster.settle(pool)] == [
        (["ci-builder-2"], [], []),
        (["ci-builder-3"], ["ci-builder-1"], []),
        ([], ["ci-builder-0"], ["ci-builder-1"]),
        ([], [], ["ci-builder-0"]),
    ]
    assert progress(cluster)[0] == "Settled"
    assert not set(before) & set(revisions(cluster))


def test_who_waits_for_the_spec_waits_for_no_turn() -> None:
    pool = a_cached_pool()
    cluster = upgraded(pool)
    cluster.settle(pool)
    assert machines(cluster) == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}


def test_idle_while_it_waits_a_pool_causes_no_write() -> None:
    pool = a_cached_pool()
    cluster = upgraded(pool)
    cluster.settle(pool)
    status, version = cluster.status, cluster.version
    assert cluster.step(pool).is_empty
    assert (cluster.status, cluster.version) == (status, version)


def test_who_was_retired_before_an_upgrade_does_not_serve_again() -> None:
    """Its user wants another image; that the pool waits now is about those that serve."""
    scaling = {"scaling": {"max": 4}, "builders": {"slots": 1}}
    old = a_cached_pool(**scaling)
    cluster = settled(old)
    cluster.builds["ci-builder-0"] = 1
    pool = changed(old, scaling=scaling["scaling"], builders={"slots": 1, "image": "r.example/b:2"})
    cluster.settle(pool)
    assert cluster.status is not None
    assert {b.name: b.state for b in cluster.status.builders}["ci-builder-0"] == "Draining"
    upgraded(pool, cluster)
    cluster.builds |= dict.fromkeys(cluster.names("Deployment"), 5)
    for plan in cluster.settle(pool):
        assert plan.decision is not None
        assert plan.decision.restore == ()
    assert {b.name: b.state for b in cluster.status.builders}["ci-builder-0"] == "Draining"


def test_a_builder_without_a_daemon_waits_for_no_turn() -> None:
    """What it was made to wait for never comes: its configuration is the new one already."""
    pool = a_cached_pool(replicas=2)
    cluster = upgraded(pool)
    cluster.full.add("ci-builder-1")  # its pod was evicted, say
    cluster.roll()
    _, gone, _ = turnover(cluster.step(pool))
    assert gone == ["ci-builder-1"]
    cluster.full.clear()
    cluster.settle(pool)
    assert is_waiting(cluster), "the other one waits on"
    assert "ci-builder-0" in cluster.names("Deployment")


def recycled(cluster: MemoryCluster) -> None:
    cluster.served["ci-builder-0"] = 100


def without_a_node(cluster: MemoryCluster) -> None:
    cluster.full |= {"ci-builder-2", "ci-builder-3"}
    cluster.builds |= {"ci-builder-0": 2, "ci-builder-1": 2}


def evicted(cluster: MemoryCluster) -> None:
    cluster.full.add("ci-builder-0")
    cluster.roll()


def with_a_name_taken(cluster: MemoryCluster) -> None:
    ref = Ref("ConfigMap", "builds", "ci-builder")
    del cluster.objects[ref]["metadata"]["annotations"][naming.ANNOTATION_POOL_UID]


MISHAPS = {
    "one of its builders is recycled": recycled,
    "no node takes a builder by which it grows": without_a_node,
    "one of its builders has no pod that runs": evicted,
    "somebody takes a name that it needs": with_a_name_taken,
}


@pytest.mark.parametrize("happens", MISHAPS.values(), ids=MISHAPS)
@pytest.mark.parametrize("waits", [False, True], ids=["before the upgrade", "while it waits"])
def test_no_mishap_takes_a_pool_out_of_the_queue(
    happens: Callable[[MemoryCluster], None], waits: bool
) -> None:
    pool = a_cached_pool(scaling={"min": 2, "max": 4}, builders={"recycle": {"maxBuilds": 100}})
    cluster = settled(pool)
    cluster.may_roll = False
    before = {b.name for b in cluster.status.builders} if cluster.status else set()
    since = None
    for change in (upgrade, happens) if waits else (happens, upgrade):
        change(cluster)
        for _ in range(3):
            cluster.step(pool)
        since = since or (cluster.status and waiting_since(cluster.status))
    for _ in range(20):
        cluster.step(pool)
    assert cluster.status is not None
    assert waiting_since(cluster.status) == since is not None
    assert before & set(cluster.names("Deployment")), "nobody has replaced all of them"
    assert "ci-builder-1" in cluster.names("Deployment")


def upgrade(cluster: MemoryCluster) -> None:
    cluster.installation = NEWER


def test_a_pool_of_an_older_operator_waits_too() -> None:
    pool = a_cached_pool()
    cluster = upgraded(pool)
    assert cluster.status is not None
    said = tuple(c for c in cluster.status.conditions if c.type != "UpToDate")
    older = {"conditions": said, "certificates": None}
    cluster.status = cluster.status.model_copy(update=older)
    cluster.settle(pool)
    assert is_waiting(cluster)


def test_a_certificate_of_which_no_status_tells_yet_waits_for_no_turn() -> None:
    """The operator has written it, and ended before it could replace a builder, or say so."""
    pool = a_cached_pool()
    cluster = settled(pool)
    cluster.now += timedelta(minutes=1)
    lost_certificate(cluster, pool)
    todo = cluster.plan(pool)
    cluster.act(replace(todo, apply=tuple(c for c in todo.apply if c.ref.kind == "Secret")))
    upgraded(pool, cluster)
    assert created(cluster.step(pool)) == ["ci-builder-1"]


def test_a_rollout_that_has_begun_is_not_stopped() -> None:
    pool = a_cached_pool(replicas=2)
    cluster = upgraded(pool)
    cluster.may_roll = True
    cluster.step(pool)
    assert progress(cluster)[0] == "RollingOut"
    cluster.may_roll = False  # another operator, say, which has forgotten whose turn it was
    cluster.settle(pool)
    assert progress(cluster)[0] == "Settled"


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "while it waits"])
def test_what_its_user_changes_never_waits(waits: bool) -> None:
    pool = a_cached_pool()
    cluster = upgraded(pool)
    if waits:
        cluster.settle(pool)
    newer = changed(pool, builders=image("v9"))
    plans = [turnover(plan) for plan in cluster.settle(newer)]
    assert [plan for plan in plans if plan != ([], [], [])] == [
        (["ci-builder-1"], [], []),
        ([], ["ci-builder-0"], []),
        ([], [], ["ci-builder-0"]),
    ]


def test_what_its_user_changes_is_not_held_back_while_it_fails_to_start() -> None:
    pool = a_cached_pool(replicas=2)
    cluster = settled(pool)
    cluster.may_roll = False
    cluster.full = {"ci-builder-2"}
    newer = changed(pool, replicas=2, builders=image("v9"))
    cluster.settle(newer)
    cluster.step(newer)
    assert progress(cluster)[0] == "Unschedulable"
    cluster.installation = NEWER
    cluster.full = set()
    cluster.settle(newer)
    assert progress(cluster)[0] == "Settled"


def lost_authority(cluster: MemoryCluster, pool: Pool) -> Pool:
    del cluster.objects[Ref("Secret", HOME, "authority.builds.ci")]
    return pool


def lost_certificate(cluster: MemoryCluster, pool: Pool) -> Pool:
    del cluster.objects[Ref("Secret", "builds", "ci-builder")]
    return pool


def asked(what: Rotation) -> Callable[[MemoryCluster, Pool], Pool]:
    return lambda _, pool: replace(pool, annotations={naming.ANNOTATION_ROTATE: what.value})


def old(cluster: MemoryCluster, pool: Pool) -> Pool:
    cluster.now = NOW + 61 * DAY
    return pool


URGENT = {
    "another authority because the old one is gone": lost_authority,
    "another certificate because the old one is gone": lost_certificate,
    "other certificates that were asked for": asked(Rotation.CERTIFICATES),
    "another authority that was asked for": asked(Rotation.AUTHORITY),
    "a renewal, which has a time of its own": old,
}


@pytest.mark.parametrize("happens", URGENT.values(), ids=URGENT)
def test_builders_with_other_certificates_wait_for_no_turn(
    happens: Callable[[MemoryCluster, Pool], Pool],
) -> None:
    pool = a_cached_pool()
    cluster = upgraded(pool)
    cluster.settle(pool)
    pool = happens(cluster, pool)
    assert created(cluster.step(pool)) == ["ci-builder-1"]
    pool = replace(pool, annotations={})
    assert retired(cluster.step(pool)) == ["ci-builder-0"]


def test_each_phase_of_a_new_authority_reaches_the_builders_without_a_turn() -> None:
    pool = a_cached_pool(access={"authorityOverlap": "0s"})
    cluster = settled(pool)
    cluster.may_roll = False
    cluster.step(asked(Rotation.AUTHORITY)(cluster, pool))
    for _ in range(60):
        cluster.step(pool)
    assert progress(cluster)[0] == "Settled"
    assert cluster.status is not None
    assert cluster.status.authority is not None
    assert cluster.status.authority.phase is None


def test_a_cache_that_comes_once_its_name_is_free_waits_for_no_turn() -> None:
    pool, cluster = a_cached_pool(), MemoryCluster()
    ref = Ref("Service", "builds", naming.cache(pool.key))
    metadata = {"name": ref.name, "namespace": ref.namespace, "uid": "theirs"}
    cluster.objects[ref] = {"kind": ref.kind, "metadata": {**metadata, "resourceVersion": "1"}}
    for _ in range(4):
        cluster.step(pool)
    cluster.may_roll = False
    del cluster.objects[ref]
    assert created(cluster.step(pool)) == ["ci-builder-1"]
    for _ in range(8):
        cluster.step(pool)
        assert not is_waiting(cluster)
    assert has_guard(cluster["Deployment/ci-builder-1"]["spec"]["template"])
    assert cluster.situation(pool).outdated == ()


def test_a_pool_that_waits_follows_its_builds_with_builders_of_the_new_kind() -> None:
    pool = a_cached_pool(scaling={"min": 1, "max": 3})
    cluster = upgraded(pool)
    cluster.settle(pool)
    (before,) = revisions(cluster)
    cluster.builds["ci-builder-0"] = 2
    cluster.settle(pool)
    kept, *new = revisions(cluster)
    assert kept == before
    assert new
    assert before not in new
    assert retired(cluster.step(pool)) == []


def test_a_builder_that_is_too_old_waits_for_no_turn() -> None:
    pool = a_cached_pool(builders={"recycle": {"maxAge": "24h"}})
    cluster = upgraded(pool)
    cluster.settle(pool)
    cluster.now = NOW + 2 * DAY
    assert created(cluster.step(pool)) == ["ci-builder-1"]


def test_of_a_fleet_so_many_pools_at_once_roll_as_may_and_all_of_them_in_the_end() -> None:
    turns, most = Turns(2), 0
    pools = [a_cached_pool(name=f"p{number}") for number in range(7)]
    fleet = [(pool, upgraded(pool)) for pool in pools]
    before = {pool.key: revisions(cluster) for pool, cluster in fleet}
    rounds = 0
    while rounds == 0 or turns.ours or turns.others or turns.waiting:
        for pool, cluster in fleet:
            s = cluster.situation(pool)
            if s.is_changed_by_us:
                turns = turns.asked(pool.key, since=s.now, now=s.now)
            elif s.outdated:
                turns = turns.rolls(pool.key, now=s.now)
            else:
                turns = turns.done(pool.key, now=s.now)
            cluster.may_roll = pool.key not in turns.waiting
            cluster.step(pool)
        most = max(most, sum(progress(cluster)[0] == "RollingOut" for _, cluster in fleet))
        rounds += 1
        assert rounds < 60
    assert most == 2
    for pool, cluster in fleet:
        assert not set(before[pool.key]) & set(revisions(cluster))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["upgrade", "user", "pass", "pass"]), max_size=7))
def test_whatever_went_before_a_change_of_the_spec_is_carried_out(history: list[str]) -> None:
    pool, cluster = a_cached_pool(), MemoryCluster(may_roll=False)
    for number, what in enumerate([*history, "user"]):
        if what == "upgrade":
            cluster.installation = INSTALLATION._replace(image=f"r.example/buildpool:{number}")
        elif what == "user":
            env = [{"name": "CHANGE", "value": f"{number}"}]
            pool = changed(pool, builders={"env": env})
        else:
            cluster.step(pool)
    cluster.settle(pool)
    assert cluster.situation(pool).outdated == ()
    assert progress(cluster)[0] == "Settled"


@pytest.mark.parametrize("generation", [1, 2])
def test_a_pool_of_which_no_pass_has_told_yet_waits_for_nothing(generation: int) -> None:
    pool = a_cached_pool()
    cluster = upgraded(pool)
    cluster.status = None
    assert created(cluster.step(replace(pool, generation=generation))) == ["ci-builder-1"]
