"""What a pool shall consist of is something that an API server can take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings

from buildpool.core.naming import Installation
from buildpool.core.objects.refs import JSON, Object
from memory_cluster import MemoryCluster, settled
from samples import HOME, INSTALLATION, OWN_IMAGE, a_pool, specs

WITHOUT_GATEWAY = Installation(HOME, OWN_IMAGE)
SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
DOMAINS: Final = ("externalName", "claimName", "secretName")
FILLED: Final = ("name", "image", "key", "mountPath", "path", "topologyKey", "serviceAccountName")
"""What may be absent, and must not be empty."""


def mistakes(value: JSON, path: str = "") -> Iterator[str]:
    """What no API server would take, by its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in DOMAINS and not (isinstance(inner, str) and SUBDOMAIN.fullmatch(inner)):
                yield f"{path}.{key}={inner!r}"
            if key in FILLED and inner == "":
                yield f"{path}.{key} is empty"
            yield from mistakes(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from mistakes(inner, f"{path}[{number}]")


@settings(max_examples=30, deadline=None)
@given(specs)
@pytest.mark.parametrize("installation", [INSTALLATION, WITHOUT_GATEWAY], ids=["with", "without"])
def test_nothing_is_desired_that_cannot_be_valid(
    installation: Installation, spec: dict[str, Any]
) -> None:
    todo = MemoryCluster(installation=installation).plan(a_pool(**spec))
    assert todo.apply
    for change in todo.apply:
        assert not list(mistakes(change.object, str(change.ref)))


def policies(cluster: MemoryCluster) -> list[str]:
    return cluster.names("NetworkPolicy")


def address(cluster: MemoryCluster) -> Object:
    found: Object = cluster["Service/ci"]["spec"]
    return found


def test_a_new_pool_without_the_gateway_it_wants_has_all_but_an_address() -> None:
    cluster = MemoryCluster(installation=WITHOUT_GATEWAY)
    pool = a_pool(routing="Gateway")
    cluster.settle(pool)
    assert cluster.names("Service") == []
    assert policies(cluster) == ["ci-builder"]
    cluster.installation = INSTALLATION
    cluster.settle(pool)
    assert address(cluster)["externalName"] == INSTALLATION.gateway_host


def test_clients_keep_their_way_until_there_is_the_gateway_that_their_pool_wants() -> None:
    cluster = settled(a_pool())
    cluster.installation = WITHOUT_GATEWAY
    before = address(cluster)
    pool = a_pool(routing="Gateway", generation=2)
    cluster.settle(pool)
    assert (address(cluster), policies(cluster)) == (before, [])
    cluster.installation = INSTALLATION
    cluster.settle(pool)
    assert address(cluster)["type"] == "ExternalName"
    assert policies(cluster) == ["ci-builder"]


def test_a_pool_whose_gateway_is_gone_stays_as_it_is() -> None:
    pool = a_pool(routing="Gateway")
    cluster = settled(pool)
    before = address(cluster)
    cluster.installation = WITHOUT_GATEWAY
    assert cluster.settle(pool) == []
    assert (address(cluster), policies(cluster)) == (before, ["ci-builder"])
