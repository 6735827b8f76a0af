"""What a pass reads of others, and what it leaves to them."""

from __future__ import annotations

from typing import cast

from buildpool.controller.observe import observe
from buildpool.core import naming
from buildpool.core.objects.refs import Object, Ref
from buildpool.kube.cluster import Cluster
from samples import HOME, INSTALLATION, a_pod, a_pool


class Holding:
    """An API server that has these objects."""

    def __init__(self, *objects: Object) -> None:
        self._objects = objects

    async def get(self, ref: Ref) -> Object | None:
        return None

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        return [
            obj
            for obj in self._objects
            if (obj["kind"], obj["metadata"]["namespace"]) == (kind, namespace)
            and labels.items() <= obj["metadata"]["labels"].items()
        ]


def a_gateway_pod(name: str, of: str) -> Object:
    """A pod of the gateway of the project of this name."""
    pod = a_pod(component=naming.COMPONENT_GATEWAY)
    labels = naming.installation_selector(naming.COMPONENT_GATEWAY)
    labels["app.kubernetes.io/name"] = of
    pod["metadata"] |= {"name": name, "namespace": HOME, "labels": labels}
    return pod


async def test_a_pod_of_somebody_elses_gateway_makes_no_pool_served() -> None:
    ours, gone = a_gateway_pod("ours", "buildpool"), a_gateway_pod("gone", "buildpool")
    gone["status"]["phase"] = "Failed"
    theirs = a_gateway_pod("theirs", "istio")
    cluster = cast("Cluster", Holding(ours, gone, theirs))
    observation = await observe(cluster, a_pool(routing="Gateway"), INSTALLATION)
    assert observation.gateways == {"ours": True}
