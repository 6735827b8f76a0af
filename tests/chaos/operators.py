"""How an operator dies: with its process, or with its pod, too."""

from __future__ import annotations

from chaos.node import Node
from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e.operators import RETURN, operators


def kill_operator(api: Api, node: Node, *, with_its_pod: bool) -> str:
    """``kill -9`` to an operator, once one runs; what was killed, for the report.

    Without its pod, the kubelet starts it again, and gives one that dies too often time. With it,
    another one has to wait for the Lease of the dead one.
    """
    pod, container = eventually(
        lambda: _running(api), within=RETURN, what="an operator runs", every=0.5
    )
    node.kill_container(container)
    if not with_its_pod:
        return "its process"
    force = ("--force", "--grace-period=0", "--wait=false")
    api.must("delete", "pod", pod, "-n", OPERATOR_NAMESPACE, *force)
    return "its process and its pod"


def _running(api: Api) -> tuple[str, str] | None:
    """Name of its pod, and its container."""
    for pod in operators(api):
        for status in pod["status"].get("containerStatuses", []):
            if "running" in status["state"]:
                return pod["metadata"]["name"], status["containerID"]
    return None
