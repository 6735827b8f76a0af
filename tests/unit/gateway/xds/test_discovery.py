"""The protocol by which Envoy is configured, over a real connection with an Envoy that is a test.

That nothing is sent is shown by what is sent next: answers come in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from buildpool.gateway.xds import discovery
from buildpool.gateway.xds.discovery import Discovery
from buildpool.gateway.xds.subscriptions import CLUSTER, LISTENER, SECRET, Resource, Snapshot

_KINDS: Mapping[str, Callable[..., Any]] = {
    CLUSTER: lambda name, text: cluster_pb2.Cluster(name=name, alt_stat_name=text),
    SECRET: lambda name, text: secret_pb2.Secret(
        name=name, generic_secret={"secret": {"inline_string": text}}
    ),
    LISTENER: lambda name, text: listener_pb2.Listener(name=name, stat_prefix=text),
}


def a_snapshot(
    clusters: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    listener: str = "first",
) -> Snapshot:
    """Resources by name, each with some text by which versions differ."""
    texts_of = {CLUSTER: clusters or {}, SECRET: secrets or {}, LISTENER: {"gateway": listener}}
    return {
        kind: {name: Resource.of(kind, _KINDS[kind](name, text)) for name, text in texts.items()}
        for kind, texts in texts_of.items()
    }


def versions(snapshot: Snapshot, kind: str) -> dict[str, str]:
    """What an Envoy has that took it all."""
    return {name: resource.version for name, resource in snapshot[kind].items()}


class AnEnvoy:
    """One that subscribes, takes and refuses as a test says."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self._channel)
        self._call = stub.DeltaAggregatedResources()

    async def wants(
        self,
        kind: str,
        *names: str,
        no_more: tuple[str, ...] = (),
        has: Mapping[str, str] | None = None,
    ) -> None:
        await self._call.write(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=kind,
                resource_names_subscribe=names,
                resource_names_unsubscribe=no_more,
                initial_resource_versions=has or {},
            )
        )

    async def hears(self) -> discovery_pb2.DeltaDiscoveryResponse:
        """The next answer, as it is."""
        async with asyncio.timeout(5):
            answer = await self._call.read()
        assert isinstance(answer, discovery_pb2.DeltaDiscoveryResponse), "the stream has ended"
        return answer

    async def takes(self) -> tuple[str, list[str], list[str]]:
        """The next answer, confirmed: its type, what is in it, and what is gone."""
        answer = await self.hears()
        await self.confirms(answer)
        names = [resource.name for resource in answer.resources]
        return answer.type_url, names, list(answer.removed_resources)

    async def confirms(self, answer: discovery_pb2.DeltaDiscoveryResponse) -> None:
        await self._call.write(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=answer.type_url, response_nonce=answer.nonce
            )
        )

    async def refuses(self, answer: discovery_pb2.DeltaDiscoveryResponse, why: str) -> None:
        await self._call.write(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=answer.type_url,
                response_nonce=answer.nonce,
                error_detail={"code": 3, "message": why},
            )
        )

    async def goes(self) -> None:
        self._call.cancel()
        await self._channel.close()


class Router:
    """The servicer, served; and what it calls back."""

    def __init__(self) -> None:
        self.refusals = 0
        self.answers = 0
        self.envoys: list[int] = []
        self.port = 0
        self.discovery = Discovery(
            on_rejected=self._refused,
            on_connected=self.envoys.append,
            on_answered=self._answered,
        )
        self._there: list[AnEnvoy] = []

    def _refused(self) -> None:
        self.refusals += 1

    def _answered(self) -> None:
        self.answers += 1

    def envoy(self) -> AnEnvoy:
        """One more."""
        self._there.append(AnEnvoy(self.port))
        return self._there[-1]

    async def leave(self) -> None:
        for envoy in self._there:
            await envoy.goes()


@asynccontextmanager
async def serving() -> AsyncIterator[Router]:
    router = Router()
    server = grpc.aio.server()
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(router.discovery, server)
    router.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield router
    finally:
        await router.leave()
        await server.stop(None)


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    """A router that has published nothing yet."""
    async with serving() as router:
        yield router


async def until(holds: Callable[[], bool]) -> None:
    """Waits until it does."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - nothing wakes
            await asyncio.sleep(0.005)


async def test_nothing_is_sent_before_all_is_known(router: Router) -> None:
    envoy = router.envoy()
    await envoy.wants(CLUSTER)
    await envoy.wants(LISTENER)
    await until(lambda: router.envoys == [1])
    router.discovery.publish(a_snapshot({"a": "1", "b": "1"}))
    assert await envoy.takes() == (CLUSTER, ["a", "b"], [])
    assert await envoy.takes() == (LISTENER, ["gateway"], [])


async def test_what_is_referred_to_comes_before_what_refers_to_it(router: Router) -> None:
    router.discovery.publish(a_snapshot({"a": "1"}, {"s": "1"}))
    envoy = router.envoy()
    for kind in (LISTENER, SECRET, CLUSTER):
        await envoy.wants(kind, *(["s"] if kind == SECRET else []))
    for _ in range(3):
        await envoy.takes()
    router.discovery.publish(a_snapshot({"a": "2"}, {"s": "2"}, listener="second"))
    assert [(await envoy.takes())[0] for _ in range(3)] == [CLUSTER, SECRET, LISTENER]


async def test_only_what_has_changed_is_sent_again(router: Router) -> None:
    router.discovery.publish(a_snapshot({"a": "1", "b": "1", "c": "1"}))
    envoy = router.envoy()
    await envoy.wants(CLUSTER)
    assert await envoy.takes() == (CLUSTER, ["a", "b", "c"], [])
    router.discovery.publish(a_snapshot({"c": "1", "b": "1", "a": "1"}))
    router.discovery.publish(a_snapshot({"a": "1", "b": "2", "d": "1"}))
    assert await envoy.takes() == (CLUSTER, ["b", "d"], ["c"])


async def test_an_envoy_gets_the_secrets_that_it_asks_for_when_they_are_there(
    router: Router,
) -> None:
    router.discovery.publish(a_snapshot(secrets={"a": "1", "b": "1"}))
    envoy = router.envoy()
    await envoy.wants(SECRET, "b")
    assert await envoy.takes() == (SECRET, ["b"], [])
    await envoy.wants(SECRET, "late")
    await envoy.wants(SECRET, "a")
    assert await envoy.takes() == (SECRET, ["a"], [])
    router.discovery.publish(a_snapshot(secrets={"a": "1", "b": "1", "late": "1"}))
    assert await envoy.takes() == (SECRET, ["late"], [])


async def test_nobody_waits_for_a_secret_that_is_not_there(router: Router) -> None:
    router.discovery.publish(a_snapshot())
    envoy = router.envoy()
    await envoy.wants(SECRET, "none")
    assert await envoy.takes() == (SECRET, [], [])


async def test_what_is_not_wanted_any_more_is_not_sent(router: Router) -> None:
    router.discovery.publish(a_snapshot(secrets={"a": "1", "b": "1"}))
    envoy = router.envoy()
    await envoy.wants(SECRET, "a", "b")
    await envoy.takes()
    await envoy.takes()
    await envoy.wants(SECRET, no_more=("a",))
    await envoy.wants(SECRET, "b")
    assert await envoy.takes() == (SECRET, ["b"], []), "all that was said before has been read"
    router.discovery.publish(a_snapshot(secrets={"a": "2", "b": "2"}))
    assert await envoy.takes() == (SECRET, ["b"], [])
    await envoy.wants(SECRET, "a")
    assert await envoy.takes() == (SECRET, ["a"], [])


async def test_an_envoy_that_was_there_before_is_sent_only_what_it_lacks(router: Router) -> None:
    before = a_snapshot({"a": "1", "b": "1", "c": "1"}, {"s": "1", "t": "1"})
    router.discovery.publish(a_snapshot({"a": "1", "b": "2"}, {"s": "1", "t": "2"}))
    envoy = router.envoy()
    await envoy.wants(CLUSTER, "*", has=versions(before, CLUSTER))
    assert await envoy.takes() == (CLUSTER, ["b"], ["c"])
    await envoy.wants(SECRET, "s", "t", has=versions(before, SECRET))
    assert await envoy.takes() == (SECRET, ["t"], [])
    await envoy.wants(LISTENER, "*", has=versions(before, LISTENER))
    assert await envoy.takes() == (LISTENER, [], [])


async def test_each_secret_comes_alone_so_that_it_is_refused_alone(router: Router) -> None:
    router.discovery.publish(a_snapshot(secrets={"a": "1", "b": "1", "c": "1"}))
    envoy = router.envoy()
    await envoy.wants(SECRET, "a", "b", "c")
    assert [await envoy.takes() for _ in range(3)] == [(SECRET, [name], []) for name in "abc"]


async def test_what_is_refused_is_logged_once_and_not_sent_again_until_it_changes(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.discovery.publish(a_snapshot(secrets={"a": "1"}))
    envoy = router.envoy()
    await envoy.wants(SECRET, "a", "b")
    with caplog.at_level(logging.ERROR):
        await envoy.refuses(await envoy.hears(), "no certificate")
        await until(lambda: router.refusals == 1)
    assert [each.getMessage() for each in caplog.records] == [
        "Envoy refuses Secret a: no certificate"
    ]
    router.discovery.publish(a_snapshot(secrets={"a": "1", "b": "1"}))
    assert await envoy.takes() == (SECRET, ["b"], [])
    router.discovery.publish(a_snapshot(secrets={"a": "2", "b": "1"}))
    assert await envoy.takes() == (SECRET, ["a"], [])
    assert router.refusals == 1


async def test_all_is_well_once_an_envoy_has_answered_everything(router: Router) -> None:
    assert not router.discovery.is_settled
    router.discovery.publish(a_snapshot(secrets={"a": "1"}))
    assert not router.discovery.is_settled
    envoy = router.envoy()
    await envoy.wants(LISTENER)
    listener = await envoy.hears()
    assert not router.discovery.is_settled
    await envoy.wants(SECRET, "a")
    secret = await envoy.hears()
    await envoy.confirms(listener)
    await envoy.wants(CLUSTER)
    await envoy.takes()  # so what was said before has been read
    assert not router.discovery.is_settled, "the secret is under way"
    await envoy.confirms(secret)
    await until(lambda: router.discovery.is_settled)
    await envoy.goes()
    await until(lambda: not router.discovery.is_settled)


async def test_an_envoy_that_refuses_its_first_listener_serves_nothing(router: Router) -> None:
    router.discovery.publish(a_snapshot())
    envoy = router.envoy()
    await envoy.wants(LISTENER)
    await envoy.refuses(await envoy.hears(), "an overlap")
    await until(lambda: router.refusals == 1)
    assert not router.discovery.is_settled
    router.discovery.publish(a_snapshot(listener="second"))
    await envoy.takes()
    await until(lambda: router.discovery.is_settled)


@pytest.mark.parametrize("refused", [SECRET, LISTENER])
async def test_an_envoy_that_refuses_a_change_serves_on(router: Router, refused: str) -> None:
    router.discovery.publish(a_snapshot())
    envoy = router.envoy()
    await envoy.wants(LISTENER)
    await envoy.takes()
    await envoy.wants(SECRET, "a")
    await envoy.takes()
    await until(lambda: router.discovery.is_settled)
    secrets = {"a": "1"} if refused == SECRET else {}
    router.discovery.publish(
        a_snapshot(secrets=secrets, listener="second" if refused == LISTENER else "first")
    )
    answer = await envoy.hears()
    assert answer.type_url == refused
    await envoy.refuses(answer, "it does not fit")
    await until(lambda: router.refusals == 1)
    assert router.discovery.is_settled


async def test_an_envoy_that_serves_is_known_when_the_router_starts_again(router: Router) -> None:
    snapshot = a_snapshot()
    router.discovery.publish(snapshot)
    envoy = router.envoy()
    await envoy.wants(LISTENER, "*", has=versions(snapshot, LISTENER))
    await envoy.takes()
    await until(lambda: router.discovery.is_settled)


async def test_every_envoy_is_configured(router: Router) -> None:
    router.discovery.publish(a_snapshot({"a": "1"}))
    envoys = [router.envoy() for _ in range(3)]
    for envoy in envoys:
        await envoy.wants(CLUSTER)
        assert await envoy.takes() == (CLUSTER, ["a"], [])
    router.discovery.publish(a_snapshot({"a": "2"}))
    for envoy in envoys:
        assert await envoy.takes() == (CLUSTER, ["a"], [])


async def test_an_envoy_that_goes_leaves_nothing_behind(router: Router) -> None:
    envoy = router.envoy()
    await envoy.wants(CLUSTER)
    await until(lambda: router.envoys == [1])
    assert len(_tasks()) == 1
    await envoy.goes()
    await until(lambda: router.envoys == [1, 0])
    assert not _tasks()


def _tasks() -> list[str]:
    """The tasks that run code of the module."""
    codes = (getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks())
    return [code.co_name for code in codes if code and code.co_filename == discovery.__file__]


def test_a_version_says_what_is_in_a_resource_and_nothing_else() -> None:
    one, same, other = (a_snapshot({"a": text})[CLUSTER]["a"].version for text in ("1", "1", "2"))
    assert one == same != other


async def test_an_envoy_has_what_it_has_taken_and_not_what_was_only_sent(router: Router) -> None:
    first, second = a_snapshot(secrets={"a": "1"}), a_snapshot(secrets={"a": "2"})
    has = lambda snapshot: router.discovery.has({SECRET: snapshot[SECRET]})  # noqa: E731
    router.discovery.publish(first)
    envoy = router.envoy()
    await envoy.wants(SECRET, "a")
    answer = await envoy.hears()
    assert not has(first), "it was sent, and Envoy has not answered"
    await envoy.confirms(answer)
    await until(lambda: has(first))
    answers = router.answers
    router.discovery.publish(second)
    await envoy.refuses(await envoy.hears(), "no certificate")
    await until(lambda: router.answers > answers)
    assert has(first), "it serves with what it had"
    assert not has(second)
    await envoy.wants(SECRET, no_more=("a",))
    await until(lambda: not has(first))


async def test_an_envoy_that_was_there_before_has_what_it_says(router: Router) -> None:
    snapshot = a_snapshot({"a": "1"})
    router.discovery.publish(snapshot)
    await router.envoy().wants(CLUSTER, "*", has=versions(snapshot, CLUSTER))
    await until(lambda: router.discovery.has({CLUSTER: snapshot[CLUSTER]}))
