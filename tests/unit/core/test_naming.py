from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from buildpool.core import naming
from buildpool.core.api.spec import MAX_CLIENT_NAME_CHARACTERS
from buildpool.core.naming import PoolKey
from buildpool.core.resources import pool_service
from samples import a_builder_deployment, a_pool

LONGEST = PoolKey("n" * 63, "p" * naming.MAX_POOL_NAME_CHARACTERS)
CI = PoolKey("builds", "ci")

NAMES: dict[str, tuple[Callable[[PoolKey], str], str]] = {
    "its Service": (naming.service, "ci"),
    "a builder": (lambda pool: naming.builder(pool, 7), "ci-builder-7"),
    "a builder's volume": (lambda pool: naming.builder_volume(pool, 7), "ci-builder-7"),
    "the builders' certificate": (naming.builder_certificate, "ci-builder"),
    "the builders' file": (naming.builder_config, "ci-builder"),
    "a client's certificate": (
        lambda pool: naming.client_certificate(pool, "ana"),
        "ci-client-ana",
    ),
    "its authority": (naming.authority, "authority.builds.ci"),
    "who a client is": (
        lambda pool: naming.client_identity(pool, "ana"),
        "buildpool://builds/ci/client/ana",
    ),
    "where it is": (naming.endpoint, "tcp://ci.builds.svc:1234"),
    "itself": (str, "builds/ci"),
}


@pytest.mark.parametrize(("name", "expected"), NAMES.values(), ids=NAMES)
def test_a_pool_calls(name: Callable[[PoolKey], str], expected: str) -> None:
    assert name(CI) == expected


def test_the_name_of_a_pod_of_the_longest_pool_fits_a_label() -> None:
    replica_set, pod = "-7c9d8b6f5d", "-x2x7k"
    assert len(naming.builder(LONGEST, 999) + replica_set) <= 63
    # Pod names may be longer: only their first 63 characters become the host name.
    assert len(naming.builder(LONGEST, 999) + replica_set + pod) <= 253


@pytest.mark.parametrize("labels", [naming.pool_labels, naming.builder_selector])
def test_the_labels_of_the_longest_pool_are_valid(
    labels: Callable[[PoolKey], dict[str, str]],
) -> None:
    for key, value in labels(LONGEST).items():
        assert len(value) <= 63
        assert re.fullmatch(r"([a-z0-9.-]+/)?[a-z0-9-]+", key)


def test_the_names_of_the_longest_pool_are_valid() -> None:
    names = (
        naming.client_certificate(LONGEST, "c" * MAX_CLIENT_NAME_CHARACTERS),
        naming.authority(LONGEST),
        naming.builder_certificate(LONGEST),
    )
    for name in names:
        assert len(name) <= 253
    assert len(naming.service(LONGEST)) <= 63


def test_two_pools_never_share_an_authority() -> None:
    pools = [PoolKey("a", "b-c"), PoolKey("a-b", "c"), PoolKey("a", "b"), PoolKey("b", "a")]
    assert len({naming.authority(pool) for pool in pools}) == len(pools)


def test_the_selector_of_builders_selects_their_pods_and_nothing_else_of_the_pool() -> None:
    pool = a_pool()
    wanted = naming.builder_selector(pool.key).items()
    pod = a_builder_deployment(pool)["spec"]["template"]
    assert wanted <= pod["metadata"]["labels"].items()
    assert not wanted <= pool_service(pool, gateway="")["metadata"]["labels"].items()
    assert not wanted <= naming.pool_labels(pool.key).items()


def test_a_selector_is_spelled_as_kubectl_takes_it_and_always_alike() -> None:
    assert naming.format_selector({"b": "2", "a": "1"}) == "a=1,b=2"


def test_a_server_is_known_by_every_name_that_leads_to_it() -> None:
    assert naming.server_names("ci", "builds", "k8s.test") == (
        "ci",
        "ci.builds",
        "ci.builds.svc",
        "ci.builds.svc.k8s.test",
        "localhost",
    )


@pytest.mark.parametrize("domain", [naming.USUAL_DOMAIN, "k8s.test", "kube"])
def test_the_names_by_which_the_gateway_knows_a_pool_are_its_own_in_any_domain(domain: str) -> None:
    names = naming.gateway_names("ci", "builds", domain)
    for name in names:
        assert naming.is_name_of(CI, name)
        for other in (PoolKey("builds", "c"), PoolKey("build", "ci"), PoolKey("svc", "builds")):
            assert not naming.is_name_of(other, name)


@pytest.mark.parametrize(
    "name", ["ci", "", "ci.", "ci.builds.example", "ci.builds.svc2", "x.ci.builds.svc", "ci.svc"]
)
def test_a_name_that_may_mean_anything_is_nobodys_own(name: str) -> None:
    assert not naming.is_name_of(CI, name)
