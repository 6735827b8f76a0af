from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from buildpool.client.values import Cluster, Connection, Forward, Target, Via, Way
from buildpool.client.ways import (
    Reach,
    check_one_builder,
    client_of,
    connection_of,
    is_being_made,
    platforms_of,
    via_of,
    way_of,
)
from buildpool.core.api import Pool, parse_pool
from buildpool.core.errors import BuildpoolError
from samples import NOW, a_pool, a_raw_pool

GATEWAY = Target("buildpool-system", "buildpool-gateway")


def with_builders(name: str = "ci", **spec: Any) -> Pool:
    """A pool in which a builder takes builds."""
    raw = a_raw_pool(name=name, **spec)
    return parse_pool({**raw, "status": {"readyReplicas": 1}})


def by_name() -> Pool:
    return a_pool(routing="Gateway", gateway={"hostnames": ["build.example.com"]})


def test_the_way_is_the_service_in_the_cluster_then_a_name_then_a_port_forward() -> None:
    assert via_of(by_name(), asked=None, is_inside=True) is Via.SERVICE
    assert via_of(by_name(), asked=None, is_inside=False) is Via.HOSTNAME
    assert via_of(a_pool(), asked=None, is_inside=False) is Via.PORT_FORWARD
    assert via_of(by_name(), asked=Via.PORT_FORWARD, is_inside=True) is Via.PORT_FORWARD
    with pytest.raises(BuildpoolError, match=r"pool builds/ci has no host name; add one"):
        via_of(a_pool(), asked=Via.HOSTNAME, is_inside=False)


def test_each_way_expects_the_name_that_the_certificate_is_for() -> None:
    service = "ci.builds.svc"
    assert way_of(a_pool(), Via.SERVICE, gateway=None) == Way(Via.SERVICE, service, service)
    host = "build.example.com"
    assert way_of(by_name(), Via.HOSTNAME, gateway=None) == Way(Via.HOSTNAME, host, host)
    direct = way_of(with_builders(), Via.PORT_FORWARD, gateway=None)
    assert direct == Way(Via.PORT_FORWARD, service, target=Target("builds", "ci"))
    behind = way_of(a_pool(routing="Gateway"), Via.PORT_FORWARD, gateway=GATEWAY)
    assert behind == Way(Via.PORT_FORWARD, service, target=GATEWAY)


def test_what_cannot_be_forwarded_says_what_to_do() -> None:
    with pytest.raises(BuildpoolError, match="no builder that a port-forward could lead to"):
        way_of(a_pool(), Via.PORT_FORWARD, gateway=None)
    with pytest.raises(BuildpoolError, match="--gateway=buildpool-system/buildpool-gateway"):
        way_of(a_pool(routing="Gateway"), Via.PORT_FORWARD, gateway=None)


def test_the_client_is_the_only_one_or_the_one_that_is_named() -> None:
    assert client_of(a_pool(), "") == "default"
    two = a_pool(access={"clients": [{"name": "anna"}, {"name": "ci"}]})
    assert client_of(two, "ci") == "ci"
    with pytest.raises(BuildpoolError, match="has the clients anna, ci; name yours by --client"):
        client_of(two, "")
    with pytest.raises(BuildpoolError, match="has no client bert; it has anna, ci"):
        client_of(two, "bert")


def reaches_of(*pools: Pool, gateway: Target | None = GATEWAY) -> list[Reach]:
    """The pools, each by the way that it is reached from outside."""
    vias = [via_of(pool, asked=None, is_inside=False) for pool in pools]
    return [
        Reach(pool, "default", way_of(pool, via, gateway=gateway))
        for pool, via in zip(pools, vias, strict=True)
    ]


def connected(*pools: Pool, ports: Iterable[int] = range(4001, 4100)) -> Connection:
    """A connection to these pools."""
    given = dict(zip((pool.key for pool in pools), ports, strict=False))
    cluster = Cluster("builds", "work")
    return connection_of("all", cluster, reaches_of(*pools), ports=given, port=1234)


def test_pools_behind_one_gateway_have_a_port_each() -> None:
    """Buildx takes no address twice."""
    arm = {"builders": {"architecture": "arm64"}}
    made = connected(
        with_builders("a", routing="Gateway"),
        with_builders("b", routing="Gateway", **arm),
        with_builders("c"),
        by_name(),
    )
    own = Target("builds", "c")
    assert made.forwards == (Forward(GATEWAY, 4001), Forward(GATEWAY, 4002), Forward(own, 4003))
    assert [(node.name, node.address, node.server_name) for node in made.nodes] == [
        ("a", "tcp://127.0.0.1:4001", "a.builds.svc"),
        ("b", "tcp://127.0.0.1:4002", "b.builds.svc"),
        ("c", "tcp://127.0.0.1:4003", "c.builds.svc"),
        ("ci", "tcp://build.example.com:1234", "build.example.com"),
    ]
    assert [node.platform for node in made.nodes][:2] == ["linux/amd64", "linux/arm64"]


def test_a_pool_builds_for_what_its_configuration_names_or_for_its_processors() -> None:
    def platforms(*names: str) -> tuple[str, ...]:
        config = f"[worker.oci]\nplatforms = {list(names)}\n"
        return platforms_of(a_pool(builders={"config": config}))

    assert platforms_of(a_pool()) == ("linux/amd64",)
    assert platforms_of(a_pool(builders={"architecture": "arm64"})) == ("linux/arm64",)
    assert platforms("linux/arm64", "linux/arm/v7") == ("linux/arm64", "linux/arm/v7")
    assert platforms("--use", "linux/386,x") == ("linux/amd64",)


def test_pools_of_which_buildx_would_not_use_one_are_no_builder() -> None:
    both = "[worker.oci]\nplatforms = ['linux/amd64', 'linux/arm64']\n"
    arm = {"architecture": "arm64"}
    check_one_builder(connected(with_builders("a"), with_builders("b", builders=arm)))
    for pair in (
        (with_builders("a"), with_builders("b")),
        (with_builders("a", builders={"config": both}), with_builders("b", builders=arm)),
    ):
        with pytest.raises(BuildpoolError, match="pools builds/a and builds/b both build for"):
            check_one_builder(connected(*pair))
    apart = (with_builders("a"), with_builders("b", builders=arm))
    with pytest.raises(BuildpoolError, match=r"both reached at tcp://127\.0\.0\.1:4001"):
        check_one_builder(connected(*apart, ports=(4001, 4001)))


@pytest.mark.parametrize(
    ("age", "status", "is_it"),
    [
        (timedelta(0), {}, True),
        (timedelta(seconds=59), {"observedGeneration": -1}, True),
        (timedelta(seconds=60), {}, False),
        (timedelta(seconds=-1), {}, False),  # by whose clock, nobody knows
        (timedelta(0), {"observedGeneration": 1}, False),
    ],
)
def test_a_new_pool_is_waited_for_until_an_operator_has_looked_at_it(
    age: timedelta, status: dict[str, Any], is_it: bool
) -> None:
    created = {"creationTimestamp": (NOW - age).isoformat()}
    pool = parse_pool(a_raw_pool(metadata=created, status=status))
    assert is_being_made(pool, NOW) is is_it


def test_a_pool_of_which_nobody_knows_the_age_is_not_new() -> None:
    assert not is_being_made(a_pool(), NOW)
