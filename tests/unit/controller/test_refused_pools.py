"""A policy that lets nobody write of the pool itself what the operator has to: it is told."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from buildpool.buildkit.loads import Loads
from buildpool.controller.cache_poller import CachePoller
from buildpool.controller.daemon_tracker import DaemonTracker
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.reconcile import LONGEST_REFUSED, Reconciler
from buildpool.controller.rollout_turns import RolloutTurns
from buildpool.controller.secret_poller import SecretPoller
from buildpool.controller.wakeups import Wakeups
from buildpool.core import naming
from buildpool.core.errors import RefusedError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import JSON, Object, Ref, pool_ref
from buildpool.kube.cluster import Cluster
from buildpool.kube.events import EventRecorder
from memory_api import MemoryApi, run
from memory_cluster import PASS, MemoryCluster
from samples import INSTALLATION, a_raw_pool
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

    def _check(self, part: str) -> None:
        if part in self.refused:
            raise RefusedError(POLICY)

    async def get(self, ref: Ref) -> Object | None:
        if ref == pool_ref(CI):
            return copy.deepcopy(self.pool)
        return await super().get(ref)

    async def apply(self, obj: Object, *, dry_run: bool = False, subresource: str = "") -> Object:
        if not subresource:
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


def a_reconciler(api: Guarded) -> Reconciler:
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
        lambda _: None,
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
    assert 5 <= api.counted <= 6 + timedelta(minutes=30) / LONGEST_REFUSED


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
