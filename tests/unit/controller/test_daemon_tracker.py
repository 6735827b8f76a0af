"""What a pass is told of daemons, and which of them it has asked anew. Daemons are real or told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from buildpool.buildkit import Daemon, DaemonAccess
from buildpool.buildkit.loads import Loads
from buildpool.controller.daemon_tracker import DaemonTracker
from buildpool.controller.wakeups import Wakeups
from buildpool.core import naming
from buildpool.core.api import BuilderStatus, Pool, PoolStatus
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object
from buildpool.core.observed.load import Load
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Authority, issue_authority, read
from buildpool.core.planning.certificates import OPERATOR_LIFETIME, authority_ref
from buildpool.core.planning.situation import Situation
from buildpool.core.scaling import SETTLE
from buildpool.kube.cluster import Cluster
from daemons import HistoryServer, an_authority, serving, until
from memory_cluster import settled
from samples import DAY, INSTALLATION, NOW, a_load, a_pod, a_pool, a_situation, planned
from unit.controller.measured import Measured, measured

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
CI = PoolKey("builds", "ci")
AUTHORITY = Authority(issue_authority("test", now=NOW, lifetime=100 * DAY))


@dataclass
class ToldLoads:
    """Stands for the loads of daemons: knows what it is told, and remembers what it was asked."""

    known: dict[str, Load] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    access: list[DaemonAccess] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    forgotten: list[PoolKey] = field(default_factory=list)

    def watch(self, pool: PoolKey, addresses: Mapping[str, str], access: DaemonAccess) -> None:
        self.addresses = dict(addresses)
        self.access.append(access)

    def loads(self, pool: PoolKey) -> Mapping[str, Load]:
        return self.known

    def ask(self, pool: PoolKey, uids: Iterable[str]) -> None:
        self.asked = list(uids)

    def forget(self, pool: PoolKey) -> None:
        self.forgotten.append(pool)


def a_survey(
    loads: ToldLoads | Loads | None = None, cluster: Measured | None = None
) -> DaemonTracker:
    return DaemonTracker(
        cast("Cluster", cluster or Measured()), cast("Loads", loads or ToldLoads())
    )


def a_running_pod(builder: int = 0, *, address: str = "10.0.0.7", **overrides: Any) -> Object:
    pod = a_pod(f"ci-builder-{builder}", **overrides)
    pod["status"]["podIP"] = address
    return pod


def known(
    seen: Observation | None = None,
    pool: Pool | None = None,
    authority: Authority = AUTHORITY,
    now: datetime = NOW,
) -> Situation:
    """What a pass knows of a pool with this authority."""
    pool = pool or a_pool()
    issued = {authority_ref(pool, INSTALLATION): authority}
    return a_situation(pool, seen, now=now, issued=issued)


def with_builders(pool: Pool, *builders: BuilderStatus) -> Pool:
    return replace(pool, status=PoolStatus(builders=builders))


# --- what was served -----------------------------------------------------------------------------


@asynccontextmanager
async def an_operator(server: HistoryServer) -> AsyncIterator[tuple[DaemonTracker, Loads]]:
    """A process whose connections all lead to one daemon."""
    loads = Loads(lambda _, access: Daemon(server.address, access), Wakeups())
    running = asyncio.create_task(loads.run())
    try:
        yield a_survey(loads), loads
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_what_a_builder_has_served_goes_on_after_a_restart_of_the_operator() -> None:
    pair = an_authority()
    authority = Authority(pair)
    pool, pod = a_pool(), a_running_pod()
    uid = pod["metadata"]["uid"]
    seen = Observation(pods=(pod,))
    real_now = datetime.now(UTC)
    status = PoolStatus()
    async with serving(pair) as server:
        counts = []
        for build in ("first", "second", "third"):
            async with an_operator(server) as (survey, loads):
                current = replace(pool, status=status)
                await survey.enrich(current, seen)
                await survey.follow(known(seen, current, authority, real_now))
                await until(lambda: uid in loads.loads(CI), "the daemon has answered")
                await until(lambda: server.listeners == 1, "it listens")
                server.start(build)
                await until(lambda: bool(loads.loads(CI)[uid].builds), "the build is known")
                load = (await survey.enrich(current, seen)).loads[uid]
                counts.append(load.served)
                server.end(build)
            await until(lambda: server.listeners == 0, "it has hung up")
            entry = BuilderStatus(name="ci-builder-0", ready=True, revision="a", served=load.served)
            status = PoolStatus(builders=(entry,))
        assert counts == [1, 2, 3]


async def test_what_was_served_before_is_counted_once_however_often_a_pass_looks() -> None:
    pod = a_running_pod()
    uid, seen = pod["metadata"]["uid"], Observation(pods=(pod,))
    loads = ToldLoads({uid: a_load(served=2)})
    survey = a_survey(loads)
    builder = BuilderStatus(name="ci-builder-0", ready=True, revision="a", served=5)
    pool = with_builders(a_pool(), builder)
    for _ in range(3):
        load = (await survey.enrich(pool, seen)).loads[uid]
        assert load.served == 7
        pool = with_builders(pool, builder.model_copy(update={"served": load.served}))
    loads.known[uid] = a_load(served=3)
    assert (await survey.enrich(pool, seen)).loads[uid].served == 8


async def test_a_new_builder_has_served_nothing_whatever_others_did() -> None:
    old = BuilderStatus(name="ci-builder-0", ready=True, revision="a", served=5)
    new = a_running_pod(1)
    uid = new["metadata"]["uid"]
    survey = a_survey(ToldLoads({uid: a_load(served=1)}))
    seen = await survey.enrich(with_builders(a_pool(), old), Observation(pods=(new,)))
    assert seen.loads[uid].served == 1


async def test_pods_that_are_gone_are_counted_no_more() -> None:
    loads = ToldLoads()
    survey = a_survey(loads)
    for number in range(50):
        pod = a_running_pod(number)
        loads.known = {pod["metadata"]["uid"]: a_load(served=number)}
        await survey.enrich(a_pool(), Observation(pods=(pod,)))
    known = survey._known[CI]
    assert len(known.counted) == len(known.before) == 1


async def test_a_daemon_that_does_not_answer_has_no_load_at_all() -> None:
    pod = a_running_pod()
    seen = await a_survey().enrich(a_pool(), Observation(pods=(pod,)))
    assert dict(seen.loads) == {}


# --- the operator's own certificate --------------------------------------------------------------


async def followed(survey: DaemonTracker, now: datetime, authority: Authority = AUTHORITY) -> None:
    await survey.follow(known(authority=authority, now=now))


async def test_the_certificate_is_kept_from_pass_to_pass_and_renewed_in_good_time() -> None:
    loads = ToldLoads()
    survey = a_survey(loads)
    chance = known(authority=AUTHORITY, now=NOW).chance
    due = NOW + OPERATOR_LIFETIME * (2 / 3 - chance / 10)
    for now in (NOW, NOW + HOUR, due - SECOND, due, due + HOUR):
        await followed(survey, now)
    first, *others = loads.access
    assert [access == first for access in others] == [True, True, False, False]
    assert loads.access[3] == loads.access[4]
    end = due + OPERATOR_LIFETIME
    assert end - SECOND < read(loads.access[3].pair).not_after <= end


async def test_the_certificate_says_who_asks() -> None:
    loads = ToldLoads()
    await followed(a_survey(loads), NOW)
    facts = read(loads.access[0].pair)
    assert facts.uris == ("buildpool://builds/ci/operator",)
    assert facts.uses == ("client",)
    assert loads.access[0].trust == AUTHORITY.trust


async def test_another_authority_makes_another_certificate_at_once() -> None:
    loads = ToldLoads()
    survey = a_survey(loads)
    await followed(survey, NOW)
    upcoming = issue_authority("another", now=NOW, lifetime=100 * DAY)
    await followed(survey, NOW, replace(AUTHORITY, upcoming=upcoming))
    assert loads.access[1].pair == loads.access[0].pair, "the one of before still signs"
    previous = AUTHORITY.signer.certificate
    await followed(survey, NOW, Authority(upcoming, previous=previous))
    assert loads.access[2].pair != loads.access[0].pair
    assert previous.strip() in loads.access[2].trust, "daemons may not have changed yet"
    assert upcoming.certificate.strip() in loads.access[2].trust


async def test_a_pool_that_is_forgotten_leaves_no_certificate_behind() -> None:
    loads = ToldLoads()
    survey = a_survey(loads)
    await followed(survey, NOW)
    survey.forget(CI)
    assert loads.forgotten == [CI]
    await followed(survey, NOW)
    assert loads.access[0].pair != loads.access[1].pair


# --- who is asked --------------------------------------------------------------------------------


async def test_daemons_that_run_and_have_an_address_are_watched() -> None:
    pods = (
        a_running_pod(0, address="10.0.0.7"),
        a_running_pod(1, address="fd00::7"),
        a_pod("ci-builder-2"),  # no address yet
        a_running_pod(3, waiting=("CrashLoopBackOff", "back-off")),
        a_running_pod(4, terminating=True),
        a_running_pod(5, unschedulable="no node"),
    )
    loads = ToldLoads()
    await a_survey(loads).follow(known(Observation(pods=pods)))
    assert loads.addresses == {
        pods[0]["metadata"]["uid"]: "10.0.0.7:1234",
        pods[1]["metadata"]["uid"]: "[fd00::7]:1234",
    }


async def asked(
    *, builds: int | None, retired: timedelta | None, as_of: timedelta = -SECOND
) -> bool:
    """Whether a builder is asked anew, that retired so long ago and answered so long since."""
    pool = a_pool(replicas=1)
    cluster = settled(pool)
    now = cluster.now
    if retired is not None:
        annotations = cluster["Deployment/ci-builder-0"]["metadata"]["annotations"]
        annotations[naming.ANNOTATION_RETIRED] = (now - retired).isoformat()
        (pod,) = cluster.pods.values()
        pod["metadata"]["labels"][naming.LABEL_SERVING] = "false"
    observation = cluster.observe(pool)
    (uid,) = (pod["metadata"]["uid"] for pod in observation.pods)
    answers = {} if builds is None else {uid: a_load(builds, as_of=now + as_of)}
    situation, _ = planned(pool, replace(observation, loads=answers), now=now)
    assert situation.members
    loads = ToldLoads()
    await a_survey(loads).follow(situation)
    assert set(loads.asked) <= {uid}
    return bool(loads.asked)


LONG = timedelta(minutes=1)


async def test_a_retired_builder_that_may_prove_to_be_idle_is_asked_anew() -> None:
    assert await asked(builds=0, retired=LONG, as_of=-LONG)
    assert await asked(builds=0, retired=SETTLE, as_of=-SECOND)


async def test_nobody_else_is_asked_anew() -> None:
    assert not await asked(builds=0, retired=None), "it serves"
    assert not await asked(builds=0, retired=SETTLE - SECOND), "it may still get a build"
    assert not await asked(builds=1, retired=LONG, as_of=-LONG), "its end wakes us"
    assert not await asked(builds=None, retired=LONG), "it is being asked anyway"
    assert not await asked(builds=0, retired=LONG, as_of=timedelta(0)), "it is proven idle"


# --- memory --------------------------------------------------------------------------------------


THIRSTY = {"builders": {"recycle": {"maxMemory": "1Gi"}}}


@asynccontextmanager
async def measuring(tracker: DaemonTracker) -> AsyncIterator[None]:
    """The metrics API is asked during a block."""
    running = asyncio.create_task(tracker.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_memory_is_not_measured_where_nobody_asks_for_it() -> None:
    cluster = Measured([measured("x", "1Gi")])
    survey = a_survey(cluster=cluster)
    async with measuring(survey):
        seen = await survey.enrich(a_pool(), Observation())
        await asyncio.sleep(0.05)
    assert cluster.selected == []
    assert dict(seen.memory) == {}


async def test_a_pass_gets_the_last_answer_of_the_metrics_api_and_waits_for_none() -> None:
    cluster = Measured([measured("a", "1024Ki", "1Mi"), measured("b", "7")])
    survey, thirsty = a_survey(cluster=cluster), a_pool(**THIRSTY)
    assert dict((await survey.enrich(thirsty, Observation())).memory) == {}
    assert cluster.selected == [], "not within a pass"
    async with measuring(survey):
        await until(lambda: bool(cluster.selected), "it is asked at once")
    assert dict((await survey.enrich(thirsty, Observation())).memory) == {"a": 2 << 20, "b": 7}


async def test_a_pool_to_which_memory_matters_no_more_is_not_asked_for() -> None:
    cluster = Measured()
    survey = a_survey(cluster=cluster)
    await survey.enrich(a_pool(**THIRSTY), Observation())
    await survey.enrich(a_pool(), Observation())
    async with measuring(survey):
        await asyncio.sleep(0.05)
    assert cluster.selected == []


# --- losses --------------------------------------------------------------------------------------


async def test_losses_of_a_pool_are_those_since_its_own_last_look() -> None:
    pod = a_running_pod()
    uid = pod["metadata"]["uid"]
    survey = a_survey(ToldLoads({uid: a_load(1)}))
    seen = await survey.enrich(a_pool(), Observation(pods=(pod,)))
    assert survey.lost_builds(a_pool(), seen) == ()
    assert survey.lost_builds(a_pool(name="other"), Observation()) == ()
    (event,) = survey.lost_builds(a_pool(), Observation())
    assert "ci-builder-0 has lost builds build-0" in event.message
    assert survey.lost_builds(a_pool(), Observation()) == (event,), "until it has been told"
    survey.acknowledge_lost(CI)
    assert survey.lost_builds(a_pool(), Observation()) == ()
