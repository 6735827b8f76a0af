"""After an upgrade of the operator, so many pools at once replace their builders as it is told.

No pod runs here: the test says in the kubelet's place that the first builders take builds.
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster import Api, OperatorProcess, a_pool, at_most, eventually, looks_again, operator_process
from integration.test_builders_come_and_go import names

POOLS = ("a", "b", "c")
CACHE = {"registry": {"managed": {}}}
"""With it, a guard stands beside each builder, which runs the operator's own image."""


def make_ready(api: Api, namespace: str, pool: str) -> None:
    """The pod of the pool's first builder takes builds."""
    label = f"buildpool.dev/builder={pool}-builder-0"
    (pod,) = eventually(
        lambda: api.list("pods", namespace, label), within=30, what=f"pool {pool} has a pod"
    )
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    target = ("pod", pod["metadata"]["name"], "-n", namespace)
    patch = json.dumps({"status": ready})
    api.must("patch", *target, "--subresource=status", "--type=merge", "-p", patch)


def progress(api: Api, namespace: str) -> dict[str, str]:
    """What each pool says of its builders' replacement."""
    return {pool: api.condition(pool, namespace, "Progressing").get("reason", "") for pool in POOLS}


def replacing(api: Api, namespace: str) -> set[str]:
    """The pools that have a second builder."""
    return {pool for pool in POOLS if f"{pool}-builder-1" in names(api, namespace)}


def waiting_since(api: Api, namespace: str, pool: str) -> str:
    """Since when a pool waits for its turn; empty where it does not."""
    said = api.condition(pool, namespace, "UpToDate")
    waits = said.get("reason") == "WaitingForTurn"
    return said["lastTransitionTime"] if waits else ""


def operator(
    kubeconfig: Path, folder: Path, version: str, *flags: str, identity: str = ""
) -> OperatorProcess:
    """A process of this version."""
    image, identity = f"registry.example/buildpool:{version}", identity or version
    log = folder / f"{identity}.log"
    return OperatorProcess(kubeconfig, log, identity, ("--image", image, *flags))


def test_one_pool_rolls_and_the_others_wait_but_for_what_their_user_changes(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    with operator_process(operator(kubeconfig, tmp_path, "older")):
        installed.apply(*(a_pool(pool, namespace, cache=CACHE) for pool in POOLS))
        for pool in POOLS:
            make_ready(installed, namespace, pool)
        eventually(
            lambda: set(progress(installed, namespace).values()) == {"Settled"},
            within=30,
            what="all pools are settled",
        )
    newer = ("newer", "--max-rollouts", "1")
    with operator_process(operator(kubeconfig, tmp_path, *newer)):

        def waits() -> set[str]:
            said = progress(installed, namespace)
            return {pool for pool in POOLS if said[pool] == "WaitingForTurn"}

        # The one that rolls says so, or that no node takes its new builder.
        eventually(
            lambda: len(waits()) == 2 and waits() | replacing(installed, namespace) == {*POOLS},
            within=30,
            what="one pool rolls, and two wait",
        )
        (first,) = replacing(installed, namespace)
        second, third = (pool for pool in POOLS if pool != first)
        since = waiting_since(installed, namespace, third)
        assert since

    # Another process of the same version knows who rolls, and who waits since when.
    again = operator(kubeconfig, tmp_path, *newer, identity="again")
    with operator_process(again):
        # GitOps tools wait for nothing, and what a user changes waits for nobody.
        wait = ("wait", f"bkp/{second}", "-n", namespace, at_most(5))
        installed.must(*wait, "--for=condition=Reconciling=False")
        patch = json.dumps({"spec": {"builders": {"env": [{"name": "A", "value": "b"}]}}})
        installed.must("patch", "bkp", second, "-n", namespace, "--type=merge", "-p", patch)
        eventually(
            lambda: replacing(installed, namespace) == {first, second},
            within=30,
            what="the pool whose spec was changed rolls at once",
        )
        looks_again(installed, again, third, namespace)
        assert waiting_since(installed, namespace, third) == since
        assert third not in replacing(installed, namespace)

        # Those that have rolled, or are gone, make way.
        for pool in (first, second):
            installed.must("delete", "bkp", pool, "-n", namespace, "--wait=false")
        eventually(
            lambda: third in replacing(installed, namespace), within=30, what="the third one rolls"
        )
