"""Whatever happens to the gateway itself: what runs goes on, and what waits goes on waiting.

One after the other: each is hard on everything that goes through the gateway.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.node import Node
from cluster import OPERATOR_NAMESPACE, Api, at_most, at_rest, eventually
from e2e.clients import client_of, running_build
from e2e.gateways import a_build, deploy, ends_well, status
from e2e.pools import pods_of

GATEWAYS = "app.kubernetes.io/component=gateway"


def test_the_gateway_is_replaced_under_a_running_build(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "rolls", namespace, builders={"slots": 2})
    client = client_of(api, "rolls", namespace, tmp_path)
    with running_build(client, tmp_path) as build:
        (pod,) = pods_of(api, "rolls", namespace)
        before = {each["metadata"]["name"] for each in gateways(api)}
        api.must("rollout", "restart", "deployment/buildpool-gateway", "-n", OPERATOR_NAMESPACE)
        is_replaced(api, before)
        eventually(client.can_connect, within=30, what="new connections are served", every=0.5)
        build.end(pod["status"]["podIP"])


def test_routers_are_killed_under_a_running_build_and_one_that_waits(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "kills", namespace)
    client = client_of(api, "kills", namespace, tmp_path)
    with running_build(client, tmp_path / "first") as build:
        (pod,) = pods_of(api, "kills", namespace)
        with a_build(client, tmp_path / "second") as waiting:
            eventually(
                lambda: status(api, "kills", namespace)["waiting"] == 1, within=60, what="it waits"
            )
            (gateway,) = filter(is_ready, gateways(api))
            name = gateway["metadata"]["name"]
            inside = ("exec", name, "-n", OPERATOR_NAMESPACE, "-c", "router", "--")
            router = (*inside, "cat", "/tmp/router.pid")
            for _ in range(2):
                before = api.must(*router)
                api.must(*inside, "sh", "-c", "kill -9 $(cat /tmp/router.pid)")
                eventually(
                    lambda before=before: api.must(*router) not in ("", before),
                    within=30,
                    what="there is another router",
                )
                eventually(client.can_connect, within=30, what="it answers", every=0.5)
            eventually(
                lambda: name in [g["metadata"]["name"] for g in gateways(api) if is_ready(g)],
                within=30,
                what="its pod is ready as before",
            )
            assert waiting.is_running
            build.end(pod["status"]["podIP"])
            ends_well(waiting)


def test_two_pods_of_the_gateway_share_the_slots_of_a_builder(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "two", namespace)
    client = client_of(api, "two", namespace, tmp_path)
    scale = ("scale", "deployment/buildpool-gateway", "-n", OPERATOR_NAMESPACE)
    api.must(*scale, "--replicas=2")
    try:
        eventually(
            lambda: len([*filter(is_ready, gateways(api))]) == 2, within=90, what="two serve"
        )
        one, other = (
            replace(client, address=f"tcp://{address}:1234", server_name=f"two.{namespace}.svc")
            for address in (pod["status"]["podIP"] for pod in gateways(api))
        )
        with running_build(one, tmp_path / "one") as build:
            (pod,) = pods_of(api, "two", namespace)
            with a_build(other, tmp_path / "other") as waiting:
                queued = lambda: status(api, "two", namespace)["waiting"]  # noqa: E731
                eventually(lambda: queued() == 1, within=60, what="it waits")
                assert at_rest(queued) == 1
                assert waiting.is_running
                build.end(pod["status"]["podIP"])
                ends_well(waiting)
    finally:
        api.must(*scale, "--replicas=1")


def test_where_envoy_ends_its_clients_hear_it_at_once_and_the_next_ones_are_served(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "cut", namespace)
    client = client_of(api, "cut", namespace, tmp_path)
    node = Node(os.environ["DEVCLUSTER_NAME"])
    with running_build(client, tmp_path) as build:
        (gateway,) = [each for each in gateways(api) if is_ready(each)]
        (envoy,) = [
            container["containerID"]
            for container in gateway["status"]["initContainerStatuses"]
            if container["name"] == "envoy"
        ]
        node.kill_container(envoy)
        assert build.process.wait(timeout=10) != 0
    eventually(client.can_connect, within=60, what="it serves again", every=1)
    with a_build(client, tmp_path / "next") as build:
        ends_well(build)
    api.must("delete", "bkp", "cut", "-n", namespace, at_most(60))


def is_replaced(api: Api, before: set[str]) -> None:
    """Waits until another pod of the gateway serves, and these are told to go."""
    eventually(
        lambda: (
            {pod["metadata"]["name"] for pod in gateways(api) if is_ready(pod)} - before
            and not before & {pod["metadata"]["name"] for pod in gateways(api)}
        ),
        within=180,
        what="the next gateway is there, and the one before is told to go",
        every=0.5,
    )


def gateways(api: Api) -> list[dict[str, Any]]:
    """The pods of the gateway that stay."""
    pods = api.list("pods", OPERATOR_NAMESPACE, GATEWAYS)
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is Ready."""
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"
