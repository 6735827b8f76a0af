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
    pod, container, restarts = eventually(
        lambda: _running(api), within=RETURN, what="an operator runs", every=0.5
    )
    node.kill_container(container)
    if not with_its_pod and restarts < PATIENCE:
        return "its process"
    force = ("--force", "--grace-period=0", "--wait=false")
    api.must("delete", "pod", pod, "-n", OPERATOR_NAMESPACE, *force)
    return "its process and its pod"


def _running(api: Api) -> tuple[str, str, int] | None:
    """Name of its pod, its container, and how often that was started again."""
    for pod in operators(api):
        for status in pod["status"].get("containerStatuses", []):
            if "running" in status["state"]:
                return pod["metadata"]["name"], status["containerID"], status["restartCount"]
    return None
