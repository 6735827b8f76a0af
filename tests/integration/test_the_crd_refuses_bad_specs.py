"""A real kube-apiserver takes the CRD, and refuses by itself what schema and CEL can judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster import at_most

CRD = Path(__file__).parents[2] / "crds" / "buildkitpools.buildpool.dev.yaml"


def a_pool(spec: dict[str, Any], *, name: str = "ci") -> str:
    return json.dumps(
        {
            "apiVersion": "buildpool.dev/v1alpha1",
            "kind": "BuildKitPool",
            "metadata": {"name": name, "namespace": "default"},
            "spec": spec,
        }
    )


def builders(**fields: object) -> str:
    return a_pool({"builders": fields})


def a_registry(**fields: object) -> str:
    return a_pool({"registries": [{"host": "registry.example:5000", **fields}]})


def a_cache(**registry: object) -> str:
    return a_pool({"cache": {"registry": registry}})


@pytest.fixture(scope="module")
def pools(api: Any) -> Any:
    """The API server with the CRD established."""
    applied = api.kubectl("apply", "--server-side", "-f", str(CRD))
    assert applied.returncode == 0, applied.stderr
    waited = api.kubectl("wait", "--for=condition=Established", at_most(30), "-f", str(CRD))
    assert waited.returncode == 0, waited.stderr
    return api


DIGEST = "@sha256:" + "a" * 64
SECRET = {"secret": {"name": "s"}}
BAD = {
    "names of a gateway without one": (
        a_pool({"routing": "Direct", "gateway": {"hostnames": ["build.example.com"]}}),
        "with Direct routing nobody answers to gateway.hostnames",
    ),
    "a cache whose repositories would have names that are too long": (
        a_pool(
            {
                "routing": "Gateway",
                "cache": {"registry": {"ref": "registry.example/".ljust(238, "x")}},
            }
        ),
        "with Gateway routing, cache.registry.ref has at most 237 characters",
    ),
    "a longer wait than the gateway can hold": (
        a_pool({"routing": "Gateway", "gateway": {"maxWait": "1h"}}),
        "out of range; choose between 1s and 55m",
    ),
    "no weight": (a_pool({"access": {"clients": [{"name": "ci", "weight": 0}]}}), "weight"),
    "a host name with a scheme": (
        a_pool({"routing": "Gateway", "gateway": {"hostnames": ["tcp://build.example.com"]}}),
        "gateway.hostnames",
    ),
    "an image without a tag": (builders(image="moby/buildkit"), "the image has no tag"),
    "an image without a tag at a registry with a port": (
        builders(image="registry.example:5000/buildkit"),
        "the image has no tag",
    ),
    "the tag latest": (builders(image="moby/buildkit:latest"), "a tag that moves"),
    "the tag rootless": (builders(image="moby/buildkit:rootless"), "a tag that moves"),
    "a nightly image": (builders(image="moby/buildkit:nightly"), "a tag that moves"),
    "the master branch, rootless": (
        builders(image="registry.example:5000/moby/buildkit:master-rootless"),
        "a tag that moves",
    ),
    "the stable channel": (builders(image="moby/buildkit:buildx-stable-1"), "a tag that moves"),
    "the stable channel, rootless": (
        builders(image="moby/buildkit:buildx-stable-1-rootless"),
        "a tag that moves",
    ),
    "half a digest": (builders(image="moby/buildkit@sha256:abc"), "spec.builders.image"),
    "an unknown kind of security": (builders(security="Root"), 'Unsupported value: "Root"'),
    "an unknown architecture": (builders(architecture="x86"), 'Unsupported value: "x86"'),
    "a build longer than a day": (
        builders(maxBuildDuration="24h1s"),
        "out of range; choose between 1m and 24h",
    ),
    "a build longer than a day, in days": (
        builders(maxBuildDuration="2d"),
        "out of range; choose between 1m and 24h",
    ),
    "a build shorter than a minute": (
        builders(maxBuildDuration="59s"),
        "out of range; choose between 1m and 24h",
    ),
    "a word instead of a duration": (builders(maxBuildDuration="long"), "should match"),
    "no parallelism at all": (builders(maxParallelism=0), "maxParallelism"),
    "a quantity that is none": (
        builders(resources={"requests": {"cpu": "many"}}),
        "spec.builders.resources.requests.cpu",
    ),
    "no kind of storage": (builders(storage={}), "exactly one of ephemeral and volumeClaim"),
    "two kinds of storage": (
        builders(storage={"ephemeral": {}, "volumeClaim": {"size": "5Gi"}}),
        "exactly one of ephemeral and volumeClaim",
    ),
    "ephemeral storage that is too small": (
        builders(storage={"ephemeral": {"sizeLimit": "1023Mi"}}),
        "too small; choose 1Gi or more",
    ),
    "a volume that is too small, as a number": (
        builders(storage={"volumeClaim": {"size": 1000}}),
        "too small; choose 1Gi or more",
    ),
    "a volume without a size": (builders(storage={"volumeClaim": {}}), "size: Required value"),
    "a variable with two values": (
        builders(
            env=[
                {"name": "A", "value": "", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
            ]
        ),
        "value and valueFrom exclude each other",
    ),
    "a variable from nowhere": (
        builders(env=[{"name": "A", "valueFrom": {}}]),
        "exactly one of secretKeyRef and configMapKeyRef",
    ),
    "a variable that stands twice": (
        builders(env=[{"name": "A"}, {"name": "A"}]),
        "Duplicate value",
    ),
    "a configuration beyond 16 KiB": (builders(config="#" * 16_385), "spec.builders.config"),
    "a field that does not exist": (builders(slot=2), 'unknown field "spec.builders.slot"'),
    "a builder for no build": (builders(slots=0), "spec.builders.slots"),
    "a rollout that can replace nothing": (
        builders(rollout={"maxSurge": 0, "maxUnavailable": 0}),
        "maxSurge and maxUnavailable are both 0",
    ),
    "a rollout that can replace nothing, by a default": (
        builders(rollout={"maxSurge": 0}),
        "maxSurge and maxUnavailable are both 0",
    ),
    "builders that are always too old": (
        builders(recycle={"maxAge": "59s"}),
        "out of range; choose between 1m and 365d",
    ),
    "builders that have always served enough": (
        builders(recycle={"maxBuilds": 0}),
        "spec.builders.recycle.maxBuilds",
    ),
    "builders that always take too much": (
        builders(recycle={"maxMemory": "63Mi"}),
        "too small; choose 64Mi or more",
    ),
    "a history that forgets at once": (
        builders(history={"maxAge": "59s"}),
        "out of range; choose between 1m and 365d",
    ),
    "a pool of fixed size nought": (
        a_pool({"routing": "Direct", "scaling": {"min": 0}}),
        "spec.scaling.min: Invalid value",
    ),
    "more builders at least than at most": (
        a_pool({"scaling": {"min": 3, "max": 2}}),
        "scaling.min is above scaling.max",
    ),
    "more builders at least than at most, by a default": (
        a_pool({"scaling": {"min": 9}}),
        "scaling.min is above scaling.max",
    ),
    "builders that nothing fills": (
        a_pool({"scaling": {"targetUtilization": 101}}),
        "spec.scaling.targetUtilization",
    ),
    "a pool that shrinks at once": (
        a_pool({"scaling": {"idleAfter": "0s"}}),
        "out of range; choose between 1s and 7d",
    ),
    "a pool that hardly ever shrinks": (
        a_pool({"scaling": {"idleAfter": "7d1s"}}),
        "out of range; choose between 1s and 7d",
    ),
    "more builders than a pool can have": (a_pool({"replicas": 101}), "spec.replicas"),
    "an unknown routing": (a_pool({"routing": "Random"}), 'Unsupported value: "Random"'),
    "a registry with a scheme": (
        a_pool({"registries": [{"host": "https://registry.example"}]}),
        "spec.registries[0].host",
    ),
    "a registry that stands twice": (
        a_pool({"registries": [{"host": "a"}, {"host": "a"}]}),
        "Duplicate value",
    ),
    "plain HTTP with a CA": (
        a_registry(http=True, caBundle=SECRET),
        "http and caBundle exclude each other",
    ),
    "a CA from nowhere": (a_registry(caBundle={}), "exactly one of secret and configMap"),
    "a CA from two places": (
        a_registry(caBundle={**SECRET, "configMap": {"name": "c"}}),
        "exactly one of secret and configMap",
    ),
    "a mirror with a scheme": (a_registry(mirrors=["http://m.example"]), "mirrors[0]"),
    "a pool without clients": (a_pool({"access": {"clients": []}}), "spec.access.clients"),
    "a client that stands twice": (
        a_pool({"access": {"clients": [{"name": "a"}, {"name": "a"}]}}),
        "Duplicate value",
    ),
    "a client whose name is no label": (
        a_pool({"access": {"clients": [{"name": "A_B"}]}}),
        "spec.access.clients[0].name",
    ),
    "certificates for longer than clients accept": (
        a_pool({"access": {"certificateDuration": "826d"}}),
        "out of range; choose between 1h and 825d",
    ),
    "certificates for less than an hour": (
        a_pool({"access": {"certificateDuration": "0d59m"}}),
        "out of range; choose between 1h and 825d",
    ),
    "a change of authority that takes for ever": (
        a_pool({"access": {"authorityOverlap": "91d"}}),
        "out of range; choose between 0s and 90d",
    ),
    "a name that starts with a digit": (a_pool({}, name="1ci"), "a DNS label that starts with"),
    "a name with a dot": (a_pool({}, name="c.i"), "a DNS label that starts with"),
    "a name that is too long": (a_pool({}, name="a" * 41), "metadata.name"),
    "a cache in two places": (
        a_cache(managed={}, ref="registry.example/caches"),
        "exactly one of managed and ref must be set",
    ),
    "a cache in no place": (a_cache(), "exactly one of managed and ref must be set"),
    "credentials for a managed cache": (
        a_cache(managed={}, credentials={"name": "login"}),
        "credentials belong to ref",
    ),
    "a cache with a tag": (a_cache(ref="registry.example/caches:main"), "spec.cache.registry.ref"),
    "a cache that is a host": (a_cache(ref="registry.example"), "spec.cache.registry.ref"),
    "a cache with a scheme": (a_cache(ref="https://r.example/c"), "spec.cache.registry.ref"),
    "a cache without room": (
        a_cache(managed={"storage": {"size": "1Mi"}}),
        "too small; choose 64Mi or more",
    ),
    "a cache that forgets at once": (
        a_cache(managed={"retention": "1m"}),
        "out of range; choose between 1h and",
    ),
    "a frontend with a tag": (
        a_pool({"frontends": {"allowed": ["docker/dockerfile:1"]}}),
        "spec.frontends.allowed[0]",
    ),
}

GOOD = {
    "a pool that sleeps behind the gateway": a_pool({"routing": "Gateway", "scaling": {"min": 0}}),
    "all that a gateway can be told": a_pool(
        {
            "routing": "Gateway",
            "gateway": {
                "maxWait": "55m",
                "affinity": ["Client"],
                "hostnames": ["build.example.com"],
            },
            "cache": {"inject": "Import", "exportInterval": "0s"},
            "access": {"clients": [{"name": "ci", "weight": 100, "inject": "None"}]},
        }
    ),
    "a managed cache": a_cache(managed={}),
    "a managed cache with all there is": a_cache(
        managed={
            "image": "registry.example:5000/registry:3.1.2",
            "storage": {"size": "64Mi", "storageClassName": "fast"},
            "retention": "30d",
            "resources": {"limits": {"memory": "1Gi"}},
        }
    ),
    "a cache in a registry that is there": a_cache(
        ref="registry.example:5000/team/caches", credentials={"name": "login"}
    ),
    "frontends": a_pool({"frontends": {"allowed": ["docker/dockerfile", "r.example:5000/a/b"]}}),
    "no frontends": a_pool({"frontends": {"allowed": []}}),
    "nothing but a name": a_pool({}),
    "the longest name": a_pool({}, name="a" * 40),
    "a fixed tag": builders(image="moby/buildkit:v0.34.2-rootless"),
    "a fixed tag at a registry with a port": builders(image="registry.example:5000/b:v1"),
    "a digest": builders(image=f"moby/buildkit{DIGEST}"),
    "a floating tag that a digest pins": builders(image=f"moby/buildkit:latest{DIGEST}"),
    "the longest build": builders(maxBuildDuration="1d"),
    "a duration of several units": builders(maxBuildDuration="1h30m5s"),
    "quantities as numbers and as text": builders(
        resources={"requests": {"cpu": 2, "memory": "4Gi"}, "limits": {"cpu": "2500m"}}
    ),
    "a volume": builders(storage={"volumeClaim": {"size": "1Gi", "storageClassName": "fast"}}),
    "a volume in bytes": builders(storage={"volumeClaim": {"size": 2147483648}}),
    "pod fields": builders(
        nodeSelector={"disk": "nvme"},
        tolerations=[{"key": "builds", "operator": "Exists", "effect": "NoSchedule"}],
        affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        topologySpreadConstraints=[
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
        env=[
            {"name": "HTTPS_PROXY", "value": "http://proxy.example"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        podLabels={"team": "builds"},
        podAnnotations={"example.com/note": "any text"},
    ),
    "a pool that never scales": a_pool({"scaling": {"min": 100, "max": 100}}),
    "a pool that scales as fast as it can": a_pool(
        {"scaling": {"targetUtilization": 100, "idleAfter": "1s"}}
    ),
    "a rollout without room": builders(rollout={"maxSurge": 0, "maxUnavailable": 1}),
    "builders that are recycled": builders(
        recycle={"maxAge": "1m", "maxBuilds": 1, "maxMemory": "64Mi"}
    ),
    "scaled to nothing by hand": a_pool({"replicas": 0}),
    "a registry over HTTP with mirrors": a_registry(http=True, mirrors=["m.example:5000/proxy"]),
    "a registry with a CA": a_registry(caBundle=SECRET),
    "the longest certificates": a_pool({"access": {"certificateDuration": "825d"}}),
    "clients that read their Secrets at once": a_pool({"access": {"authorityOverlap": "0s"}}),
}


@pytest.mark.parametrize(("pool", "message"), BAD.values(), ids=BAD)
def test_a_bad_spec_is_refused_with_a_message(pools: Any, pool: str, message: str) -> None:
    answer = pools.kubectl("apply", "--dry-run=server", "-f", "-", stdin=pool)
    assert answer.returncode != 0
    assert message in answer.stderr


@pytest.mark.parametrize("pool", GOOD.values(), ids=GOOD)
def test_a_good_spec_is_accepted(pools: Any, pool: str) -> None:
    answer = pools.kubectl("apply", "--dry-run=server", "-f", "-", stdin=pool)
    assert answer.returncode == 0, answer.stderr


def test_the_api_server_fills_in_the_defaults(pools: Any) -> None:
    answer = pools.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=a_pool({}))
    spec = json.loads(answer.stdout)["spec"]
    assert spec["builders"]["security"] == "Rootless"
    assert spec["builders"]["storage"] == {"ephemeral": {"sizeLimit": "20Gi"}}
    assert spec["builders"]["rollout"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["builders"]["slots"] == 2
    assert spec["scaling"] == {"max": 8, "targetUtilization": 80, "idleAfter": "10m"}
    assert spec["access"] == {
        "authorityOverlap": "1h",
        "certificateDuration": "90d",
        "clients": [{"name": "default", "weight": 1}],
    }
    assert spec["routing"] == "Gateway"
    assert spec["gateway"] == {
        "maxWait": "30m",
        "affinity": ["Source", "Image", "Context", "Client"],
    }
    assert spec["cache"] == {"inject": "Full", "exportInterval": "1m"}
