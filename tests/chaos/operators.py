"""How an operator dies: with its process, or with its pod, too."""

from __future__ import annotations

from typing import Final

from chaos.node import Node
from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e.operators import RETURN, operators

PATIENCE: Final = 3
"""As often the kubelet starts a container again within a minute in all. It waits for 10 s before
the second time, and twice as long before each further one."""


def kill_operator(api: Api, node: Node, *, with_its_pod: bool) -> str:
    """``kill -9`` to an operator, once one runs; what was killed, for the report.

    Without its pod, the kubelet starts it again; its pod goes all the same if that has happened
    ``PATIENCE`` times. With it, another one has to wait for the Lease of the dead one.
    """
    pod, restarts = eventually(
        lambda: _kill(api, node), within=RETURN, what="an operator that runs is killed", every=0.5
    )
    if not with_its_pod and restarts < PATIENCE:
        return "its process"
    force = ("--force", "--grace-period=0", "--wait=false")
    api.must("delete", "pod", pod, "-n", OPERATOR_NAMESPACE, *force)
    return "its process and its pod"


def _kill(api: Api, node: Node) -> tuple[str, int] | None:
    """Its pod, and how often it had been started again; None: none runs."""
    for pod in operators(api):
        for status in pod["status"].get("containerStatuses", []):
            if "running" in status["state"] and node.kill_container(status["containerID"]):
                return pod["metadata"]["name"], status["restartCount"]
    return None
