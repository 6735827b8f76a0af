from __future__ import annotations

from typing import Any

import pytest

from buildpool.core.objects.drift import first_difference
from buildpool.core.objects.refs import Object


def pod(**spec: Any) -> Object:
    return {"spec": {"template": {"spec": spec}}}


def container(**fields: Any) -> Object:
    return pod(containers=[{"name": "buildkitd", **fields}])


# Desired, and what the API server made of it: each entry was seen on a real one.
SAME: dict[str, tuple[Object, Object]] = {
    "defaults are added": (
        pod(nodeSelector={"a": "b"}),
        pod(nodeSelector={"a": "b"}, dnsPolicy="ClusterFirst", securityContext={}),
    ),
    "empty text is left out": (
        container(env=[{"name": "EMPTY", "value": ""}]),
        container(env=[{"name": "EMPTY"}]),
    ),
    "but not from maps": (
        pod(nodeSelector={"disk": ""}),
        pod(nodeSelector={"disk": ""}),
    ),
    "a variable from a Secret that is optional or not": (
        container(
            env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        ),
        container(
            env=[
                {
                    "name": "A",
                    "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}},
                }
            ],
        ),
    ),
    "a port has a protocol": (
        container(ports=[{"name": "buildkit", "containerPort": 1234}]),
        container(ports=[{"name": "buildkit", "containerPort": 1234, "protocol": "TCP"}]),
    ),
    "resources are there though nobody wants any": (
        container(),
        container(resources={}),
    ),
    "a probe has all its numbers": (
        container(readinessProbe={"exec": {"command": ["true"]}, "periodSeconds": 15}),
        container(
            readinessProbe={
                "exec": {"command": ["true"]},
                "failureThreshold": 3,
                "periodSeconds": 15,
                "successThreshold": 1,
                "timeoutSeconds": 1,
            }
        ),
    ),
    "a volume has a mode": (
        pod(volumes=[{"name": "config", "configMap": {"name": "c"}}]),
        pod(volumes=[{"name": "config", "configMap": {"name": "c", "defaultMode": 420}}]),
    ),
    "a service account has an older name, too": (
        pod(serviceAccountName="builder"),
        pod(serviceAccountName="builder", serviceAccount="builder"),
    ),
    "a toleration loses its empty value": (
        pod(tolerations=[{"key": "a", "value": ""}]),
        pod(tolerations=[{"key": "a"}]),
    ),
    "a toleration of no time at all": (
        pod(tolerations=[{"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}]),
        pod(tolerations=[{"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}]),
    ),
    "an affinity loses its empty parts": (
        pod(
            affinity={
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "topologyKey": "zone",
                            "namespaces": [],
                            "labelSelector": {"matchLabels": {}},
                        }
                    ],
                    "preferredDuringSchedulingIgnoredDuringExecution": [],
                },
                "podAffinity": None,
            }
        ),
        pod(
            affinity={
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "zone", "labelSelector": {}}
                    ]
                }
            }
        ),
    ),
    "a pull secret of others": (
        pod(imagePullSecrets=[{"name": "ours"}]),
        pod(imagePullSecrets=[{"name": "theirs"}, {"name": "ours"}]),
    ),
    "a spread of others": (
        pod(
            topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
            ]
        ),
        pod(
            topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 9},
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1},
            ]
        ),
    ),
    "a sidecar, a variable and a volume of others": (
        pod(
            containers=[
                {"name": "a", "env": [{"name": "A", "value": "1"}]},
            ],
            volumes=[{"name": "v"}],
        ),
        pod(
            containers=[
                {"name": "b"},
                {"name": "a", "env": [{"name": "B"}, {"name": "A", "value": "1"}]},
            ],
            volumes=[{"name": "token"}, {"name": "v"}],
        ),
    ),
    "another owner": (
        {"metadata": {"ownerReferences": [{"uid": "u", "name": "ci"}]}},
        {"metadata": {"ownerReferences": [{"uid": "x"}, {"uid": "u", "name": "ci"}]}},
    ),
    "labels and annotations of others": (
        {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}},
        {"metadata": {"labels": {"a": "b", "x": ""}, "annotations": {"c": "d", "y": "z"}}},
    ),
}


@pytest.mark.parametrize(("desired", "live"), SAME.values(), ids=SAME)
def test_it_is_no_difference_that(desired: Object, live: Object) -> None:
    assert first_difference(live, desired) is None


DIFFERENT: dict[str, tuple[Object, Object, str]] = {
    "a value": (
        {"spec": {"replicas": 1}},
        {"spec": {"replicas": 0}},
        "spec.replicas",
    ),
    "a value in an item": (
        container(image="a"),
        container(image="b"),
        "spec.template.spec.containers[buildkitd].image",
    ),
    "a value in an item of an item": (
        container(env=[{"name": "A", "value": "1"}]),
        container(env=[{"name": "A", "value": "2"}]),
        "spec.template.spec.containers[buildkitd].env[A].value",
    ),
    "a value that should be empty": (
        container(env=[{"name": "A", "value": ""}]),
        container(env=[{"name": "A", "value": "2"}]),
        "spec.template.spec.containers[buildkitd].env[A].value",
    ),
    "an item that is gone": (
        container(env=[{"name": "A", "value": "1"}]),
        container(env=[{"name": "B", "value": "1"}]),
        "spec.template.spec.containers[buildkitd].env[A]",
    ),
    "all items gone": (
        container(env=[{"name": "A", "value": "1"}]),
        container(),
        "spec.template.spec.containers[buildkitd].env",
    ),
    "a field that is gone": (
        {"spec": {"strategy": {"type": "Recreate"}}},
        {"spec": {}},
        "spec.strategy",
    ),
    "a false that is gone, for its absence means true": (
        pod(hostUsers=False),
        pod(),
        "spec.template.spec.hostUsers",
    ),
    "a zero that is gone, for its absence means a default": (
        {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0}}}},
        {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}},
        "spec.strategy.rollingUpdate.maxUnavailable",
    ),
    "an order, where it counts": (
        container(args=["--config", "x"]),
        container(args=["x", "--config"]),
        "spec.template.spec.containers[buildkitd].args[0]",
    ),
    "one toleration more, which another apply takes away": (
        pod(tolerations=[{"key": "a"}]),
        pod(tolerations=[{"key": "a"}, {"key": "b"}]),
        "spec.template.spec.tolerations",
    ),
    "a spread": (
        pod(
            topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
            ]
        ),
        pod(
            topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2}
            ]
        ),
        "spec.template.spec.topologySpreadConstraints[zone, ScheduleAnyway].maxSkew",
    ),
    "one label more to select by": (
        {"spec": {"selector": {"app": "x"}}},
        {"spec": {"selector": {"app": "x", "extra": "y"}}},
        "spec.selector.extra",
    ),
    "one label more, with which a policy is for no pod any more": (
        {"spec": {"podSelector": {"matchLabels": {"app": "x"}}}},
        {"spec": {"podSelector": {"matchLabels": {"app": "x", "extra": "y"}}}},
        "spec.podSelector.matchLabels.extra",
    ),
    "another way to be for no pod any more": (
        {"spec": {"podSelector": {"matchLabels": {"app": "x"}}}},
        {"spec": {"podSelector": {"matchLabels": {"app": "x"}, "matchExpressions": [{}]}}},
        "spec.podSelector.matchExpressions",
    ),
    "one port more in a policy, wherever it stands": (
        {"spec": {"ingress": [{"ports": [{"port": 1234}]}]}},
        {"spec": {"ingress": [{"ports": [{"port": 5000}, {"port": 1234}]}]}},
        "spec.ingress[0].ports",
    ),
    "one more whom a policy lets in": (
        {"spec": {"ingress": [{"from": [{"podSelector": {}}]}]}},
        {"spec": {"ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {}}]}]}},
        "spec.ingress[0].from",
    ),
    "one more rule of a policy": (
        {"spec": {"ingress": [{"ports": [{"port": 1234}]}]}},
        {"spec": {"ingress": [{"ports": [{"port": 1234}]}, {}]}},
        "spec.ingress",
    ),
    "a label with a slash": (
        {"metadata": {"labels": {"buildpool.dev/pool": "ci"}}},
        {"metadata": {"labels": {"buildpool.dev/pool": "other"}}},
        "metadata.labels.buildpool.dev/pool",
    ),
    "something of another kind": (
        {"spec": {"strategy": {"type": "Recreate"}}},
        {"spec": {"strategy": "Recreate"}},
        "spec.strategy",
    ),
    "the first of several, in the order of the alphabet": (
        {"spec": {"z": 1, "a": 1}, "data": {}},
        {"spec": {"z": 2, "a": 2}},
        "spec.a",
    ),
}


@pytest.mark.parametrize(("desired", "live", "path"), DIFFERENT.values(), ids=DIFFERENT)
def test_the_first_difference_is_named(desired: Object, live: Object, path: str) -> None:
    assert first_difference(live, desired) == path
