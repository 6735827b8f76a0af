"""A cluster that does not store what keeps a pod from being root on its node.

Kubernetes before 1.33 is one by itself. A newer one is made one by a webhook.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from cluster import Api, OperatorProcess, a_pool, at_rest, eventually, looks_again
from integration.webhooks import a_webhook

KEPT = {"builders": {"security": "UserNamespace"}}


def probe(namespace: str) -> dict[str, Any]:
    """A Deployment that has what is left out."""
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


def without_its_users(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """What an older API server does."""
    if "hostUsers" not in deployment["spec"]["template"]["spec"]:
        return []
    return [{"op": "remove", "path": "/spec/template/spec/hostUsers"}]


@contextmanager
def a_cluster_that_drops_it(api: Api, namespace: str) -> Iterator[None]:
    """By itself, or by a webhook for as long as this lasts."""
    if drops(api, namespace):
        yield
        return
    with a_webhook(api, namespace, without_its_users):
        eventually(lambda: drops(api, namespace), within=30, what="the webhook is known")
        yield
    eventually(lambda: not drops(api, namespace), within=30, what="the webhook is forgotten")


def builder(api: Api, namespace: str) -> dict[str, Any]:
    found = api.get("deployment", "ci-builder-0", namespace)
    assert found is not None
    return found


def builders(api: Api, namespace: str) -> dict[str, tuple[int, bool]]:
    """The number of pods of each builder, and whether they are privileged."""
    return {
        each["metadata"]["name"]: (
            each["spec"]["replicas"],
            "privileged: true" in yaml.safe_dump(each["spec"]["template"]),
        )
        for each in api.list("deployments", namespace, "app.kubernetes.io/component=builder")
    }


def test_no_pod_runs_where_the_cluster_leaves_out_its_user_namespace(
    installed: Api, operator: OperatorProcess, namespace: str, devcluster: list[str]
) -> None:
    ready = lambda: installed.condition("ci", namespace, "Ready")  # noqa: E731
    with a_cluster_that_drops_it(installed, namespace):
        installed.apply(a_pool("ci", namespace, **KEPT))
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
    if drops(installed, namespace):
        return
    # By itself it tries again within five minutes.
    looks_again(installed, operator, "ci", namespace, by="services")
    assert builder(installed, namespace)["spec"]["replicas"] == 1
    assert builder(installed, namespace)["spec"]["template"]["spec"]["hostUsers"] is False


def test_builders_that_run_stay_where_those_in_user_namespaces_may_not(
    installed: Api, operator: OperatorProcess, namespace: str, devcluster: list[str]
) -> None:
    """The rollout stops at a builder without a pod, and can be taken back."""
    condition = lambda kind: installed.condition("ci", namespace, kind)  # noqa: E731
    rootless = {"ci-builder-0": (1, False)}
    with a_cluster_that_drops_it(installed, namespace):
        installed.apply(a_pool("ci", namespace))
        eventually(
            lambda: builders(installed, namespace) == rootless, within=30, what="a rootless builder"
        )
        installed.apply(a_pool("ci", namespace, **KEPT))
        eventually(
            lambda: condition("Ready").get("reason") == "PodRefused",
            within=30,
            what="it is refused",
        )
        found = at_rest(lambda: builders(installed, namespace))
        assert found["ci-builder-0"] == rootless["ci-builder-0"]
        assert {pods for pods, is_privileged in found.values() if is_privileged} <= {0}
        for pod in installed.list("pods", namespace, "app.kubernetes.io/component=builder"):
            assert "privileged: true" not in yaml.safe_dump(pod["spec"])
        installed.apply(a_pool("ci", namespace, builders={"security": "Rootless"}))
        eventually(
            lambda: builders(installed, namespace) == rootless, within=30, what="it is taken back"
        )
