from __future__ import annotations

import tomllib
from typing import Any

import pytest

from buildpool.core.resources import builder_config, daemon_toml
from samples import a_pool

GI = 1024**3


def toml(**overrides: Any) -> dict[str, Any]:
    return tomllib.loads(daemon_toml(a_pool(**overrides)))


def test_both_doors_are_open_and_the_outer_one_wants_a_certificate() -> None:
    grpc = toml()["grpc"]
    assert grpc["address"] == [
        "unix:///run/user/1000/buildkit/buildkitd.sock",
        "tcp://:1234",
    ]
    # A CA without a certificate turns TLS off without an error.
    assert set(grpc["tls"]) == {"ca", "cert", "key"}


@pytest.mark.parametrize(
    "storage",
    [{"ephemeral": {"sizeLimit": "100Gi"}}, {"volumeClaim": {"size": "100Gi"}}],
    ids=["ephemeral", "claim"],
)
def test_garbage_is_collected_in_bytes_of_the_builders_own_storage(storage: Any) -> None:
    worker = toml(builders={"storage": storage})["worker"]["oci"]
    assert worker["gc"] is True
    assert worker["maxUsedSpace"] == 75 * GI
    assert worker["reservedSpace"] == 10 * GI


def test_only_a_rootless_builder_goes_without_a_process_sandbox() -> None:
    assert toml()["worker"]["oci"]["noProcessSandbox"] is True
    nested = toml(builders={"security": "UserNamespace"})
    assert "noProcessSandbox" not in nested["worker"]["oci"]
    assert nested["grpc"]["address"][0] == "unix:///run/buildkit/buildkitd.sock"


def test_what_the_user_adds_stands_beside_what_the_operator_sets() -> None:
    config = "debug = true\n[worker.oci]\nsnapshotter = 'native'\n"
    found = toml(builders={"config": config})
    assert found["debug"] is True
    assert found["worker"]["oci"]["snapshotter"] == "native"
    assert found["worker"]["oci"]["gc"] is True


def test_history_is_in_seconds() -> None:
    found = toml(builders={"history": {"maxAge": "24h", "maxEntries": 7}})
    assert found["history"] == {"maxAge": 86_400, "maxEntries": 7}


def test_a_limit_of_parallel_steps_is_there_only_if_wanted() -> None:
    assert "max-parallelism" not in toml()["worker"]["oci"]
    assert toml(builders={"maxParallelism": 8})["worker"]["oci"]["max-parallelism"] == 8


def test_the_ca_of_a_registry_is_where_it_is_mounted() -> None:
    registries = [
        {"host": "r.example:5000", "caBundle": {"secret": {"name": "ca", "key": "x.pem"}}},
        {"host": "plain.example", "http": True, "mirrors": ["r.example:5000/p"]},
    ]
    assert toml(registries=registries)["registry"] == {
        "r.example:5000": {"ca": ["/etc/buildpool/registries/r.example_5000/x.pem"]},
        "plain.example": {"http": True, "mirrors": ["r.example:5000/p"]},
    }


def test_the_file_is_the_only_thing_in_its_config_map() -> None:
    pool = a_pool()
    assert builder_config(pool)["data"] == {"buildkitd.toml": daemon_toml(pool)}


def test_a_mirror_is_reached_as_its_registry_is_unless_it_has_an_entry_of_its_own() -> None:
    ca = {"configMap": {"name": "ca"}}
    mirrors = ["m.example:5000/hub", "own.example", "gcr.example"]
    registries = [
        {"host": "docker.io", "mirrors": mirrors, "caBundle": ca},
        {"host": "own.example", "http": True},
        {"host": "public.example", "mirrors": ["plain-mirror.example"]},
    ]
    trusted = {"ca": ["/etc/buildpool/registries/docker.io/ca.crt"]}
    assert toml(registries=registries)["registry"] == {
        "docker.io": {"mirrors": mirrors, **trusted},
        "own.example": {"http": True},
        "public.example": {"mirrors": ["plain-mirror.example"]},
        "m.example:5000": trusted,
        "gcr.example": trusted,
    }


def test_a_managed_cache_is_read_past_its_guard_with_a_certificate() -> None:
    found = toml(cache={"registry": {"managed": {}}})["registry"]
    identity = {
        "ca": ["/etc/buildpool/cache/ca.pem"],
        "keypair": [
            {"key": "/etc/buildpool/cache/key.pem", "cert": "/etc/buildpool/cache/cert.pem"}
        ],
    }
    assert found == {
        "ci-cache.builds.svc:5000": {"mirrors": ["localhost:1235"], **identity},
        "localhost:1235": {"http": False, "insecure": False, **identity},
    }


@pytest.mark.parametrize(
    ("frontends", "expected"),
    [
        ({}, None),
        ({"allowed": []}, {"gateway.v0": {"enabled": False}}),
        (
            {"allowed": ["docker/dockerfile", "r.example:5000/a/b"]},
            {"gateway.v0": {"allowedRepositories": ["docker/dockerfile", "r.example:5000/a/b"]}},
        ),
    ],
)
def test_an_empty_list_of_frontends_is_none_and_not_all(frontends: Any, expected: Any) -> None:
    assert toml(frontends=frontends).get("frontend") == expected
