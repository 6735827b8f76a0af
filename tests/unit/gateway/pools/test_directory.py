"""What the operator tells and what pods show, as the gateway reads it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from buildpool.core import naming
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Bundle, KeyPair
from buildpool.core.resources import brief_of, gateway_secret, upstream_secret
from buildpool.gateway.pools.directory import (
    Directory,
    builder_of,
    last_end_of,
    pool_of,
    restarts_of,
    tenant_of,
)
from buildpool.kube.cluster import Cluster
from samples import HOME, a_pod, a_pool

POOL = a_pool(routing="Gateway")
SERVER = Bundle(KeyPair(b"a certificate", b"a key"), trust=b"an authority")
UPSTREAM = Bundle(KeyPair(b"another", b"its key"), trust=b"an authority")


def secrets() -> tuple[Object, Object]:
    return (
        gateway_secret(POOL, SERVER, namespace=HOME),
        upstream_secret(POOL, UPSTREAM, namespace=HOME),
    )


def serving_pod(**changes: Any) -> Object:
    """The pod of a builder that takes builds."""
    pod = a_pod(ready=True)
    pod["metadata"]["labels"][naming.LABEL_SERVING] = "true"
    pod["status"]["podIP"] = "10.0.0.7"
    (daemon, *_) = pod["status"]["containerStatuses"]
    daemon["state"] = {"running": {}}
    pod["status"].update(changes)
    return pod


def ended(reason: str, code: int) -> list[Object]:
    """The daemon's container, which has ended."""
    (daemon, *_) = serving_pod()["status"]["containerStatuses"]
    return [{**daemon, "state": {"terminated": {"reason": reason, "exitCode": code}}}]


def test_what_the_operator_tells_is_read_as_it_was_written() -> None:
    config = tenant_of(*secrets())
    assert config.key == POOL.key
    assert config.brief == brief_of(POOL)
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


TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "evicted": (
        {"reason": "Evicted", "message": "The node was low on resource: memory. "},
        "evicted: The node was low on resource: memory",
    ),
    "out of memory": (
        {"containerStatuses": ended("OOMKilled", 137)},
        "killed, because it was out of memory",
    ),
    "crashed": (
        {"containerStatuses": ended("Error", 2)},
        "its daemon ended with exit code 2",
    ),
    "node lost": ({"reason": "NodeLost"}, "its node is lost"),
    "taken from a lost node": (
        {"conditions": [{"type": "DisruptionTarget", "reason": "DeletionByTaintManager"}]},
        "its node is lost",
    ),
}


@pytest.mark.parametrize(("status", "words"), TROUBLES.values(), ids=TROUBLES)
def test_what_became_of_a_builder_is_said_in_words(status: dict[str, Any], words: str) -> None:
    builder = builder_of(serving_pod(**status))
    assert builder is not None
    assert builder.trouble == words
    assert not builder.is_serving


def test_how_a_daemon_ended_that_runs_again_is_known() -> None:
    pod = serving_pod()
    (daemon, *_) = pod["status"]["containerStatuses"]
    daemon["restartCount"] = 1
    daemon["lastState"] = {"terminated": {"reason": "Error", "exitCode": 137}}
    assert restarts_of(pod) == 1
    assert last_end_of(pod) == "its daemon ended with exit code 137"


def test_a_pod_of_another_namespace_is_no_builder_whatever_its_labels_say() -> None:
    directory = Directory(cast("Cluster", None), home=HOME, namespaces=())
    (mirror,) = directory._pods
    own, foreign = serving_pod(), serving_pod()
    for pod in (own, foreign):
        pod["metadata"]["labels"] |= naming.pool_labels(POOL.key)
    foreign["metadata"] |= {"namespace": "elsewhere", "uid": "another"}
    for pod in (foreign, own):
        pod["metadata"]["resourceVersion"] = "1"
        mirror._take("ADDED", pod)
    assert [builder.uid for builder in directory.builders(POOL.key)] == [own["metadata"]["uid"]]
