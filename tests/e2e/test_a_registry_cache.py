"""One cache in a registry, shared by builders: exported by one, imported by another, CACHED."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster import PROJECT, Api
from e2e.clients import Client, client_of
from e2e.pools import address_of, deploy, serving
from e2e.registries import Registry, new_authority, serve, trust

PARALLEL = PROJECT / "demo" / "parallel"
STEPS = 4
"""RUN steps of the Dockerfile."""


@pytest.fixture(scope="module")
def registry(api: Api, shared_namespace: str) -> Registry:
    """A registry with a private CA, and a pool named ci of two builders that trust it."""
    found, authority = Registry("cache", shared_namespace), new_authority("cache")
    serve(api, found, authority)
    trust(api, "cache-ca", shared_namespace, authority)
    entry = {"host": found.host, "caBundle": {"configMap": {"name": "cache-ca"}}}
    deploy(api, "ci", shared_namespace, scaling={"min": 2}, registries=[entry])
    return found


@pytest.fixture
def builders(api: Api, registry: Registry, tmp_path: Path) -> tuple[Client, Client]:
    """The client at each of the two builders, past the Service."""
    client = client_of(api, "ci", registry.namespace, tmp_path)
    pods = [serving(api, f"ci-builder-{number}", registry.namespace) for number in (0, 1)]
    first, second = (client.at(address_of(pod)) for pod in pods if pod)
    return first, second


def test_a_cache_exported_by_one_builder_spares_another_the_work(
    builders: tuple[Client, Client], registry: Registry
) -> None:
    first, second = builders
    ref = f"type=registry,ref={registry.host}/caches/parallel:main"
    export = ["--export-cache", f"{ref},mode=max,ignore-error=true"]
    begun = time.monotonic()
    assert "CACHED" not in first.build(PARALLEL, *export)
    built = time.monotonic()
    assert cached_steps(second.build(PARALLEL, "--import-cache", ref)) == STEPS
    imported = time.monotonic()
    second.ask("prune", "--all")
    assert "CACHED" not in second.build(PARALLEL, "--no-cache")
    second.ask("prune", "--all")
    pruned = time.monotonic()
    assert cached_steps(second.build(PARALLEL, "--import-cache", ref)) == STEPS
    again = time.monotonic()
    print(
        f"built and exported: {built - begun:.1f} s; imported by an empty builder: "
        f"{imported - built:.1f} s; after a prune: {again - pruned:.1f} s"
    )


def test_a_cache_that_cannot_be_reached_fails_no_build(
    builders: tuple[Client, Client], registry: Registry
) -> None:
    first, _ = builders
    ref = f"type=registry,ref=nowhere.{registry.namespace}.svc:5000/caches/parallel:main"
    first.build(
        *(PARALLEL, "--import-cache", ref),
        *("--export-cache", f"{ref},mode=max,ignore-error=true"),
    )


def cached_steps(progress: str) -> int:
    """How many RUN steps the builder did not have to run."""
    steps = {
        line.split()[0]
        for line in progress.splitlines()
        if line.startswith("#") and "RUN sleep" in line
    }
    return sum(f"{step} CACHED" in progress for step in steps)
