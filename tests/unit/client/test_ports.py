from __future__ import annotations

import socket

import pytest

from buildpool.client.holding import free_ports, usual_ports
from buildpool.client.values import Via
from buildpool.client.ways import Reach, way_of
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey
from gateway.ports import free_port
from samples import a_pool
from unit.client.connections import GATEWAY, a_connection, a_node

CI, ARM = PoolKey("builds", "ci"), PoolKey("builds", "arm")


def reaches(*names: str) -> list[Reach]:
    """Pools behind one gateway."""
    pools = [a_pool(name=name, routing="Gateway") for name in names]
    return [Reach(p, "anna", way_of(p, Via.PORT_FORWARD, gateway=GATEWAY)) for p in pools]


def test_each_pool_has_a_port_of_its_own() -> None:
    found = free_ports(reaches("ci", "arm"), asked=0, before=None, is_held=False)
    assert found.keys() == {CI, ARM}
    assert len(set(found.values())) == 2


def test_a_port_is_kept_if_it_can_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before = a_connection(a_node(port=port))
        held = free_ports(reaches("arm", "ci"), asked=0, before=before, is_held=True)
        assert held[CI] == port, "our own process has it"
        assert free_ports(reaches("ci"), asked=0, before=before, is_held=False)[CI] != port
        elsewhere = a_connection(a_node(port=port, target=None))
        assert free_ports(reaches("ci"), asked=0, before=elsewhere, is_held=True)[CI] != port
        with pytest.raises(BuildpoolError, match=f"port {port} of this machine is taken by"):
            free_ports(reaches("ci"), asked=port, before=None, is_held=False)
    assert free_ports(reaches("ci"), asked=0, before=before, is_held=False)[CI] == port


def test_the_port_that_is_asked_for_is_that_of_the_first_pool() -> None:
    port = free_port()
    assert free_ports(reaches("ci"), asked=port, before=None, is_held=False) == {CI: port}


def test_what_is_printed_has_the_ports_that_are_forwarded_or_the_usual_ones() -> None:
    before = a_connection(a_node(port=4007))
    both = reaches("ci", "arm")
    assert usual_ports(both, asked=0, before=before, is_held=True) == {CI: 4007, ARM: 1235}
    assert usual_ports(both, asked=0, before=before, is_held=False) == {CI: 1234, ARM: 1235}
    assert usual_ports(both, asked=5000, before=before, is_held=True) == {CI: 5000, ARM: 5001}
