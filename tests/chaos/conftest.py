"""A devcluster with the operator installed, and namespaces that are gone at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chaos.node import Node
from chaos.patience import PatientApi
from chaos.target import IMAGES
from cluster import OPERATOR_NAMESPACE, eventually


@pytest.fixture(scope="session")
def api() -> PatientApi:
    """The cluster that KUBECONFIG names, with the operator in it."""
    assert "KUBECONFIG" in os.environ, "there is no cluster: run `make chaos`"
    api = PatientApi()
    eventually(
        lambda: (
            (api.get("deployment", "buildpool", OPERATOR_NAMESPACE) or {})
            .get("status", {})
            .get("availableReplicas")
        ),
        within=30,
        what="the operator is available",
    )
    return api


@pytest.fixture(scope="session")
def node() -> Node:
    """The node, which has the builders' image under two names."""
    if "DEVCLUSTER_NAME" not in os.environ:
        pytest.skip("kills the API server: only in a devcluster")
    node = Node(os.environ["DEVCLUSTER_NAME"])
    second, first = (f"docker.io/{image}" for image in IMAGES)
    node.name_again(first, second)
    return node


@contextmanager
def _a_namespace(api: PatientApi, name: str) -> Iterator[str]:
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    metadata = {"name": name, "labels": labels}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        yield name
    finally:
        api.must("delete", "bkp,deployments", "-n", name, "--all", "--wait=false")
        # Kubernetes looks at a namespace with pods in it again after half their grace period.
        try:
            eventually(lambda: not api.list("pods", name), within=120, what="no pod", every=1)
        except AssertionError:
            left = api.must("get", "pods,bkp,events", "-n", name, "-o", "wide")
            raise AssertionError(f"pods of {name} stay:\n{left}") from None
        api.must("delete", "namespace", name, "--wait=false")
        eventually(
            lambda: not api.must("get", "namespace", name, "--ignore-not-found", "-o", "name"),
            within=120,
            what=f"the namespace {name} is gone",
            every=1,
        )


@pytest.fixture
def pool_namespace(api: PatientApi) -> Iterator[str]:
    """For the pool."""
    with _a_namespace(api, "chaos") as name:
        yield name


@pytest.fixture(scope="module")
def removals_namespace(api: PatientApi) -> Iterator[str]:
    """For the pools that are deleted."""
    with _a_namespace(api, "chaos-removals") as name:
        yield name


@pytest.fixture
def plain_namespace(api: PatientApi) -> Iterator[str]:
    """For the plain Deployment."""
    with _a_namespace(api, "chaos-plain") as name:
        yield name
