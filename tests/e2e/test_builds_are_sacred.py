"""Whatever happens to its pool, a running build ends well.

Each story is a function with a pool of its own; they all go on at the same time, because most of a
story is waiting for a build of twenty seconds. The build runs until the story lets it end: by then
the disturbance is over and the builder is on its way out.
"""

from __future__ import annotations

import ssl
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster import OPERATOR_NAMESPACE, Api, at_most, eventually
from e2e.clients import RunningBuild, client_of, running_build
from e2e.pools import (
    address_of,
    change,
    deploy,
    is_leaving,
    is_retired,
    leaves_nothing,
    newcomer,
    pods_of,
    serving,
    settle,
)
from e2e.stories import Story


def the_pod_is_deleted(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "evicted", namespace)
    client = client_of(api, "evicted", namespace, folder)
    with running_build(client, folder) as build:
        (before,) = pods_of(api, "evicted", namespace)
        delete(api, before)
        after = successor(api, "evicted-builder-0", before)
        assert client.at(address_of(after)).can_connect()
        eventually(client.can_connect, within=30, what="the Service leads to the new pod")
        goes_after(api, before, build)


def the_pod_with_a_volume_is_deleted(api: Api, namespace: str, folder: Path) -> None:
    """Its successor comes at once, to the same volume, and waits for the end of the build."""
    deploy(api, "kept", namespace, builders={"storage": {"volumeClaim": {"size": "2Gi"}}})
    client = client_of(api, "kept", namespace, folder)
    with running_build(client, folder) as build:
        (before,) = pods_of(api, "kept", namespace)
        delete(api, before)
        eventually(
            lambda: len(pods_of(api, "kept", namespace)) == 2,
            within=60,
            what="a successor is there",
        )
        goes_after(api, before, build)
    after = successor(api, "kept-builder-0", before)
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    settle(api, "kept", namespace)
    assert "BuilderCrashing" not in api.reasons("kept", namespace)


def env_changes_of_one_builder(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "env", namespace)
    client = client_of(api, "env", namespace, folder)
    with running_build(client, folder) as build:
        (before,) = pods_of(api, "env", namespace)
        change(api, "env", namespace, builders={"env": [{"name": "NEW", "value": "yes"}]})
        after = newcomer(api, "env", namespace, [before])
        assert after["spec"]["containers"][0]["env"] == [{"name": "NEW", "value": "yes"}]
        settle(api, "env", namespace)
        eventually(client.can_connect, within=30, what="the Service leads to a builder")
        goes_after(api, before, build)


def the_configuration_changes_of_two_builders(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "config", namespace, scaling={"min": 2})
    client = client_of(api, "config", namespace, folder)
    before = pods_of(api, "config", namespace)
    with ExitStack() as stack:
        builds = [
            stack.enter_context(running_build(client.at(address_of(pod)), folder / str(number)))
            for number, pod in enumerate(before)
        ]
        change(api, "config", namespace, builders={"config": "[dns]\noptions = ['ndots:2']\n"})
        settle(api, "config", namespace)
        newcomer(api, "config", namespace, before)
        for pod, build in zip(before, builds, strict=True):
            goes_after(api, pod, build)


def the_pull_policy_changes_of_a_builder_with_a_volume(
    api: Api, namespace: str, folder: Path
) -> None:
    """Two pods cannot share a cache: the new one has a volume of its own, and the old one waits."""
    storage = {"volumeClaim": {"size": "2Gi"}}
    deploy(api, "volume", namespace, scaling={"max": 2}, builders={"storage": storage})
    client = client_of(api, "volume", namespace, folder)
    with running_build(client, folder) as build:
        (before,) = pods_of(api, "volume", namespace)
        change(api, "volume", namespace, builders={"imagePullPolicy": "Never"})
        after = newcomer(api, "volume", namespace, [before])
        assert after["spec"]["containers"][0]["imagePullPolicy"] == "Never"
        settle(api, "volume", namespace)
        eventually(client.can_connect, within=30, what="the Service leads to a builder")
        goes_after(api, before, build)
    # The next one comes back to the first volume, and to the cache that is on it.
    change(api, "volume", namespace, builders={"imagePullPolicy": "IfNotPresent"})
    again = newcomer(api, "volume", namespace, [after])
    assert again["metadata"]["labels"]["buildpool.dev/builder"] == "volume-builder-0"
    assert again["status"]["containerStatuses"][0]["restartCount"] == 0
    assert again["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def the_pool_is_deleted(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "gone", namespace)
    client = client_of(api, "gone", namespace, folder)
    with running_build(client, folder) as build:
        (pod,) = pods_of(api, "gone", namespace)
        api.must("delete", "bkp", "gone", "-n", namespace, "--wait=false")
        name = pod["metadata"]["name"]
        eventually(
            lambda: (
                (ready := api.condition("gone", namespace, "Ready"))["reason"] == "Terminating"
                and name in ready["message"]
            ),
            within=60,
            what="the pool says which pod it waits for",
        )
        eventually(lambda: not client.can_connect(), within=30, what="it takes no new builds")
        assert api.get("bkp", "gone", namespace) is not None
        goes_after(api, pod, build)
    leaves_nothing(api, "gone", namespace, within=120)


def the_pool_is_scaled_down(api: Api, namespace: str, folder: Path) -> None:
    """Idle builders go, whichever they are; one that builds stays until it does no more."""
    deploy(api, "smaller", namespace, scaling={"min": 2})
    client = client_of(api, "smaller", namespace, folder)
    busy = serving(api, "smaller-builder-1", namespace)
    assert busy is not None
    with running_build(client.at(address_of(busy)), folder) as build:
        api.must("scale", "bkp", "smaller", "-n", namespace, "--replicas=1")
        eventually(
            lambda: api.get("deployment", "smaller-builder-0", namespace) is None,
            within=30,
            what="the idle builder is gone",
        )
        settle(api, "smaller", namespace)
        api.must("scale", "bkp", "smaller", "-n", namespace, "--replicas=0")
        eventually(
            lambda: api.condition("smaller", namespace, "Ready")["reason"] == "ScaledToZero",
            within=60,
            what="the pool wants no builder",
        )
        assert serving(api, "smaller-builder-1", namespace), "it builds, so it serves"
        assert client.can_connect()
        build.end(busy["status"]["podIP"])
    eventually(
        lambda: not pods_of(api, "smaller", namespace), within=90, what="all builders are gone"
    )


def the_certificate_of_the_builder_is_renewed(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "renewed", namespace)
    client = client_of(api, "renewed", namespace, folder)
    with running_build(client, folder) as build:
        (before,) = pods_of(api, "renewed", namespace)
        old = certificate_shown_by(before)
        api.must("delete", "secret", "renewed-builder", "-n", namespace)
        after = newcomer(api, "renewed", namespace, [before])
        assert certificate_shown_by(after) != old
        assert client.at(address_of(after)).can_connect(), "the same authority issued both"
        settle(api, "renewed", namespace)
        goes_after(api, before, build)


def the_authority_is_replaced(api: Api, namespace: str, folder: Path) -> None:
    """The worst that can befall certificates: all are new, and the old ones open nothing."""
    deploy(api, "anew", namespace)
    client = client_of(api, "anew", namespace, folder / "old")
    with running_build(client, folder) as build:
        (before,) = pods_of(api, "anew", namespace)
        api.must("delete", "secret", f"authority.{namespace}.anew", "-n", OPERATOR_NAMESPACE)
        after = newcomer(api, "anew", namespace, [before])
        settle(api, "anew", namespace)
        assert not client.at(address_of(after)).can_connect()
        new = client_of(api, "anew", namespace, folder / "new")
        eventually(new.can_connect, within=30, what="the Service leads to the new one", every=0.5)
        goes_after(api, before, build)


STORIES: tuple[Story, ...] = (
    the_pod_is_deleted,
    the_pod_with_a_volume_is_deleted,
    env_changes_of_one_builder,
    the_configuration_changes_of_two_builders,
    the_pull_policy_changes_of_a_builder_with_a_volume,
    the_pool_is_deleted,
    the_pool_is_scaled_down,
    the_certificate_of_the_builder_is_renewed,
    the_authority_is_replaced,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_running_build_ends_well_though(story: Story, told: dict[Story, Future[None]]) -> None:
    told[story].result(timeout=420)


def test_a_restarted_operator_touches_no_builder(api: Api, namespace: str, tmp_path: Path) -> None:
    deploy(api, "ci", namespace)
    client = client_of(api, "ci", namespace, tmp_path)
    operator = ("-n", OPERATOR_NAMESPACE, "deployment/buildpool")
    with running_build(client, tmp_path) as build:
        (pod,) = pods_of(api, "ci", namespace)
        before = builders(api, namespace)
        api.must("delete", "pod", "-n", OPERATOR_NAMESPACE, "--all", "--force")
        api.must("rollout", "restart", *operator)
        api.must("rollout", "status", *operator, at_most(110))
        # It leads and acts again: what is deleted comes back.
        api.must("delete", "service", "ci", "-n", namespace)
        eventually(lambda: api.get("service", "ci", namespace), within=90, what="it acts again")
        build.end(pod["status"]["podIP"])
    assert builders(api, namespace) == before


def builders(api: Api, namespace: str) -> dict[str, Any]:
    """What a builder is: its Deployment's generation and its pod."""
    found = api.list("deployments,pods", namespace, "buildpool.dev/pool=ci")
    return {obj["metadata"]["uid"]: obj["metadata"]["generation"] for obj in found}


def delete(api: Api, pod: dict[str, Any]) -> None:
    metadata = pod["metadata"]
    api.must("delete", "pod", metadata["name"], "-n", metadata["namespace"], "--wait=false")


def successor(api: Api, builder: str, pod: dict[str, Any]) -> dict[str, Any]:
    """The pod that serves in place of this one."""

    def other() -> dict[str, Any] | None:
        found = serving(api, builder, pod["metadata"]["namespace"])
        return found if found and found["metadata"]["uid"] != pod["metadata"]["uid"] else None

    found: dict[str, Any] = eventually(
        other, within=150, what=f"{builder} has a new pod", every=0.5
    )
    return found


def is_going(api: Api, pod: dict[str, Any]) -> bool:
    metadata = pod["metadata"]
    found = api.get("pod", metadata["name"], metadata["namespace"])
    return found is not None and (is_leaving(found) or is_retired(found))


def goes_after(api: Api, pod: dict[str, Any], build: RunningBuild) -> None:
    """The pod stays until its build has ended well, and then goes.

    Which takes its while: the API server's garbage collector, the ten seconds in which proxies
    forget a pod, and the daemon's own exit, on a machine where nine such stories go on.
    """
    eventually(lambda: is_going(api, pod), within=60, what="the builder is to go")
    build.end(pod["status"]["podIP"])
    metadata = pod["metadata"]
    eventually(
        lambda: api.get("pod", metadata["name"], metadata["namespace"]) is None,
        within=60,
        what=f"{metadata['name']} is gone",
        every=0.5,
    )


def certificate_shown_by(pod: dict[str, Any]) -> str:
    """The certificate that a builder serves with."""
    return ssl.get_server_certificate((pod["status"]["podIP"], 1234), timeout=10)
