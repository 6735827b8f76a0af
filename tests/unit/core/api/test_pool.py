from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from buildpool.core.api import Pool, PoolSpec, Routing, Security, identify_pool, parse_pool
from buildpool.core.errors import InvalidSpecError
from buildpool.core.naming import PoolKey


def an_object(spec: Mapping[str, Any] | None = None, **metadata: object) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "ci",
            "namespace": "builds",
            "uid": "u-1",
            "generation": 4,
            **metadata,
        },
        "spec": spec or {},
    }


def builders(**fields: object) -> dict[str, Any]:
    return an_object({"builders": fields})


def refusals(obj: Mapping[str, Any]) -> list[str]:
    with pytest.raises(InvalidSpecError) as caught:
        parse_pool(obj, is_stored=False)
    return [str(problem) for problem in caught.value.problems]


def test_the_smallest_pool_waits_behind_the_gateway_for_its_first_build() -> None:
    pool = parse_pool(an_object())
    assert pool == Pool(
        key=PoolKey("builds", "ci"),
        uid="u-1",
        generation=4,
        annotations={},
        created=None,
        deletion_timestamp=None,
        spec=PoolSpec(),
        status=pool.status,
    )
    assert (pool.spec.routing, pool.spec.builder_count) == (Routing.GATEWAY, 0)
    assert (pool.spec.scaling.min, pool.spec.scaling.max) == (None, 8)
    assert pool.spec.scaling.idle_after == timedelta(minutes=10)
    assert pool.spec.builders.slots == 2
    rollout = pool.spec.builders.rollout
    assert (rollout.max_surge, rollout.max_unavailable) == (1, 0)
    assert pool.spec.builders.resolved_image == "moby/buildkit:v0.34.2-rootless"
    assert pool.spec.builders.max_build_duration == timedelta(hours=2)
    assert pool.spec.builders.storage.size == "20Gi"
    assert [client.name for client in pool.spec.access.clients] == ["default"]


@pytest.mark.parametrize(
    ("spec", "least"),
    [
        ({"routing": "Direct"}, 1),
        ({"routing": "Direct", "scaling": {"min": 2}}, 2),
        ({"routing": "Gateway"}, 0),
        ({"routing": "Gateway", "scaling": {"min": 2}}, 2),
        ({"routing": "Gateway", "scaling": {"max": 3}}, 0),
    ],
)
def test_how_many_builders_a_pool_always_has(spec: dict[str, Any], least: int) -> None:
    assert parse_pool(an_object(spec)).spec.least == least


def test_the_image_follows_the_kind_of_security() -> None:
    pool = parse_pool(builders(security="UserNamespace"))
    assert pool.spec.builders.security is Security.USER_NAMESPACE
    assert pool.spec.builders.resolved_image == "moby/buildkit:v0.34.2"


def test_an_image_of_the_user_is_taken_as_it_is() -> None:
    image = "registry.example:5000/buildkit:v1"
    assert parse_pool(builders(image=image)).spec.builders.resolved_image == image


def test_replicas_override_the_scaling() -> None:
    assert parse_pool(an_object({"replicas": 0, "scaling": {"min": 3}})).spec.builder_count == 0
    assert parse_pool(an_object({"scaling": {"min": 3}})).spec.builder_count == 3


def test_a_spec_survives_being_written_and_read() -> None:
    spec = {
        "replicas": 2,
        "builders": {
            "resources": {"requests": {"cpu": 2, "memory": "1024Mi"}},
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "affinity": {"nodeAffinity": {"anything": [1]}},
            "storage": {"volumeClaim": {"size": "100Gi"}},
            "rollout": {"maxSurge": 0, "maxUnavailable": 2},
            "recycle": {"maxAge": "72h", "maxBuilds": 500, "maxMemory": "2048Mi"},
        },
        "scaling": {"min": 2, "max": 9, "targetUtilization": 50, "idleAfter": "90s"},
        "registries": [{"host": "r.example:5000", "caBundle": {"configMap": {"name": "ca"}}}],
    }
    parsed = parse_pool(an_object(spec)).spec
    assert parse_pool(an_object(parsed.to_dict())).spec == parsed
    assert parsed.builders.resources.requests == {"cpu": "2", "memory": "1Gi"}
    assert parsed.builders.recycle.max_age == timedelta(days=3)
    assert parsed.scaling.idle_after == timedelta(seconds=90)


def test_a_deletion_is_an_aware_moment() -> None:
    pool = parse_pool(an_object(deletionTimestamp="2030-01-02T03:04:05Z"))
    assert pool.deletion_timestamp == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_pool_with_a_broken_spec_can_still_be_identified() -> None:
    broken = an_object({"builders": 7}, annotations={"a": "b"})
    pool = identify_pool(broken)
    assert (pool.key, pool.uid, pool.annotations) == (PoolKey("builds", "ci"), "u-1", {"a": "b"})


def test_a_pool_cannot_be_changed() -> None:
    pool = parse_pool(an_object())
    with pytest.raises(ValueError, match="frozen"):
        pool.spec.builders.image = "x:y"  # type: ignore[misc]


REFUSED = {
    "an image without a tag": (
        builders(image="registry.example:5000/buildkit"),
        "spec.builders.image: the image has no tag;",
    ),
    "an image whose tag moves": (
        builders(image="moby/buildkit:master-rootless"),
        "spec.builders.image: the image has a tag that moves",
    ),
    "a build longer than a day": (
        builders(maxBuildDuration="25h"),
        "spec.builders.maxBuildDuration: 25h is out of range; choose between 1m and 24h.",
    ),
    "a word instead of a duration": (
        builders(maxBuildDuration="long"),
        "spec.builders.maxBuildDuration: 'long' is not a duration such as 45s",
    ),
    "two kinds of storage": (
        builders(storage={"ephemeral": {}, "volumeClaim": {"size": "1Gi"}}),
        "spec.builders.storage: exactly one of ephemeral and volumeClaim must be set;",
    ),
    "no kind of storage": (
        builders(storage={}),
        "spec.builders.storage: exactly one of ephemeral and volumeClaim must be set;",
    ),
    "storage too small for one image": (
        builders(storage={"ephemeral": {"sizeLimit": "1023Mi"}}),
        "spec.builders.storage.ephemeral.sizeLimit: 1023Mi is too small; choose 1Gi or more.",
    ),
    "a request above its limit": (
        builders(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}),
        "spec.builders.resources.requests.cpu: the request 2 is more than the limit 1500m;",
    ),
    "a limit below the builder's storage": (
        builders(resources={"limits": {"ephemeral-storage": "10Gi"}}),
        "spec.builders.resources.limits.ephemeral-storage: the limit 10Gi is less than",
    ),
    "a negative quantity": (
        builders(resources={"limits": {"cpu": "-1"}}),
        "spec.builders.resources.limits.cpu: '-1' is not a quantity",
    ),
    "a label of ours": (
        builders(podLabels={"buildpool.dev/pool": "x"}),
        "spec.builders.podLabels: the key buildpool.dev/pool is reserved;",
    ),
    "an annotation of ours": (
        builders(podAnnotations={"app.kubernetes.io/name": "x"}),
        "spec.builders.podAnnotations: the key app.kubernetes.io/name is reserved;",
    ),
    "a label that is none": (
        builders(podLabels={"a b": "x"}),
        "spec.builders.podLabels.a b: string should match pattern",
    ),
    "a variable of ours": (
        builders(env=[{"name": "A"}, {"name": "BUILDKIT_HOST", "value": "x"}]),
        "spec.builders.env[1].name: BUILDKIT_HOST is set by the operator; remove the variable.",
    ),
    "a variable that stands twice": (
        builders(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "spec.builders.env: the name 'A' stands twice; keep one entry of this name.",
    ),
    "a variable with two values": (
        builders(
            env=[
                {
                    "name": "A",
                    "value": "1",
                    "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
                }
            ]
        ),
        "spec.builders.env[0]: value and valueFrom exclude each other;",
    ),
    "a variable from nowhere": (
        builders(env=[{"name": "A", "valueFrom": {}}]),
        "spec.builders.env[0].valueFrom: exactly one of secretKeyRef and configMapKeyRef",
    ),
    "an architecture in the node selector": (
        builders(nodeSelector={"kubernetes.io/arch": "arm64"}),
        "spec.builders.nodeSelector: kubernetes.io/arch is set by the operator; use spec.",
    ),
    "a key that buildkitd does not know": (
        builders(config="zebra = 1"),
        "spec.builders.config: buildkitd knows no key zebra;",
    ),
    "a field that does not exist": (
        builders(workers=2),
        "spec.builders.workers: there is no such field;",
    ),
    "a client without a name": (
        an_object({"access": {"clients": [{}]}}),
        "spec.access.clients[0].name: the field is missing;",
    ),
    "a client that stands twice": (
        an_object({"access": {"clients": [{"name": "a"}, {"name": "a"}]}}),
        "spec.access.clients: the name 'a' stands twice;",
    ),
    "a builder without a slot": (
        builders(slots=0),
        "spec.builders.slots: input should be greater than or equal to 1",
    ),
    "a rollout that can replace nothing": (
        builders(rollout={"maxSurge": 0, "maxUnavailable": 0}),
        "spec.builders.rollout.maxSurge: maxSurge and maxUnavailable are both 0,",
    ),
    "a size that has no bounds": (
        an_object({"scaling": {"min": 3, "max": 2}}),
        "spec.scaling.max: scaling.min is above scaling.max; raise scaling.max",
    ),
    "no time at all before builders go": (
        an_object({"scaling": {"idleAfter": "0s"}}),
        "spec.scaling.idleAfter: ",
    ),
    "a pool that nothing can wake": (
        an_object({"routing": "Direct", "scaling": {"min": 0}}),
        "spec.scaling.min: with Direct routing nothing can wake a pool without builders;",
    ),
    "a collector of traces twice": (
        an_object(
            {
                "builders": {
                    "tracing": {"endpoint": "http://c:4317"},
                    "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
                }
            }
        ),
        "spec.builders.env[0].name: OTEL_TRACES_EXPORTER is set by spec.builders.tracing;",
    ),
    "a collector without a URL": (
        an_object({"builders": {"tracing": {"endpoint": "collector:4317"}}}),
        "spec.builders.tracing.endpoint: ",
    ),
    "a collector at a port that no machine has": (
        an_object({"builders": {"tracing": {"endpoint": "http://[::1]:99999/v1/traces"}}}),
        "spec.builders.tracing.endpoint: there is no port 99999; choose one between 1 and 65535.",
    ),
    "a collector at half an address": (
        an_object({"builders": {"tracing": {"endpoint": "http://["}}}),
        "spec.builders.tracing.endpoint: ",
    ),
    "plain HTTP with a CA": (
        an_object(
            {"registries": [{"host": "r", "http": True, "caBundle": {"secret": {"name": "s"}}}]}
        ),
        "spec.registries[0]: http and caBundle exclude each other;",
    ),
    "a CA from two places": (
        an_object(
            {
                "registries": [
                    {
                        "host": "r",
                        "caBundle": {"secret": {"name": "s"}, "configMap": {"name": "c"}},
                    }
                ]
            }
        ),
        "spec.registries[0].caBundle: exactly one of secret and configMap must be set;",
    ),
    "a registry with a scheme": (
        an_object({"registries": [{"host": "https://r.example"}]}),
        "spec.registries[0].host: string should match pattern",
    ),
    "a cache at a host that is none": (
        an_object({"cache": {"registry": {"ref": "r.xn--a.example/cache"}}}),
        "spec.cache.registry.ref: xn--a in the host is no valid name; correct its spelling.",
    ),
    "a cache at a port that is none": (
        an_object({"cache": {"registry": {"ref": "r.example:99999/cache"}}}),
        "spec.cache.registry.ref: there is no port 99999; choose one between 1 and 65535.",
    ),
    "a registry at a host that is none": (
        an_object({"registries": [{"host": "xn--zz--zz.example"}]}),
        "spec.registries[0].host: xn--zz--zz in the host is no valid name;",
    ),
    "a cache in two places": (
        an_object({"cache": {"registry": {"managed": {}, "ref": "r.example/c"}}}),
        "spec.cache.registry: exactly one of managed and ref must be set;",
    ),
    "credentials for a managed cache": (
        an_object({"cache": {"registry": {"managed": {}, "credentials": {"name": "s"}}}}),
        "spec.cache.registry.credentials: credentials belong to ref;",
    ),
    "a cache with a tag": (
        an_object({"cache": {"registry": {"ref": "r.example/c:main"}}}),
        "spec.cache.registry.ref: string should match pattern",
    ),
    "a name that starts with a digit": (
        an_object(name="1ci"),
        "metadata.name: the name of a pool must be a DNS label that starts with a letter;",
    ),
    "a name that is too long": (
        an_object(name="a" * 41),
        "metadata.name: the name of a pool must be a DNS label that starts with a letter;",
    ),
}


@pytest.mark.parametrize(("obj", "refusal"), REFUSED.values(), ids=REFUSED)
def test_a_pool_is_refused_with_field_and_remedy(obj: Mapping[str, Any], refusal: str) -> None:
    assert any(found.startswith(refusal) for found in refusals(obj)), refusals(obj)


@pytest.mark.parametrize(
    "spec", [{"scaling": {"burst": 3}}, {"burst": {"of": [1]}}, {"builders": {"warm": True}}]
)
def test_fields_of_a_newer_definition_do_not_make_a_stored_pool_invalid(
    spec: dict[str, Any],
) -> None:
    # The API server has dropped what its own definition does not know: the rest is newer than us.
    assert parse_pool(an_object(spec)).spec == parse_pool(an_object()).spec


@pytest.mark.parametrize(
    ("length", "routing", "layout", "is_refused"),
    [
        (237, "Gateway", "Repositories", False),
        (238, "Gateway", "Repositories", True),
        (255, "Gateway", "Tags", False),
        (255, "Direct", "Repositories", False),
    ],
)
def test_no_new_pool_is_accepted_whose_caches_would_have_names_that_are_too_long(
    length: int, routing: str, layout: str, is_refused: bool
) -> None:
    """The builds would have no cache, and nobody would say so."""
    ref = "registry.example/".ljust(length, "x")
    obj = an_object({"routing": routing, "cache": {"registry": {"ref": ref, "layout": layout}}})
    parse_pool(obj)  # it may have been stored before there was the rule: it builds without a cache
    if not is_refused:
        parse_pool(obj, is_stored=False)
        return
    with pytest.raises(InvalidSpecError, match=r"at most 237 characters.*layout to Tags"):
        parse_pool(obj, is_stored=False)


def test_all_that_is_wrong_is_told_at_once() -> None:
    obj = builders(
        image="moby/buildkit",
        maxBuildDuration="1s",
        storage={},
        config="root = '/'\nzebra = 1",
        podLabels={"buildpool.dev/x": ""},
    )
    assert len(refusals(obj)) == 6


@pytest.mark.parametrize(
    "image",
    [
        "moby/buildkit:v0.34.2",
        "registry.example:5000/a/b:v1.0-rootless",
        "moby/buildkit@sha256:" + "a" * 64,
        "moby/buildkit:latest@sha256:" + "a" * 64,
        "localhost:5000/latest:v1",
    ],
)
def test_an_image_that_cannot_move_is_accepted(image: str) -> None:
    assert parse_pool(builders(image=image)).spec.builders.image == image


@pytest.mark.parametrize("tag", ["latest", "master", "nightly", "rootless", "buildx-stable-1"])
@pytest.mark.parametrize("suffix", ["", "-rootless"])
@pytest.mark.parametrize("name", ["buildkit", "registry.example:5000/moby/buildkit"])
def test_every_floating_tag_is_refused(tag: str, suffix: str, name: str) -> None:
    (refusal,) = refusals(builders(image=f"{name}:{tag}{suffix}"))
    assert "moves to another version" in refusal


@pytest.mark.parametrize("host", ["xn--fiqs8s.example", "xn--mnchen-3ya.de:5000", "a--b.example"])
def test_a_registry_may_have_letters_of_any_script(host: str) -> None:
    pool = parse_pool(an_object({"cache": {"registry": {"ref": f"{host}/cache"}}}))
    assert pool.spec.cache.registry is not None
    assert pool.spec.cache.registry.ref == f"{host}/cache"


@pytest.mark.parametrize(
    "endpoint",
    ["http://c", "https://c.example:4317", "http://[fd00::1]:4318/v1/traces", "http://[::]/"],
)
def test_a_collector_may_be_at_any_address(endpoint: str) -> None:
    tracing = parse_pool(builders(tracing={"endpoint": endpoint})).spec.builders.tracing
    assert tracing is not None
    assert tracing.endpoint == endpoint
