"""What the operator tells and what pods show, as the gateway reads it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given

from buildpool.core import naming
from buildpool.core.api.brief import Brief
from buildpool.core.naming import PoolKey
from buildpool.core.objects.pods import ending_of
from buildpool.core.objects.refs import Object
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Bundle, KeyPair
from buildpool.core.planning.certificates import gateway_secrets
from buildpool.core.planning.desired import wanted_acknowledgement
from buildpool.core.reporting.losses import look
from buildpool.core.resources import brief_of, gateway_secret, upstream_secret
from buildpool.gateway.pools.directory import (
    Directory,
    builder_of,
    pool_of,
    tenant_of,
)
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.reports.builds import BuildRecord
from buildpool.gateway.reports.details import CompletedSteps, Details
from buildpool.gateway.slots.store import ConnectionStore
from buildpool.kube.cluster import Cluster
from daemons import Silent, until
from endings import ENDINGS, a_reachable_pod, hostile_pods
from samples import HOME, INSTALLATION, NOW, a_pool, a_situation

POOL = a_pool(routing="Gateway")
SERVER = Bundle(KeyPair(b"a certificate", b"a key"), trust=b"an authority")
UPSTREAM = Bundle(KeyPair(b"another", b"its key"), trust=b"an authority")


def secrets() -> tuple[Object, Object]:
    return (
        gateway_secret(POOL, SERVER, installation=INSTALLATION),
        upstream_secret(POOL, UPSTREAM, namespace=HOME),
    )


def test_a_router_that_is_older_than_the_operator_reads_what_it_knows() -> None:
    cached = a_pool(routing="Gateway", cache={"registry": {"ref": "r.example/caches"}})
    brief = brief_of(cached, domain=INSTALLATION.domain)
    newer = json.loads(brief.model_dump_json(by_alias=True, exclude_none=True))
    for part in (newer, newer["cache"], *newer["clients"]):
        part["ofTomorrow"] = {"much": ["more"]}
    assert Brief.read(json.dumps(newer)) == brief


def test_router_and_operator_mean_the_same_by_what_is_served() -> None:
    s = a_situation(POOL, Observation())
    server, upstream = gateway_secrets(POOL, s.installation)
    s = s.with_issued({server: SERVER, upstream: UPSTREAM})
    told = tenant_of(*secrets()).acknowledgement
    assert told == wanted_acknowledgement(s)
    for part in ("ca.pem", "tls.crt", "pool.json"):
        changed, other = deepcopy(secrets())
        changed["data"][part] = (
            "e30=" if part != "pool.json" else base64.b64encode(BRIEF.encode()).decode()
        )
        assert tenant_of(changed, other).acknowledgement != told
    changed = deepcopy(secrets()[0])
    changed["metadata"]["labels"]["theirs"] = "label"
    assert tenant_of(changed, secrets()[1]).acknowledgement == told


BRIEF = brief_of(
    a_pool(routing="Gateway", builders={"slots": 7}), domain=INSTALLATION.domain
).model_dump_json(by_alias=True, exclude_none=True)


def serving_pod(**changes: Any) -> Object:
    """The pod of a builder that takes builds."""
    pod = a_reachable_pod()
    pod["status"].update(changes)
    return pod


class Feed:
    """An API server that has these pods and nothing else; a test says what becomes of them."""

    def __init__(self, *pods: Object) -> None:
        self._pods = pods
        self._events = asyncio.Queue[bytes]()

    def tell(self, kind: str, pod: Object) -> None:
        self._events.put_nowait(json.dumps({"type": kind, "object": pod}).encode() + b"\n")

    async def listed(
        self, kind: str, namespace: str, labels: dict[str, str]
    ) -> tuple[str, list[Object]]:
        pods = self._pods if kind == "Pod" else ()
        return "1", [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]

    async def watched(self, kind: str, *_: object, **__: object) -> AsyncIterator[bytes]:
        while True:
            yield await (self._events.get() if kind == "Pod" else asyncio.Future[bytes]())


@asynccontextmanager
async def reading(feed: Feed) -> AsyncIterator[Directory]:
    """A directory that has seen what there is."""
    directory = Directory(cast("Cluster", feed), home=HOME, namespaces=())
    running = asyncio.create_task(directory.run())
    try:
        await directory.synced.wait()
        yield directory
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_the_operator_tells_is_read_as_it_was_written() -> None:
    config = tenant_of(*secrets())
    assert config.key == POOL.key
    assert config.brief == brief_of(POOL, domain=INSTALLATION.domain)
    assert (config.server, config.upstream) == (SERVER.pair, UPSTREAM.pair)
    assert config.trust == b"an authority"


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.pem", "pool.json"])
def test_what_is_missing_or_garbled_is_no_pool(key: str) -> None:
    for garbled in ({}, {key: ""}, {key: "%"}):
        server, upstream = secrets()
        del server["data"][key]
        server["data"] |= garbled
        with pytest.raises((KeyError, ValueError)):
            tenant_of(server, upstream)


def test_an_object_says_whose_it_is() -> None:
    assert pool_of(secrets()[0]) == PoolKey("builds", "ci")
    assert pool_of({"metadata": {}}) is None


def test_a_ready_pod_of_the_service_takes_builds() -> None:
    builder = builder_of(serving_pod())
    assert builder is not None
    assert (builder.name, builder.address) == ("ci-builder-0", "10.0.0.7:1234")
    assert builder.is_serving
    assert not builder.is_leaving
    assert builder.trouble == ""


def test_an_address_of_ip_version_6_stands_in_brackets() -> None:
    builder = builder_of(serving_pod(podIP="fd00::7"))
    assert builder is not None
    assert builder.address == "[fd00::7]:1234"


def test_a_retired_pod_takes_no_builds_and_stays_known() -> None:
    pod = serving_pod()
    pod["metadata"]["labels"][naming.LABEL_SERVING] = "false"
    builder = builder_of(pod)
    assert builder is not None
    assert not builder.is_serving
    assert not builder.is_leaving


def test_a_pod_on_its_way_out_is_left_alone() -> None:
    pod = serving_pod()
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    builder = builder_of(pod)
    assert builder is not None
    assert not builder.is_serving
    assert builder.is_leaving


def test_a_pod_in_which_no_daemon_ever_ran_is_no_builder() -> None:
    pod = serving_pod()
    del pod["status"]["podIP"]
    assert builder_of(pod) is None


@pytest.mark.parametrize(("pod", "words"), ENDINGS.values(), ids=ENDINGS)
def test_a_builder_with_an_ending_takes_no_builds(pod: Object, words: str) -> None:
    builder = builder_of(pod)
    if ending_of(pod) is None:
        assert builder is not None
        assert builder.is_serving, "its daemon runs again"
        assert builder.trouble == ""
    elif builder is not None:
        assert not builder.is_serving
        assert builder.trouble == words


@given(hostile_pods())
def test_no_pod_raises_whatever_stands_in_it(pod: Object) -> None:
    pool_of(pod)
    builder = builder_of(pod)
    assert builder is None or builder.trouble == str(ending_of(pod) or "")


async def test_only_the_projects_own_pods_in_the_namespace_of_their_pool_are_builders() -> None:
    own, elsewhere, strange = serving_pod(), serving_pod(), serving_pod()
    elsewhere["metadata"] |= {"namespace": "elsewhere", "uid": "another"}
    strange["metadata"] |= {"name": "strange", "uid": "a third"}
    strange["metadata"]["labels"]["app.kubernetes.io/name"] = "something else"
    async with reading(Feed(elsewhere, strange, own)) as directory:
        assert [builder.uid for builder in directory.builders(POOL.key)] == [own["metadata"]["uid"]]


async def test_a_daemon_that_was_restarted_before_it_was_seen_first_has_no_trouble() -> None:
    pod, _ = ENDINGS["crashed"]
    async with reading(Feed(pod)) as directory:
        (builder,) = directory.builders(POOL.key)
        assert builder.is_serving
        assert directory.trouble(builder.address) is None


# --- one account for the Event, the log and the client --------------------------------------------


def event_of(pod: Object | None) -> str:
    """What the operator tells of the build that ran on a pod, once it has become this."""
    before = serving_pod()
    load = Load((RunningBuild("a", NOW),), NOW)
    observation = Observation(pods=(before,), loads={before["metadata"]["uid"]: load})
    sights, _ = look({}, observation)
    _, (event,) = look(sights, Observation(pods=() if pod is None else (pod,)))
    return event.message


async def client_and_log_of(pod: Object | None) -> tuple[str, str | None]:
    """What the gateway tells the client of that build, and its own log."""
    feed = Feed(serving_pod())
    async with reading(feed) as directory:
        pools = ServedPools(
            directory,
            lambda *_: Silent(),
            clock=lambda: NOW,
            memory=ConnectionStore(None, now=NOW),
            on_backlog_changed=lambda _: None,
            on_closed=lambda _: None,
        )
        (builder,) = directory.builders(POOL.key)
        record = BuildRecord("a", POOL.key, "ann", builder, NOW, timedelta(), None, None, False)
        record.trouble = "nobody says why yet"
        feed.tell(*(("DELETED", serving_pod()) if pod is None else ("MODIFIED", pod)))
        await until(lambda: directory.trouble(builder.address) is not None, "it is told")
        await Details(pools, CompletedSteps())(record)
        return pools.known_trouble(builder), record.trouble


@pytest.mark.parametrize(
    ("pod", "words"),
    [*ENDINGS.values(), (None, "its pod is gone, by force or with its node")],
    ids=[*ENDINGS, "it is gone"],
)
async def test_event_log_and_client_name_one_cause(pod: Object | None, words: str) -> None:
    assert event_of(pod) == f"ci-builder-0 has lost builds a: {words}."
    assert await client_and_log_of(deepcopy(pod)) == (words, words)


async def test_a_pod_that_was_told_to_go_and_is_gone_was_deleted() -> None:
    feed, leaving = Feed(serving_pod()), a_reachable_pod(terminating=True)
    async with reading(feed) as directory:
        feed.tell("MODIFIED", leaving)
        feed.tell("DELETED", leaving)
        await until(lambda: not directory.builders(POOL.key), "it is gone")
        assert directory.trouble("10.0.0.7:1234") == ("ci-builder-0", "its pod was deleted")
