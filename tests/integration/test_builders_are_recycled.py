"""A builder that takes too much memory is replaced, where the cluster measures it.

Instead of a metrics server: a definition of the kind that it serves, and objects by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cluster import Api, OperatorProcess, at_most, eventually, looks_again
from integration.test_a_pool_converges import created
from integration.test_builders_come_and_go import builders, change, names, pod_of, told, uids

NAME = "pods.metrics.k8s.io"
FRUGAL = {"recycle": {"maxMemory": "64Mi"}}


@pytest.fixture
def metrics_api(installed: Api) -> Iterator[Api]:
    """The cluster, with a metrics API that tells what one writes into it."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta1", "served": True, "storage": True}
    installed.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": NAME,
                "annotations": {"api-approved.kubernetes.io": "unapproved, test"},
            },
            "spec": {
                "group": "metrics.k8s.io",
                "names": {"kind": "PodMetrics", "plural": "pods", "singular": "podmetrics"},
                "scope": "Namespaced",
                "versions": [{**version, "schema": {"openAPIV3Schema": anything}}],
            },
        }
    )
    installed.must("wait", "--for=condition=Established", f"crd/{NAME}", at_most(20))
    yield installed
    installed.must("delete", "crd", NAME)


def measure(api: Api, pod: dict[str, Any], *memory: str) -> None:
    """Tells how much the containers of a pod take, and wakes its pool, which looks every minute."""
    metadata = pod["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels")}
    api.apply(
        {
            "apiVersion": "metrics.k8s.io/v1beta1",
            "kind": "PodMetrics",
            "metadata": kept,
            "timestamp": "2026-01-01T12:00:00Z",
            "window": "15s",
            "containers": [
                {"name": f"container-{number}", "usage": {"cpu": "1n", "memory": amount}}
                for number, amount in enumerate(memory)
            ],
        }
    )
    wake(api, pod, "-".join(memory))


def wake(api: Api, pod: dict[str, Any], what: str) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    api.must("annotate", "--overwrite", "pod", name, "-n", namespace, f"example.com/wake={what}")


def test_a_builder_that_takes_too_much_memory_is_replaced(
    operator: OperatorProcess, metrics_api: Api, namespace: str
) -> None:
    created(metrics_api, namespace, scaling={"min": 2})
    before = uids(metrics_api, namespace)
    measure(metrics_api, pod_of(metrics_api, namespace, 1), "32Mi", "32Mi")  # just not too much
    measure(metrics_api, pod_of(metrics_api, namespace, 0), "40000Ki", "30000Ki")
    change(metrics_api, namespace, builders=FRUGAL)

    def comes_to_be() -> bool:
        """Memory is asked for outside of passes; a pass that comes later knows the answer."""
        wake(metrics_api, pod_of(metrics_api, namespace, 1), uuid4().hex)
        return names(metrics_api, namespace) == builders(1, 2)

    eventually(comes_to_be, within=20, what="builders 1 and 2")
    assert uids(metrics_api, namespace)["ci-builder-1"] == before["ci-builder-1"]
    (message,) = eventually(
        lambda: told(metrics_api, namespace, "RetiredBuilder"), within=10, what="an Event"
    )
    assert message.startswith(f"Retired Deployment {namespace}/ci-builder-0 (TooMuchMemory)")
    assert "70000Ki" in message


def test_without_a_metrics_api_the_pool_goes_on_and_the_log_says_so(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, builders=FRUGAL)
    before = uids(installed, namespace)
    said = f"Namespace {namespace}: builders.recycle.maxMemory rests"
    eventually(lambda: said in operator.log.read_text(), within=5, what="it is logged")
    pod_of(installed, namespace, 0)
    looks_again(installed, operator, "ci", namespace)
    assert uids(installed, namespace) == before
    assert installed.condition("ci", namespace, "Ready")["reason"] in (
        "BuildersStarting",
        "Unschedulable",
    )
