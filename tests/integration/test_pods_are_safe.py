"""A cluster that does not store what keeps a pod from being root on its node."""

from __future__ import annotations

from typing import Any

import yaml

from cluster import Api, OperatorProcess, a_pool, at_rest, eventually, looks_again
from integration.policies import a_policy

DROPS = "JSONPatch{op: 'remove', path: '/spec/template/spec/hostUsers'}"
"""What Kubernetes does by itself where user namespaces are off."""
HAS = "has(object.spec.template.spec.hostUsers)"


def probe(namespace: str) -> dict[str, Any]:
    """A Deployment that has what the policy takes away."""
    labels = {"app": "probe"}
    container = {"name": "probe", "image": "registry.example/probe"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "hostUsers": False},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "probe", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def drops(api: Api, namespace: str) -> bool:
    """Whether the API server leaves it out now."""
    create = ("create", "--dry-run=server", "-o", "yaml", "-f", "-")
    made = api.kubectl(*create, stdin=yaml.safe_dump(probe(namespace))).stdout
    assert "registry.example" in made, made
    return "hostUsers" not in made


def builder(api: Api, namespace: str) -> dict[str, Any]:
    found = api.get("deployment", "ci-builder-0", namespace)
    assert found is not None
    return found


def test_no_pod_runs_where_the_cluster_leaves_out_its_user_namespace(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    ready = lambda: installed.condition("ci", namespace, "Ready")  # noqa: E731
    with a_policy(installed, namespace, DROPS, only_if=HAS):
        eventually(lambda: drops(installed, namespace), within=30, what="the policy is known")
        installed.apply(a_pool("ci", namespace, builders={"security": "UserNamespace"}))
        eventually(lambda: ready().get("reason") == "PodRefused", within=30, what="it is refused")
        assert "UserNamespacesSupport" in ready()["message"]
        version = lambda: builder(installed, namespace)["metadata"]["resourceVersion"]  # noqa: E731
        before = at_rest(version)
        looks_again(installed, operator, "ci", namespace, by="services")
        assert version() == before, "what is tried again and refused again is not stored again"
        assert builder(installed, namespace)["metadata"]["generation"] == 1
        assert builder(installed, namespace)["spec"]["replicas"] == 0
        assert not installed.list("pods", namespace, "app.kubernetes.io/component=builder")
        assert "Overruled" not in installed.reasons("ci", namespace)
    eventually(lambda: not drops(installed, namespace), within=30, what="the policy is forgotten")
    # By itself it tries again within five minutes.
    looks_again(installed, operator, "ci", namespace, by="services")
    assert builder(installed, namespace)["spec"]["replicas"] == 1
    assert builder(installed, namespace)["spec"]["template"]["spec"]["hostUsers"] is False
