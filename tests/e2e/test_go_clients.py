"""Programs in Go that use BuildKit's own library: they keep a connection, and need no hello."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e.clients import client_of, running_build
from e2e.gateways import deploy, status
from e2e.go_clients import builds, failures, kept
from e2e.pools import change, pods_of
from e2e.stories import Story
from e2e.test_the_gateway_is_replaced import gateways, is_ready, is_replaced
from limits import patience

WAYS = {"client.Build": (), "client.Solve": ("-solve",)}
REPLACED = threading.Event()
"""The gateway that there was takes no connections any more; it takes its time to go."""
TURN_SECONDS = 420
"""How long that may take, and a pool of its own before it."""
SESSION_SECONDS = 12
"""A session that was not answered for ten seconds is of no use any more to its client. Only time
can show that it was answered: nothing else is seen of it."""


def fifty_builds_in_turn_use_one_connection(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "turns", namespace)
    client = client_of(api, "turns", namespace, folder)
    assert REPLACED.wait(TURN_SECONDS)
    for way, count in ((), 50), (("-solve",), 10):
        found = builds(client, *way, "turns", "-builds", f"{count}")
        assert len(found) == count
        assert failures(found) == set()
        assert {build.connections for build in found} == {1}
    eventually(
        lambda: status(api, "turns", namespace)["waiting"] == 0, within=30, what="nobody waits"
    )


def a_bake_of_three_hundred_targets_takes_one_slot(api: Api, namespace: str, folder: Path) -> None:
    """Of a client that may end only what it has begun: none of its targets may be forgotten."""
    clients = [{"name": "default"}, {"name": "guests", "inject": "Import"}]
    deploy(api, "many", namespace, access={"clients": clients})
    client = client_of(api, "many", namespace, folder, "guests")
    assert REPLACED.wait(TURN_SECONDS)
    found = builds(client, "many", "-targets", "300")
    assert len(found) == 300
    assert failures(found) == set()
    assert {build.connections for build in found} == {1}


def a_build_that_asks_for_nothing_before_it_begins_waits_for_its_slot(
    api: Api, namespace: str, folder: Path
) -> None:
    deploy(api, "solves", namespace)
    client = client_of(api, "solves", namespace, folder)
    assert REPLACED.wait(TURN_SECONDS)
    with ThreadPoolExecutor(1) as threads:
        with running_build(client, folder) as first:
            (pod,) = pods_of(api, "solves", namespace)
            waiting = threads.submit(builds, client, "-solve", "turns")
            eventually(
                lambda: status(api, "solves", namespace)["waiting"] == 1, within=60, what="it waits"
            )
            time.sleep(SESSION_SECONDS)
            assert not waiting.done()
            first.end(pod["status"]["podIP"])
        (build,) = waiting.result(timeout=patience(60))
    assert build.error == "", "and its file came back through its session"
    assert build.seconds > SESSION_SECONDS


def a_build_that_asks_for_nothing_before_it_begins_wakes_its_pool(
    api: Api, namespace: str, folder: Path
) -> None:
    """Where there is no builder, its session cannot wait long enough: it hears so at once."""
    deploy(api, "slept", namespace, scaling={"min": 0, "max": 1})
    client = client_of(api, "slept", namespace, folder)
    assert pods_of(api, "slept", namespace) == []
    assert REPLACED.wait(TURN_SECONDS)

    def is_built() -> bool:
        (build,) = builds(client, "-solve", "turns")
        assert build.code in ("", "ResourceExhausted"), build
        assert not build.error or "no builder is ready yet" in build.error, build
        return not build.error

    eventually(is_built, within=120, what="the build that it woke the pool for", every=1)


def a_connection_that_is_kept_outlives_routers_and_gateways_but_not_its_client(
    api: Api, namespace: str, folder: Path
) -> None:
    try:
        _a_connection_is_kept(api, namespace, folder)
    finally:
        REPLACED.set()


def _a_connection_is_kept(api: Api, namespace: str, folder: Path) -> None:
    clients = [{"name": "default"}, {"name": "leaver"}]
    deploy(api, "kept", namespace, builders={"slots": 2}, access={"clients": clients})
    client = client_of(api, "kept", namespace, folder, "leaver")
    with ExitStack() as stack:
        programs = [stack.enter_context(kept(client, *way)) for way in WAYS.values()]
        for program in programs:
            assert program.builds_well().connections == 1

        (gateway,) = filter(is_ready, gateways(api))
        inside = ("exec", gateway["metadata"]["name"], "-n", OPERATOR_NAMESPACE, "-c", "router")
        api.must(*inside, "--", "sh", "-c", "kill -9 $(cat /tmp/router.pid)")
        for program in programs:
            assert program.builds_well().connections == 1, "what it asks waits for the next router"

        before = {each["metadata"]["name"] for each in gateways(api)}
        api.must("rollout", "restart", "deployment/buildpool-gateway", "-n", OPERATOR_NAMESPACE)
        is_replaced(api, before)
        REPLACED.set()
        for program in programs:
            assert program.builds_well().connections == 1, "it is served as long as it builds"
        eventually(
            lambda: not any(api.get("pod", name, OPERATOR_NAMESPACE) for name in before),
            within=120,
            what="the gateway before is gone",
            every=0.5,
        )
        for program in programs:
            assert program.builds_well().connections == 2, "it has found the next gateway by itself"

        change(api, "kept", namespace, access={"clients": clients[:1]})
        for program in programs:
            eventually(
                lambda program=program: program.build().code == "PermissionDenied",
                within=60,
                what="it is refused on the connection that it has",
                every=0.5,
            )
            assert "is not among access.clients" in program.build().error


STORIES: tuple[Story, ...] = (
    a_connection_that_is_kept_outlives_routers_and_gateways_but_not_its_client,
    fifty_builds_in_turn_use_one_connection,
    a_bake_of_three_hundred_targets_takes_one_slot,
    a_build_that_asks_for_nothing_before_it_begins_waits_for_its_slot,
    a_build_that_asks_for_nothing_before_it_begins_wakes_its_pool,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_that(story: Story, told: dict[Story, Future[None]]) -> None:
    told[story].result(timeout=600)
