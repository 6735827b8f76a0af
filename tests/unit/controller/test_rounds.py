"""The rounds that look after many pools, in a cluster that holds anything: none ends at an item."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from buildpool.controller.gateway_watch import GatewayWatch
from buildpool.controller.orphans import INTERVAL_SECONDS, RETRY_SECONDS, OrphanSweeper
from buildpool.controller.secret_poller import SecretPoller
from buildpool.controller.wakeups import Wakeups
from buildpool.core import naming
from buildpool.core.errors import RefusedError, UnavailableError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object, Ref, ref_of
from buildpool.kube.cluster import Cluster
from samples import HOME, any_json, any_object

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


@dataclass
class Holding:
    """A cluster that holds these objects, and remembers what was deleted and selected."""

    objects: Sequence[Any] = ()
    named: Sequence[Object] = ()
    """What is not listed, and found by its name."""
    pools: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    refused: tuple[str, str] = ("", "")
    """The kind and the namespace in which nothing may be listed."""
    selected: list[dict[str, str]] = field(default_factory=list)
    deleted: list[Ref] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Any]:
        self.times.append(asyncio.get_running_loop().time())
        self.selected.append(labels)
        if self.error is not None:
            raise self.error
        if (kind, namespace) == self.refused:
            raise RefusedError("you may not")
        return [obj for obj in self.objects if _has(obj, labels) and _is(obj, kind, namespace)]

    async def get(self, ref: Ref) -> Any:
        if ref.kind != naming.KIND:
            return next((obj for obj in self.named if ref_of(obj) == ref), None)
        found = self.pools.get(ref.name)
        if isinstance(found, list):  # one answer after the other
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def delete(self, ref: Ref, *, uid: str) -> None:
        self.deleted.append(ref)

    async def listed(self, kind: str, namespace: str, labels: dict[str, str]) -> tuple[str, Any]:
        return "1", await self.select(kind, namespace, labels)

    async def watched(self, *_: object, **__: object) -> Any:
        await asyncio.sleep(1e9)
        yield b""


def _has(obj: Any, labels: dict[str, str]) -> bool:
    """Like an API server's; what is odd is selected by everything."""
    try:
        return labels.items() <= obj["metadata"]["labels"].items()
    except (KeyError, TypeError, AttributeError):
        return True


def _is(obj: Any, kind: str, namespace: str) -> bool:
    """Whether it is of this kind, in this namespace; what is odd is of every kind but a pod."""
    try:
        return obj["kind"] == kind and namespace in ("", obj["metadata"]["namespace"])
    except (KeyError, TypeError):
        return kind != "Pod"


Labels = dict[str, str | None]


def a_secret(pool: str, *, uid: str = "gone", labels: Labels | None = None) -> Object:
    ours = {
        **naming.pool_labels(PoolKey("builds", pool)),
        "app.kubernetes.io/component": "authority",
        **(labels or {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"authority.builds.{pool}",
            "namespace": HOME,
            "uid": f"uid-of-{pool}",
            "labels": {key: value for key, value in ours.items() if value is not None},
            "annotations": {naming.ANNOTATION_POOL_UID: uid},
        },
    }


def a_part(kind: str, name: str, *, uid: str = "gone", pool: str = "ci", **more: str) -> Object:
    """What a pool has made beside it, of the pool with this uid."""
    labels = {**naming.detached_labels(PoolKey("builds", pool)), **more}
    return {
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "builds",
            "uid": f"uid-of-{name}",
            "labels": labels,
            "annotations": {naming.ANNOTATION_POOL_UID: uid} if uid else {},
        },
    }


def a_builder_pod(*, since: str, phase: str = "Running") -> Object:
    pod = a_part("Pod", "ci-builder-0-abc", uid="")
    pod["metadata"]["labels"] |= naming.builder_selector(CI)
    pod["metadata"]["creationTimestamp"] = since
    return pod | {"status": {"phase": phase}}


def a_living(uid: str = "1") -> dict[str, Any]:
    metadata = {"name": "ci", "namespace": "builds", "uid": uid}
    return {"ci": {"metadata": {**metadata, "creationTimestamp": "2026-01-02T00:00:00Z"}}}


async def during(run: Callable[[], Any], seconds: float) -> None:
    """Runs a round for so long; it must not end by itself."""
    running = asyncio.create_task(run())
    await asyncio.wait([running], timeout=seconds)
    assert not running.done(), "it goes on for ever"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# --- what pools have left ------------------------------------------------------------------------


def a_sweeper(cluster: Holding, *, namespaces: tuple[str, ...] = ()) -> OrphanSweeper:
    api = cast("Cluster", cluster)
    return OrphanSweeper(api, home=HOME, namespaces=namespaces, chance=lambda: 0.0)


def swept(cluster: Holding, *, within: float = 1.0) -> list[str]:
    """The names of what a sweeper deletes."""
    virtual_time.run(during(a_sweeper(cluster).run, within))
    return sorted(str(ref.name) for ref in cluster.deleted)


def test_what_belongs_to_a_pool_that_is_gone_or_to_a_namesake_is_removed() -> None:
    pools = {
        name: {"metadata": {"name": name, "namespace": "builds", "uid": uid}}
        for name, uid in (("here", "1"), ("again", "2"))
    }
    secrets = [a_secret("here", uid="1"), a_secret("again", uid="1"), a_secret("gone")]
    assert swept(Holding(secrets, pools=pools)) == [
        "authority.builds.again",
        "authority.builds.gone",
    ]


PARTS = (
    ("ConfigMap", "ci-builder"),
    ("Deployment", "ci-cache"),
    ("NetworkPolicy", "ci-builder"),
    ("PersistentVolumeClaim", "ci-builder-0"),
    ("PersistentVolumeClaim", "ci-cache"),
    ("PodDisruptionBudget", "ci-busy"),
    ("Service", "ci-cache"),
)
SECRETS = ("ci-builder", "ci-cache", "ci-cache-client", "ci-client-ana", "ci-client-bob")


def left_behind(uid: str = "gone") -> Holding:
    """All that a pool had, whose finalizer somebody took off."""
    authority = a_secret("ci", uid=uid)
    authority["metadata"]["annotations"][naming.ANNOTATION_CLIENTS] = "ana,bob"
    secrets = [a_part("Secret", name, uid=uid) for name in SECRETS]
    parts = [a_part(kind, name, uid=uid) for kind, name in PARTS]
    return Holding([authority, *parts], named=[authority, *secrets])


def test_all_that_a_pool_has_left_is_removed_the_authority_last() -> None:
    cluster = left_behind()
    swept(cluster)
    assert sorted((ref.kind, ref.name) for ref in cluster.deleted[:-1]) == sorted(
        [*PARTS, *(("Secret", name) for name in SECRETS)]
    )
    assert cluster.deleted[-1].name == "authority.builds.ci"


def test_nothing_of_a_pool_that_is_there_is_removed() -> None:
    cluster = left_behind(uid="1")
    cluster.pools = a_living("1")
    assert swept(cluster) == []


def test_nothing_is_removed_while_a_builder_of_the_pool_runs_and_then_it_is() -> None:
    cluster = left_behind()
    running = [*cluster.objects, a_builder_pod(since="2026-01-01T00:00:00Z")]
    cluster.objects = running
    assert swept(cluster, within=10) == []
    cluster.objects = [*running[:-1], a_builder_pod(since="2026-01-01T00:00:00Z", phase="Failed")]
    assert len(swept(cluster)) == len(PARTS) + len(SECRETS) + 1


@pytest.mark.parametrize(
    ("since", "is_removed"),
    {"2026-01-01T23:59:59Z": False, "2026-01-02T00:00:10Z": True}.items(),
    ids=["the earlier one's", "its own"],
)
def test_a_namesake_keeps_what_is_left_only_by_builders_that_are_older_than_it(
    since: str, is_removed: bool
) -> None:
    cluster = left_behind()
    cluster.pools = a_living("2")
    cluster.objects = [*cluster.objects, a_builder_pod(since=since)]
    assert bool(swept(cluster)) == is_removed


def test_builders_of_a_pool_that_is_gone_are_told_to_go_and_the_rest_waits_for_them() -> None:
    """A deletion with ``--cascade=orphan`` leaves them behind, and nobody else removes them."""
    cluster = left_behind()
    parts = {
        ("Deployment", "ci-builder-0"): naming.COMPONENT_BUILDER,
        ("Service", "ci"): naming.COMPONENT_ENDPOINT,
    }
    serving = [
        a_part(*what, **{"app.kubernetes.io/component": component})
        for what, component in parts.items()
    ]
    pod = a_builder_pod(since="2026-01-01T00:00:00Z")
    cluster.objects = [*cluster.objects, *serving, pod]
    assert swept(cluster, within=10) == ["ci", "ci-builder-0"]


def test_what_waits_for_builders_is_looked_at_again_soon() -> None:
    cluster = left_behind()
    cluster.objects = [*cluster.objects, a_builder_pod(since="2026-01-01T00:00:00Z")]
    swept(cluster, within=2.5 * RETRY_SECONDS)
    assert sorted({round(time) for time in cluster.times}) == [0, RETRY_SECONDS, 2 * RETRY_SECONDS]


def test_what_does_not_say_who_made_it_is_left_to_its_owner() -> None:
    owned = a_part("Service", "ci", uid="")
    owned["metadata"]["ownerReferences"] = [{"kind": naming.KIND, "uid": "gone"}]
    assert swept(Holding([owned])) == []


def test_by_name_alone_a_secret_is_found_where_its_pool_asks() -> None:
    """A backup has brought back what may not be listed."""
    authority = a_secret("ci", uid="1")
    authority["metadata"]["annotations"][naming.ANNOTATION_CLIENTS] = "ana"
    kept, restored = (
        a_part("Secret", f"ci-{n}", uid=uid) for n, uid in (("builder", "1"), ("client-ana", "0"))
    )
    cluster = Holding([], named=[authority, kept, restored], pools=a_living("1"))

    async def story() -> None:
        sweeper = a_sweeper(cluster)
        sweeper.ask(CI)
        await during(sweeper.run, 1.0)

    virtual_time.run(story())
    assert [ref.name for ref in cluster.deleted] == ["ci-client-ana"]


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({}, ["ci-client-default"]),
        ({"access": {"clients": [{"name": "ana"}]}}, ["ci-client-ana"]),
        ({"access": {"clients": "all"}}, []),
    ],
    ids=["the default client", "another client", "a spec that is refused"],
)
def test_a_clients_secret_is_found_though_the_authority_of_its_pool_went_before(
    spec: Object, found: list[str]
) -> None:
    """It was brought back first, and removed before the pool and the Secret were there."""
    restored = [a_part("Secret", f"ci-client-{name}", uid="0") for name in ("default", "ana")]
    pools = a_living("1")
    pools["ci"]["spec"] = spec
    cluster = Holding([], named=restored, pools=pools)

    async def story() -> None:
        sweeper = a_sweeper(cluster)
        sweeper.ask(CI)
        await during(sweeper.run, 1.0)

    virtual_time.run(story())
    assert [ref.name for ref in cluster.deleted] == found


def test_a_secret_of_another_pool_stays_though_a_client_of_this_one_would_have_its_name() -> None:
    """The builders' certificate of pool ci-client-x, and that of a client x-builder of pool ci."""
    other = a_part("Secret", "ci-client-x-builder", uid="2", pool="ci-client-x")
    pools = a_living("1")
    pools["ci"]["spec"] = {"access": {"clients": [{"name": "x-builder"}]}}
    cluster = Holding([], named=[other], pools=pools)

    async def story() -> None:
        sweeper = a_sweeper(cluster)
        sweeper.ask(CI)
        await during(sweeper.run, 1.0)

    virtual_time.run(story())
    assert cluster.deleted == []


FOREIGN: dict[str, Labels] = {
    "another chart's": {"app.kubernetes.io/name": "loki", naming.LABEL_POOL: None},
    "one that looks like ours": {"app.kubernetes.io/name": "loki"},
    "another manager's": {"app.kubernetes.io/managed-by": "Helm"},
    "one without its pool": {naming.LABEL_POOL: None},
    "one without its namespace": {naming.LABEL_POOL_NAMESPACE: None},
    "one with an empty pool": {naming.LABEL_POOL: ""},
}


@pytest.mark.parametrize("labels", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_secret_is_left_alone_and_ends_nothing(labels: Labels) -> None:
    secrets = [a_secret("foreign", labels=labels), a_secret("gone")]
    assert swept(Holding(secrets)) == ["authority.builds.gone"]


def test_a_secret_that_cannot_be_judged_keeps_no_other_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secrets = [a_secret("odd"), a_secret("dark"), a_secret("gone")]
    pools = {"odd": {"metadata": None}, "dark": UnavailableError("etcd has no leader")}
    assert swept(Holding(secrets, pools=pools)) == ["authority.builds.gone"]
    odd, dark = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert odd.exc_info
    assert not dark.exc_info
    assert "etcd has no leader" in dark.getMessage()


def bent(obj: Object) -> st.SearchStrategy[Object]:
    """The same object, with anything in some of its fields."""
    keys = st.sampled_from(sorted(obj["metadata"]))
    metadata = st.dictionaries(keys, any_json, max_size=2).map(lambda odd: obj["metadata"] | odd)
    rest = st.fixed_dictionaries({}, optional={"status": any_json, "kind": any_json})
    return st.builds(lambda fields, odd: obj | {"metadata": fields} | odd, metadata, rest)


@given(st.lists(any_object | bent(a_secret("odd")), max_size=4), any_object)
def test_no_object_ends_a_sweep(objects: list[Any], pool: Any) -> None:
    cluster = Holding([*objects, a_secret("gone")], pools={"ci": pool})
    assert "authority.builds.gone" in swept(cluster)


def test_a_sweep_that_fails_is_repeated_with_growing_pauses() -> None:
    cluster = Holding(error=KeyError("items"))
    swept(cluster, within=10 * INTERVAL_SECONDS)
    gaps = [after - before for before, after in pairwise(sorted(set(cluster.times)))]
    assert gaps[:3] == [RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    assert max(gaps) == INTERVAL_SECONDS


def test_a_namespace_in_which_nothing_may_be_listed_keeps_no_other_from_a_sweep() -> None:
    cluster = left_behind()
    cluster.refused = ("ConfigMap", "closed")
    sweeper = a_sweeper(cluster, namespaces=("closed", "builds"))
    virtual_time.run(during(sweeper.run, RETRY_SECONDS + 1))
    assert cluster.deleted[-1].name == "authority.builds.ci"
    assert set(cluster.times) == {0, RETRY_SECONDS}, "and it is looked at again"


def test_a_sweep_that_is_asked_for_comes_at_once_and_the_next_one_a_minute_later() -> None:
    """Each pass asks, as long as a namesake stands."""
    cluster = Holding()

    async def story() -> None:
        sweeper = a_sweeper(cluster)
        running = asyncio.create_task(sweeper.run())
        await asyncio.sleep(10)
        for _ in range(130):
            sweeper.ask(CI)
            await asyncio.sleep(1)
        running.cancel()

    virtual_time.run(story())
    assert sorted(set(cluster.times)) == [0, 10, 10 + RETRY_SECONDS, 10 + 2 * RETRY_SECONDS]


def test_who_asks_for_the_first_time_does_not_wait_for_others_who_do_so_again_and_again() -> None:
    cluster = Holding()

    async def story() -> None:
        sweeper = a_sweeper(cluster)
        running = asyncio.create_task(sweeper.run())
        for time in range(60):
            await asyncio.sleep(1)
            sweeper.ask(CI)
            if time == 30:
                sweeper.ask(OTHER)
        running.cancel()

    virtual_time.run(story())
    assert sorted(set(cluster.times)) == [0, 1, 31]


def test_a_copy_of_what_a_pool_has_is_its_makers_wherever_it_lies() -> None:
    copies = [a_part("ConfigMap", "ci-builder", uid="1"), a_part("Secret", "ci-builder", uid="1")]
    for copy in copies:
        copy["metadata"]["labels"][naming.LABEL_POOL_NAMESPACE] = "elsewhere"
    cluster = Holding(copies, named=copies)

    async def story() -> None:
        sweeper = a_sweeper(cluster)
        sweeper.ask(CI)
        await during(sweeper.run, 1.0)

    virtual_time.run(story())
    assert cluster.deleted == []


def test_what_does_not_say_who_made_it_is_no_orphan_at_home_where_its_pool_lives() -> None:
    authority = a_secret("ci", uid="")
    assert swept(Holding([authority], pools=a_living("1"))) == []
    assert swept(Holding([authority])) == ["authority.builds.ci"]


def test_nothing_is_removed_once_the_pool_is_another_than_was_seen() -> None:
    cluster = left_behind(uid="1")
    cluster.pools = {"ci": [None, a_living("1")["ci"]]}
    assert swept(cluster, within=2.5 * RETRY_SECONDS) == []
    assert RETRY_SECONDS in cluster.times, "it is looked at again soon"


# --- the gateway's pods --------------------------------------------------------------------------


def a_router(*, pod: str = "a", ready: bool = True, name: str = "buildpool") -> Object:
    status = "True" if ready else "False"
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "gateway"}
    return {
        "kind": "Pod",
        "metadata": {"name": pod, "namespace": HOME, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    }


def wakes_all(*pods: Any) -> bool:
    async def story() -> bool:
        wakeups = Wakeups()
        flag = wakeups.open(CI)
        watch = GatewayWatch(cast("Cluster", Holding(pods)), wakeups, home=HOME)
        await during(watch.run, 1.0)
        return flag.is_set()

    return virtual_time.run(story())


def test_pools_are_woken_when_the_gateway_is_ready() -> None:
    assert wakes_all(a_router())
    assert not wakes_all(a_router(ready=False))


def test_the_gateway_of_somebody_else_wakes_nobody() -> None:
    assert not wakes_all(a_router(name="loki"))


@given(st.lists(any_object | bent(a_router(pod="odd")), max_size=4))
def test_no_object_ends_the_watch_of_the_gateway(pods: list[Any]) -> None:
    assert wakes_all(*pods, a_router())


# --- Secrets -------------------------------------------------------------------------------------


@given(any_object)
def test_no_secret_keeps_another_from_being_looked_at(odd: Any) -> None:
    async def story() -> bool:
        wakeups = Wakeups()
        wakeups.open(OTHER)
        flag = wakeups.open(CI)
        changed = {"metadata": {"resourceVersion": "2"}}
        cluster = Holding(pools={"odd": odd, "changed": changed})
        poller = SecretPoller(cast("Cluster", cluster), wakeups, reads_per_second=10.0)
        poller.watch(OTHER, {Ref("Secret", "builds", "odd"): "1"})
        poller.watch(CI, {Ref("Secret", "builds", "changed"): "1"})
        await during(poller.run, 1.0)
        return flag.is_set()

    assert virtual_time.run(story())
