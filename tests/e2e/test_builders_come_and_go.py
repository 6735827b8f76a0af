"""Builders follow the builds that run, and what happens to them is told.

Stories, each with a pool of its own, that go on at the same time: most of each is waiting.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import PROJECT, Api, eventually
from e2e.clients import (
    BASE,
    RELEASE,
    SHORT,
    Client,
    RunningBuild,
    client_of,
    context,
    is_open,
    running_build,
)
from e2e.pools import deploy, newcomer, pods_of, serving, settle
from e2e.stories import Story

EVICTION = "/api/v1/namespaces/{namespace}/pods/{name}/eviction"


def a_pool_grows_with_its_builds_and_shrinks_again(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "grows", namespace, scaling={"min": 1, "max": 3, "idleAfter": "5s"})
    client = client_of(api, "grows", namespace, folder)
    with ExitStack() as stack:
        builds = [stack.enter_context(held_build(client, folder, n)) for n in (1, 2)]
        eventually(
            lambda: status(api, "grows", namespace)["scaling"]["size"] == 2,
            within=60,
            what="two builds need another builder",
        )
        settle(api, "grows", namespace)
        eventually(
            lambda: status(api, "grows", namespace)["busy"] == "2/4", within=30, what="both run"
        )
        (busy,) = [pod for pod in pods_of(api, "grows", namespace) if is_busy(pod)]
        assert "disruption budget" in evict(api, busy), "a busy builder is not evicted"
        (idle,) = [pod for pod in pods_of(api, "grows", namespace) if not is_busy(pod)]
        assert evict(api, idle) == "", "an idle one is"
        newcomer(api, "grows", namespace, [busy, idle])
        eventually(
            lambda: "2 builders (of 1 to 3), 2 builds on 4 slots" in explained("grows", namespace),
            within=60,
            what="both builders are explained",
        )
        for number, build in enumerate(builds, start=1):
            assert build.is_running, build.progress
            release(busy["status"]["podIP"], number)
            assert build.process.wait(timeout=120) == 0, build.progress
    eventually(
        lambda: len(pods_of(api, "grows", namespace)) == 1, within=150, what="one builder is left"
    )
    expected = {"ScaledUp", "ScaledDown", "RetiredBuilder", "RemovedBuilder"}
    eventually(
        lambda: expected <= set(api.reasons("grows", namespace)), within=30, what="all is told"
    )
    assert serving(api, "grows-builder-0", namespace), "the oldest stays: its cache is worth most"


def a_build_that_is_lost_is_named(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "crash", namespace)
    client = client_of(api, "crash", namespace, folder)
    with running_build(client, folder):
        ref = client.ask("debug", "histories").split("STARTED")[1].split()[0]
        eventually(
            lambda: status(api, "crash", namespace)["busy"] == "1/2", within=60, what="it is seen"
        )
        inside = ("exec", "-n", namespace, "deploy/crash-builder-0", "-c", "buildkitd", "--")
        api.kubectl(*inside, "sh", "-c", "kill -9 $(pidof buildkitd)")  # which may end this, too
        events = eventually(
            lambda: events_of(api, "crash", namespace, "BuildsLost"),
            within=30,
            what="the pool says that it has lost a build",
            every=0.5,
        )
    assert ref in events[0]["message"]
    assert "crash-builder-0" in events[0]["message"]
    settle(api, "crash", namespace)


def a_build_that_takes_too_long_is_reported_and_goes_on(
    api: Api, namespace: str, folder: Path
) -> None:
    deploy(api, "late", namespace, builders={"maxBuildDuration": "1m"})
    client = client_of(api, "late", namespace, folder)
    with running_build(client, folder) as build:
        (pod,) = pods_of(api, "late", namespace)
        eventually(
            lambda: "BuildOverdue" in api.reasons("late", namespace),
            within=90,
            what="the build is reported",
            every=1,
        )
        (builder,) = status(api, "late", namespace)["builders"]  # which is written before
        assert "runs for longer than builders.maxBuildDuration (1m)" in builder["message"]
        build.end(pod["status"]["podIP"])


def a_builder_that_has_served_enough_is_replaced(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "worn", namespace, builders={"recycle": {"maxBuilds": 2}})
    client = client_of(api, "worn", namespace, folder)
    before = pods_of(api, "worn", namespace)
    eventually(
        lambda: status(api, "worn", namespace)["builders"][0].get("builds") == 0,
        within=30,
        what="its daemon is listened to: from now on, all its builds are counted",
    )
    for number in range(2):
        client.build(context(folder / str(number), f"{SHORT}RUN echo {number}\n"), "--no-cache")
    newcomer(api, "worn", namespace, before)
    settle(api, "worn", namespace)
    eventually(
        lambda: any(
            "worn-builder-0 (TooManyBuilds)" in event["message"]
            for event in events_of(api, "worn", namespace, "RetiredBuilder")
        ),
        within=30,
        what="it is told",
    )


STORIES: tuple[Story, ...] = (
    a_pool_grows_with_its_builds_and_shrinks_again,
    a_build_that_is_lost_is_named,
    a_build_that_takes_too_long_is_reported_and_goes_on,
    a_builder_that_has_served_enough_is_replaced,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_that(story: Story, told: dict[Story, Future[None]]) -> None:
    told[story].result(timeout=600)


@contextmanager
def held_build(client: Client, folder: Path, number: int) -> Iterator[RunningBuild]:
    """A build that runs until it is released, beside others of the same builder."""
    wait = f"RUN echo {number}; nc -l -p {RELEASE + number} < /dev/null\n"
    command = client.build_command(context(folder / str(number), f"FROM {BASE}\n{wait}"))
    build = RunningBuild(command, folder / f"{number}.log")
    try:
        yield build
    finally:
        if build.is_running:
            build.process.kill()
        build.process.wait(timeout=10)


def release(host: str, number: int) -> None:
    """Lets one of them end."""
    eventually(lambda: is_open(host, RELEASE + number), within=60, what="it is released", every=0.5)


def events_of(api: Api, pool: str, namespace: str, reason: str) -> list[dict[str, Any]]:
    """The Events with a reason on one pool."""
    return [
        event
        for event in api.list("events", namespace)
        if (event["involvedObject"]["name"], event["reason"]) == (pool, reason)
    ]


def status(api: Api, pool: str, namespace: str) -> dict[str, Any]:
    found = api.get("bkp", pool, namespace)
    assert found is not None
    said: dict[str, Any] = found["status"]
    return said


def is_busy(pod: dict[str, Any]) -> bool:
    return pod["metadata"]["labels"].get("buildpool.dev/busy") == "true"


def evict(api: Api, pod: dict[str, Any]) -> str:
    """Asks for an eviction, as `kubectl drain` does; why it was refused, or nothing."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    eviction = (
        '{"apiVersion": "policy/v1", "kind": "Eviction", '
        f'"metadata": {{"name": "{name}", "namespace": "{namespace}"}}}}'
    )
    path = EVICTION.format(namespace=namespace, name=name)
    done = subprocess.run(
        ["kubectl", "create", "--raw", path, "-f", "-"],
        input=eviction,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr


def explained(pool: str, namespace: str) -> str:
    command = [str(PROJECT / ".venv/bin/python"), "-m", "buildpool.cli", "explain"]
    done = subprocess.run(
        [*command, pool, "-n", namespace], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
