"""What the API server refuses of one pool: it is told, and tried again later each time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from buildpool.buildkit.loads import Loads
from buildpool.controller.cache_poller import CachePoller
from buildpool.controller.daemon_tracker import DaemonTracker
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.reconcile import LONGEST_FAILING, LONGEST_TROUBLED, TROUBLED, Reconciler
from buildpool.controller.rollout_turns import RolloutTurns
from buildpool.controller.secret_poller import SecretPoller
from buildpool.controller.wakeups import Wakeups
from buildpool.core import naming
from buildpool.core.api import Reason
from buildpool.core.errors import RefusedError, UnavailableError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import JSON, Object, Ref, pool_ref, ref_of
from buildpool.core.observed.cache import CacheReport
from buildpool.core.pauses import growing, lot, spread
from buildpool.core.planning.plan import GRACE
from buildpool.core.words import Finding
from buildpool.kube.cluster import Cluster
from buildpool.kube.events import EventRecorder
from memory_api import MemoryApi, run
from memory_cluster import PASS, MemoryCluster
from samples import INSTALLATION, a_raw_pool, clients
from unit.controller.test_daemon_tracker import ToldLoads

CI = PoolKey("builds", "ci")
POLICY = "ValidatingAdmissionPolicy 'gitops' denied request: only Argo CD may write pools"


class Guarded(MemoryApi):
    """A cluster with one pool, of which a policy lets nobody write some parts."""

    def __init__(self, raw: Object, *refused: str) -> None:
        self.cluster = MemoryCluster()
        super().__init__(self.cluster)
        self.pool: Object | None = raw
        self.refused = set(refused)
        self.events: list[Object] = []
        self.counted = 0
        self.error: Exception = RefusedError(POLICY)

    def _check(self, part: str) -> None:
        if part in self.refused:
            raise self.error

    async def get(self, ref: Ref) -> Object | None:
        if ref == pool_ref(CI):
            return copy.deepcopy(self.pool)
        return await super().get(ref)

    async def apply(self, obj: Object, *, dry_run: bool = False, subresource: str = "") -> Object:
        if not subresource:
            self._check(f"apply {obj['kind']}")
            return await super().apply(obj, dry_run=dry_run)
        assert self.pool is not None
        self._check("status")
        self.pool["status"] = copy.deepcopy(obj["status"])
        return self.pool

    async def patch(self, ref: Ref, change: JSON) -> None:
        if ref.kind == "Event":
            self.counted += 1
        elif ref == pool_ref(CI):
            assert self.pool is not None
            for part, value in change["metadata"].items():
                self._check(part)
                self.pool["metadata"][part] = value
            if is_gone(self.pool):
                self.pool = None
        else:
            await super().patch(ref, change)

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        self._check(f"list {kind}")
        return await super().select(kind, namespace, labels)

    async def delete(self, ref: Ref, *, uid: str, version: str | None = None) -> None:
        self._check(f"delete {ref.kind}")
        await super().delete(ref, uid=uid, version=version)

    async def create(self, obj: Object) -> None:
        self.events.append(obj)

    def told(self) -> list[tuple[str, str]]:
        """Type and reason of all Events."""
        return [(event["type"], event["reason"]) for event in self.events]

    def condition(self, kind: str) -> Any:
        assert self.pool is not None
        conditions = self.pool.get("status", {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), None)


def is_gone(pool: Object) -> bool:
    metadata = pool["metadata"]
    return "deletionTimestamp" in metadata and not metadata["finalizers"]


def a_reconciler(api: Guarded, ask_sweeper: Callable[[PoolKey], None] = id) -> Reconciler:
    cluster, wakeups = cast("Cluster", api), Wakeups()

    def clock() -> datetime:
        return api.cluster.now

    async def inspect(*_: object) -> Any:
        raise AssertionError("no pool here has a cache")

    return Reconciler(
        cluster,
        EventRecorder(cluster, "me"),
        PoolMetrics(),
        SecretPoller(cluster, wakeups, reads_per_second=1),
        CachePoller(inspect, wakeups),
        DaemonTracker(cluster, cast("Loads", ToldLoads())),
        RolloutTurns(wakeups, limit=0),
        INSTALLATION,
        ask_sweeper,
        clock,
    )


def a_pass(reconciler: Reconciler, api: Guarded) -> timedelta | None:
    """One pass, and all that follows from it. Raises what the pass raises."""
    try:
        return run(reconciler.reconcile(CI))
    finally:
        api.cluster.roll()
        api.cluster.drain()
        api.cluster.now += PASS


def held(**metadata: Any) -> Object:
    """A pool that has our finalizer."""
    return a_raw_pool(metadata={"finalizers": [naming.FINALIZER], **metadata})


def test_a_finalizer_that_is_refused_is_told_and_nothing_is_made() -> None:
    api = Guarded(a_raw_pool(), "finalizers")
    reconciler = a_reconciler(api)
    pauses = [a_pass(reconciler, api) for _ in range(3)]
    assert api.cluster.objects == {}
    assert all(pause is not None and pause > timedelta(0) for pause in pauses)
    ready, stalled = api.condition("Ready"), api.condition("Stalled")
    assert (ready["status"], ready["reason"]) == ("Unknown", "ObjectRefused")
    assert stalled["status"] == "True"
    for words in (POLICY, "BuildKitPool builds/ci", "finalizer"):
        assert words in ready["message"]
    assert api.told() == [("Warning", "ObjectRefused")]
    api.refused = set()
    for _ in range(4):
        a_pass(reconciler, api)
    assert api.condition("Ready")["status"] == "True"
    assert api.condition("Stalled")["status"] == "False"


def test_a_finalizer_that_may_not_be_taken_off_is_told() -> None:
    api = Guarded(held(deletionTimestamp="2026-01-01T12:00:00Z"), "finalizers")
    reconciler = a_reconciler(api)
    assert a_pass(reconciler, api)
    for kind in ("Ready", "Stalled"):
        condition = api.condition(kind)
        assert condition["reason"] == "ObjectRefused"
        assert POLICY in condition["message"]
    assert api.told() == [("Warning", "ObjectRefused")]
    api.refused = set()
    assert a_pass(reconciler, api) is None
    assert api.pool is None


def test_a_request_that_may_not_be_taken_off_is_told_and_all_else_goes_on() -> None:
    api = Guarded(held(annotations={naming.ANNOTATION_ROTATE: "certificates"}), "annotations")
    reconciler = a_reconciler(api)
    for _ in range(4):
        a_pass(reconciler, api)
    assert api.condition("Ready")["status"] == "True"
    progressing = api.condition("Progressing")
    assert progressing["reason"] == "ObjectRefused"
    assert POLICY in progressing["message"]


def test_a_status_that_is_refused_is_told_by_an_event_and_less_and_less_often() -> None:
    api = Guarded(held(), "status")
    reconciler = a_reconciler(api)
    for _ in range(360):  # half an hour
        with pytest.raises(RefusedError, match="only Argo CD"):
            a_pass(reconciler, api)
    assert "ci-builder-0" in api.cluster.names("Deployment"), "what can be done is done"
    assert api.told() == [("Warning", "StatusRefused")]
    assert POLICY in api.events[0]["message"]
    assert 5 <= api.counted <= 6 + timedelta(minutes=30) / LONGEST_TROUBLED


def test_a_status_that_is_refused_while_the_pool_goes_is_told_and_the_pool_goes() -> None:
    api = Guarded(held(), "finalizers")
    reconciler = a_reconciler(api)
    a_pass(reconciler, api)
    assert api.pool is not None
    api.pool["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    api.refused = {"status"}
    for _ in range(6):
        if api.pool is None:
            break
        try:
            a_pass(reconciler, api)
        except RefusedError:
            continue
    assert api.pool is None
    assert ("Warning", "StatusRefused") in api.told()
    assert api.cluster.objects == {}


CREDENTIALS = {"registry": {"ref": "r.example/caches", "credentials": {"name": "gone"}}}


def tended(**spec: Any) -> Object:
    """A pool with this spec that has our finalizer."""
    return a_raw_pool(metadata={"finalizers": [naming.FINALIZER]}, **spec)


def a_refused(*parts: str, error: Exception | None = None) -> Guarded:
    """A pool of which these parts may not be written or read."""
    api = Guarded(held(), *parts)
    api.error = error or api.error
    return api


def a_deleted(*parts: str) -> Guarded:
    """A pool that is there and shall go."""
    api = Guarded(held())
    reconciler = a_reconciler(api)
    for _ in range(4):
        a_pass(reconciler, api)
    assert api.pool is not None
    api.pool["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    api.refused = set(parts)
    return api


def a_taken(kind: str, name: str) -> Guarded:
    """A pool of which somebody else has a name."""
    api = Guarded(tended(access=clients("dev")))
    metadata = {"name": name, "namespace": "builds", "uid": "theirs", "resourceVersion": "1"}
    theirs = {"kind": kind, "metadata": metadata}
    api.cluster.objects[ref_of(theirs)] = theirs
    return api


TROUBLES: dict[str, Callable[[], Guarded]] = {
    "an object is refused": lambda: a_refused("apply ConfigMap"),
    "a webhook is dead": lambda: a_refused("apply ConfigMap", error=UnavailableError("webhook")),
    "the finalizer is refused": lambda: Guarded(a_raw_pool(), "finalizers"),
    "a list is refused": lambda: a_refused("list NetworkPolicy"),
    "a list is refused while the pool goes": lambda: a_deleted("list NetworkPolicy"),
    "a removal is refused": lambda: a_deleted("delete Service"),
    "the finalizer may not be taken off": lambda: a_deleted("finalizers"),
    "a name is taken": lambda: a_taken("Service", "ci"),
    "the name of a client's Secret is taken": lambda: a_taken("Secret", "ci-client-dev"),
    "credentials are missing": lambda: Guarded(tended(cache=CREDENTIALS)),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_is_in_the_way_is_looked_at_later_each_time(trouble: str) -> None:
    api = TROUBLES[trouble]()
    reconciler = a_reconciler(api)
    assert api.pool is not None
    chance = lot(api.pool["metadata"]["uid"])
    for _ in range(4):  # until all is done that can be
        a_pass(reconciler, api)
    api.cluster.now += GRACE  # and nothing is thought to pass by itself
    a_pass(reconciler, api)
    reconciler.pauses.clear()
    pauses = []
    for _ in range(8):
        before = api.cluster.now
        pause = a_pass(reconciler, api)
        assert pause is not None
        pauses.append(pause.total_seconds())
        api.cluster.now = before + pause
    longest = LONGEST_FAILING if trouble == "a webhook is dead" else LONGEST_TROUBLED
    first, last = TROUBLED.total_seconds(), longest.total_seconds()
    wanted = [spread(growing(n, first=first, last=last), chance=chance) for n in range(1, 9)]
    assert pauses == pytest.approx(wanted)


def lasting(api: Guarded) -> Reconciler:
    """Of a pool that has been in trouble for long."""
    reconciler = a_reconciler(api)
    end = api.cluster.now + timedelta(minutes=40)
    while api.cluster.now < end:
        before = api.cluster.now
        pause = a_pass(reconciler, api)
        assert pause is not None
        api.cluster.now = before + pause
    return reconciler


def spec_changes(api: Guarded, **spec: Any) -> None:
    assert api.pool is not None
    api.pool["spec"] |= spec
    api.pool["metadata"]["generation"] += 1


@pytest.mark.parametrize("error", [RefusedError("no"), UnavailableError("webhook")], ids=str)
def test_a_write_that_fails_is_tried_again_soon_whatever_else_has_been_in_the_way(
    error: Exception,
) -> None:
    api = Guarded(tended(cache=CREDENTIALS, replicas=1))
    reconciler = lasting(api)
    spec_changes(api, replicas=2)
    api.refused, api.error = {"apply Deployment"}, error
    pause = a_pass(reconciler, api)
    assert pause is not None
    assert timedelta(0) < pause <= TROUBLED
    api.refused = set()
    a_pass(reconciler, api)
    assert "ci-builder-1" in api.cluster.names("Deployment")


def test_a_moment_that_is_due_is_not_put_off_by_a_secret_that_is_missing() -> None:
    soon = timedelta(seconds=3)
    api = Guarded(tended(cache=CREDENTIALS, builders={"recycle": {"maxAge": "24h"}}))
    reconciler = lasting(api)
    made = api.cluster["Deployment/ci-builder-0"]["metadata"]["creationTimestamp"]
    api.cluster.now = datetime.fromisoformat(made) + timedelta(days=1) - soon
    assert a_pass(reconciler, api) == soon < TROUBLED


def test_what_may_not_be_removed_is_told_and_the_pool_goes_once_it_may() -> None:
    api = a_deleted("delete Service")
    reconciler = a_reconciler(api)
    for _ in range(3):
        a_pass(reconciler, api)
    ready = api.condition("Ready")
    assert ready["reason"] == "ObjectRefused"
    assert POLICY in ready["message"]
    assert api.told().count(("Warning", "ObjectRefused")) == 1
    api.refused = set()
    for _ in range(6):
        a_pass(reconciler, api)
    assert api.pool is None


@pytest.mark.parametrize("goes", [False, True])
def test_a_pool_of_which_a_kind_may_not_be_listed_says_so(goes: bool) -> None:
    api = a_deleted("list NetworkPolicy") if goes else a_refused("list NetworkPolicy")
    reconciler = a_reconciler(api)
    api.events.clear()
    for _ in range(3):
        assert a_pass(reconciler, api)
    ready = api.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "Forbidden")
    assert api.told() == [("Warning", "Forbidden")]


def test_what_a_registry_says_makes_no_pool_look_again_sooner() -> None:
    class Poller:
        """Has an answer without asking."""

        def watch(self, *_: object) -> None: ...

        def report(self, _: PoolKey) -> CacheReport:
            return CacheReport(trouble=Finding(Reason.REGISTRY_UNREACHABLE, "it does not answer"))

    api = Guarded(tended(cache={"registry": {"ref": "r.example/caches"}}))
    reconciler = replace(a_reconciler(api), cache_poller=cast("CachePoller", Poller()))
    for _ in range(4):
        pause = a_pass(reconciler, api)
    assert api.condition("CacheReady")["reason"] == "RegistryUnreachable"
    assert pause is not None
    assert pause > LONGEST_TROUBLED
    assert reconciler.pauses == {}


def test_nothing_is_remembered_of_a_pool_that_is_gone() -> None:
    api = Guarded(held())
    api.cluster.admit = overrule
    reconciler = a_reconciler(api)
    for _ in range(4):
        a_pass(reconciler, api)
    assert api.pool is not None
    api.pool["metadata"]["generation"] += 1
    api.refused = {"status"}
    with pytest.raises(RefusedError):
        a_pass(reconciler, api)
    assert CI in reconciler.untold
    assert reconciler.overruled[CI]
    api.refused = {"delete Service"}
    api.pool["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    a_pass(reconciler, api)
    assert CI in reconciler.pauses
    api.refused = set()
    while api.pool is not None:
        a_pass(reconciler, api)
    assert (reconciler.overruled, reconciler.pauses, reconciler.untold) == ({}, {}, {})


def overrule(obj: Object) -> None:
    """What a webhook does to each ConfigMap."""
    if obj["kind"] == "ConfigMap":
        obj["data"] = {key: f"{value}# seen" for key, value in obj["data"].items()}


def test_what_an_earlier_pool_of_the_name_has_left_is_looked_at_soon() -> None:
    api, asked = Guarded(held()), []
    reconciler = a_reconciler(api, asked.append)
    a_pass(reconciler, api)
    assert asked == []
    left = copy.deepcopy(api.cluster["ConfigMap/ci-builder"])
    left["metadata"] |= {"name": "ci-left", "uid": "left", "ownerReferences": []}
    left["metadata"]["annotations"][naming.ANNOTATION_POOL_UID] = "of an earlier one"
    api.cluster.objects[ref_of(left)] = left
    a_pass(reconciler, api)
    assert asked == [CI]
