"""The protocol by which Envoy gets its configuration: delta ADS, for any number of Envoys.

Knows types, names and versions of resources, and nothing of what they mean. Nothing is served
before the first complete snapshot is: an Envoy that came before keeps what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

_TYPE: Final = "type.googleapis.com/envoy."
CLUSTER: Final = f"{_TYPE}config.cluster.v3.Cluster"
SECRET: Final = f"{_TYPE}extensions.transport_sockets.tls.v3.Secret"
LISTENER: Final = f"{_TYPE}config.listener.v3.Listener"
ORDER: Final = (CLUSTER, SECRET, LISTENER)
"""What is needed comes before who needs it."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, ready to be sent."""

    version: str
    content: any_pb2.Any

    @classmethod
    def of(cls, kind: str, message: Message) -> Resource:
        """A resource of this type."""
        content = message.SerializeToString(deterministic=True)
        version = sha256(content).hexdigest()[:16]
        return cls(version, any_pb2.Any(type_url=kind, value=content))


Snapshot = Mapping[str, Mapping[str, Resource]]
"""All that Envoy shall have, by type and name."""


@dataclass(slots=True)
class _Subscription:
    """What one Envoy wants and has of one type."""

    everything: bool = False
    names: set[str] = field(default_factory=set)
    has: dict[str, str] = field(default_factory=dict)
    """Versions by name."""
    is_answered: bool = False

    def wants(self, name: str) -> bool:
        """Whether it asked for this one."""
        return self.everything or name in self.names


class Discovery(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """The servicer that Envoys connect to. For one event loop."""

    def __init__(
        self,
        *,
        on_rejected: Callable[[], None] = lambda: None,
        on_connected: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``on_rejected`` is called for each update that an Envoy refuses.

        ``on_connected`` is called with the number of Envoys that are there.
        """
        self._on_rejected = on_rejected
        self._on_connected = on_connected
        self._snapshot: Snapshot | None = None
        self._streams: set[_Stream] = set()

    def publish(self, snapshot: Snapshot) -> None:
        """From now on this is what Envoys shall have."""
        self._snapshot = snapshot
        for stream in self._streams:
            stream.wake()

    @property
    def is_settled(self) -> bool:
        """Whether an Envoy is there that serves, and has answered all there is to tell.

        One that refuses a part serves on with what it had.
        """
        snapshot = self._snapshot
        return snapshot is not None and any(s.has_taken(snapshot) for s in self._streams)

    async def DeltaAggregatedResources(  # noqa: N802 - the name is Envoy's
        self,
        requests: AsyncIterable[discovery_pb2.DeltaDiscoveryRequest],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[discovery_pb2.DeltaDiscoveryResponse]:
        """One Envoy, for as long as it is there."""
        stream = _Stream(self._on_rejected)
        self._streams.add(stream)
        self._on_connected(len(self._streams))
        reader = asyncio.create_task(stream.read(requests))
        try:
            while not reader.done():
                for response in stream.due(self._snapshot):
                    yield response
                await stream.woken()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            self._streams.discard(stream)
            self._on_connected(len(self._streams))


class _Stream:
    """One Envoy."""

    def __init__(self, on_rejected: Callable[[], None]) -> None:
        self._on_rejected = on_rejected
        self._subscriptions: dict[str, _Subscription] = {}
        self._open: dict[str, tuple[str, ...]] = {}
        """The names in what was sent and neither taken nor refused yet, by nonce."""
        self._is_serving = False
        self._nonces = count(1)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def woken(self) -> None:
        """Until there may be."""
        await self._wake.wait()
        self._wake.clear()

    async def read(self, requests: AsyncIterable[discovery_pb2.DeltaDiscoveryRequest]) -> None:
        """Hears what Envoy wants and what it took, until it goes."""
        try:
            async for request in requests:
                self._hear(request)
                self.wake()
        finally:
            self.wake()

    def _hear(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        kind = request.type_url
        names = self._open.pop(request.response_nonce, ())
        if request.HasField("error_detail"):
            what = names[0] if len(names) == 1 else "of several"
            why = request.error_detail.message.strip()
            log.error("Envoy refuses %s %s: %s", kind.rpartition(".")[2], what, why)
            self._on_rejected()
        elif kind == LISTENER and (names or request.initial_resource_versions):
            self._is_serving = True
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            subscription = self._subscriptions[kind] = _Subscription()
            # What it has from a stream before is not sent again.
            subscription.has = dict(request.initial_resource_versions)
            subscription.everything = not request.resource_names_subscribe
        for name in request.resource_names_subscribe:
            if name == "*":
                subscription.everything = True
            else:
                subscription.names.add(name)
                if name not in request.initial_resource_versions:
                    subscription.has.pop(name, None)
        for name in request.resource_names_unsubscribe:
            if name == "*":
                subscription.everything = False
            subscription.names.discard(name)
            subscription.has.pop(name, None)

    def has_taken(self, snapshot: Snapshot) -> bool:
        """Whether Envoy serves, was sent the listener of a snapshot, and has answered to it."""
        listeners = self._subscriptions.get(LISTENER)
        wanted = {name: resource.version for name, resource in snapshot[LISTENER].items()}
        is_sent = listeners is not None and listeners.has == wanted
        return self._is_serving and is_sent and not self._open

    def due(self, snapshot: Snapshot | None) -> Iterator[discovery_pb2.DeltaDiscoveryResponse]:
        """What Envoy lacks."""
        for kind in ORDER if snapshot is not None else ():
            subscription = self._subscriptions.get(kind)
            if subscription is None or snapshot is None:
                continue
            there = snapshot.get(kind, {})
            new = {
                name: resource
                for name, resource in there.items()
                if subscription.wants(name) and subscription.has.get(name) != resource.version
            }
            gone = [name for name in subscription.has if name not in there]
            if not new and not gone and subscription.is_answered:
                continue
            subscription.is_answered = True  # a first answer is waited for, though it be empty
            subscription.has |= {name: resource.version for name, resource in new.items()}
            for name in gone:
                del subscription.has[name]
            # An Envoy that refuses one secret drops those that came with it, of other pools too.
            batches = [{name: new[name]} for name in sorted(new)] if kind == SECRET else [new]
            for batch in batches or [{}]:
                yield self._answer(kind, batch, gone)
                gone = []

    def _answer(
        self, kind: str, new: Mapping[str, Resource], gone: list[str]
    ) -> discovery_pb2.DeltaDiscoveryResponse:
        nonce = str(next(self._nonces))
        self._open[nonce] = (*sorted(new), *gone)
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=kind,
            nonce=nonce,
            removed_resources=gone,
            resources=[
                discovery_pb2.Resource(
                    name=name, version=resource.version, resource=resource.content
                )
                for name, resource in sorted(new.items())
            ],
        )
