"""Whom the operator never asks, whatever a pool or a registry says."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from buildpool import preflight
from buildpool.core.api import Reason
from buildpool.preflight import Reach
from buildpool.preflight.addresses import Addresses, AddressRefused
from buildpool.preflight.login import Visitor
from buildpool.preflight.values import Peer, PreflightFailure, RegistryAnswer
from buildpool.preflight.wire import Wire
from unit.preflight.servers import JOE, Registry, a_target, by_token, inspect, serving
from unit.preflight.test_probe import FINE, trouble_of

REGISTRY = Peer("registry r", "cache.registry.ref", "r")
MANAGED = Peer("managed cache c", "the Service of the managed cache", None)
REALM = Peer("token service t", "the realm", "r", by_realm=True)
UNREACHABLE = Reason.REGISTRY_UNREACHABLE


class Names:
    """A name server that says something else each time; the last answer for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


FORBIDDEN = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%lo",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "no address",
    "",
]
ALLOWED = ["10.96.0.1", "172.16.3.4", "192.168.1.1", "100.64.1.1", "8.8.8.8", "fd00::7", "2600::1"]


@pytest.mark.parametrize("peer", [REGISTRY, MANAGED, REALM], ids=lambda peer: peer.name)
@pytest.mark.parametrize("address", FORBIDDEN)
def test_nobody_is_asked_at_the_operators_own_pod_or_node(address: str, peer: Peer) -> None:
    assert Reach().objection(address, peer)


@pytest.mark.parametrize("peer", [REGISTRY, MANAGED, REALM], ids=lambda peer: peer.name)
@pytest.mark.parametrize("address", ALLOWED)
def test_private_networks_may_be_asked(address: str, peer: Peer) -> None:
    assert Reach().objection(address, peer) is None


@given(st.ip_addresses().map(str) | st.text())
def test_every_address_is_judged(address: str) -> None:
    Reach(denied=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"))).objection(address, REGISTRY)


@pytest.mark.parametrize(
    ("network", "address"),
    [("10.0.0.0/8", "10.1.2.3"), ("10.0.0.0/8", "::ffff:10.1.2.3"), ("fd00::/8", "fd00:ec2::254")],
)
def test_a_denied_network_is_closed_to_all_but_managed_caches(network: str, address: str) -> None:
    reach = Reach(denied=(ip_network(network),))
    for peer in (REGISTRY, REALM):
        assert "--deny-network" in (reach.objection(address, peer) or "")
    assert reach.objection(address, MANAGED) is None


SPELLINGS = [
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "127.1",
    "2130706433",
    "0x7f.1",
    "localhost",
]


@pytest.mark.parametrize("spelling", [*SPELLINGS, "localhost"])
async def test_a_registry_on_loopback_is_refused_in_any_spelling(spelling: str) -> None:
    registry = Registry()
    async with serving(registry) as host:
        port = host.rpartition(":")[2]
        report = await preflight.inspect(a_target(f"{spelling}:{port}", http=True))
        trouble_of(report, UNREACHABLE, "the operator's own pod", "correct cache.registry.ref")
    assert registry.seen == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254"])
async def test_a_name_that_leads_there_is_refused(address: str) -> None:
    reach = Reach(look_up=Names([address]))
    report = await preflight.inspect(a_target("registry.example"), reach=reach)
    trouble_of(report, UNREACHABLE, f"registry registry.example is at {address}")


async def test_a_registry_does_not_send_the_operator_there_for_a_token() -> None:
    service, names = Registry(), Names(["127.0.0.2"])
    never = (ip_network("127.0.0.2/32"),)
    async with serving(service) as realm:
        port = realm.rpartition(":")[2]
        for where in (f"127.0.0.2:{port}", f"realm.example:{port}"):
            async with serving(Registry(admits=by_token(f"http://{where}/"))) as host:
                literal = host.replace("localhost", "127.0.0.1")
                report = await preflight.inspect(
                    a_target(literal, http=True, credentials=JOE),
                    reach=Reach(never=never, look_up=names),
                )
            trouble_of(report, UNREACHABLE, f"token service {where}", "correct the realm")
    assert service.seen == []


async def test_a_name_is_looked_up_once_so_that_another_answer_changes_nothing() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    registry = Registry()
    async with serving(registry) as host:
        port = host.rpartition(":")[2]
        target = a_target(f"registry.example:{port}", http=True)
        reach = Reach(never=(ip_network("127.0.0.2/32"),), look_up=names)
        assert await preflight.inspect(target, reach=reach) == FINE
        # TLS where there is none: it is looked at again, to say why.
        report = await preflight.inspect(
            a_target(f"registry.example:{port}"),
            reach=Reach(never=(), look_up=(again := Names(["127.0.0.1"], ["127.0.0.2"]))),
        )
        trouble_of(report, Reason.NO_REGISTRY, "without TLS")
    assert names.asked == again.asked == ["registry.example"]
    assert len(registry.seen) == 4


async def test_of_several_addresses_those_that_may_be_asked_are() -> None:
    async with serving(Registry()) as host:
        port = host.rpartition(":")[2]
        reach = Reach(
            never=(ip_network("169.254.0.0/16"),),
            look_up=Names(["169.254.169.254", "127.0.0.1"]),
        )
        target = a_target(f"registry.example:{port}", http=True)
        assert await preflight.inspect(target, reach=reach) == FINE


async def test_a_dot_at_the_end_of_a_name_changes_nothing() -> None:
    names = Names(["127.0.0.1"])
    async with serving(Registry()) as realm:
        port = realm.rpartition(":")[2]
        registry = Registry(admits=by_token(f"http://realm.example.:{port}/"))
        async with serving(registry) as host:
            target = a_target(host.replace("localhost", "127.0.0.1"), http=True)
            report = await preflight.inspect(target, reach=Reach(never=(), look_up=names))
    trouble_of(report, Reason.NO_REGISTRY, "token service realm.example", "gives no token")


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError()]
)
async def test_a_name_that_cannot_be_looked_up_is_told(error: Exception) -> None:
    def fails(_: str) -> Sequence[str]:
        raise error

    report = await preflight.inspect(a_target("registry.example"), reach=Reach(look_up=fails))
    trouble_of(report, Reason.REGISTRY_NOT_FOUND, "the host name of registry registry.example")


async def test_a_registry_on_the_internet_gets_no_token_from_within() -> None:
    asked: list[Peer] = []

    class Told:
        """Stands for the wire: its registry is on the Internet and wants a token."""

        def is_public(self, url: URL) -> bool:
            return url.host == "registry.example"

        async def ask(self, peer: Peer, method: str, url: URL, **_: Any) -> RegistryAnswer:
            asked.append(peer)
            challenge = ('Bearer realm="https://token.svc/"',)
            return RegistryAnswer(401, challenges=challenge)

    visitor = Visitor(cast("Wire", Told()), REGISTRY, "cache", JOE)
    with pytest.raises(PreflightFailure):
        await visitor.ask("GET", URL("https://registry.example/v2/"))
    service = asked[-1]
    assert "10.0.0.7" not in (Reach().objection("8.8.8.8", service) or "")
    assert "private address" in (Reach().objection("10.0.0.7", service) or "")
    assert "private address" in (Reach().objection("fd00::7", service) or "")


@pytest.mark.parametrize(
    ("found", "public"),
    [(["8.8.8.8"], True), (["10.0.0.7"], False), (["8.8.8.8", "10.0.0.7"], True)],
)
async def test_which_registries_are_on_the_internet(found: list[str], public: bool) -> None:
    addresses = Addresses(Reach(look_up=Names(found)))
    url = URL("https://registry.example/")
    await addresses.look_up(REGISTRY, url)
    assert addresses.is_public(url) is public


async def test_a_name_without_addresses_is_refused() -> None:
    with pytest.raises(AddressRefused):
        await Addresses(Reach(look_up=Names([]))).look_up(REGISTRY, URL("https://r.example/"))


async def test_what_tests_serve_on_loopback_is_asked_where_they_say_so() -> None:
    async with serving(Registry()) as host:
        assert await inspect(a_target(host, http=True)) == FINE
