"""The protocol by which Envoy gets its configuration: delta ADS, for any number of Envoys.

Nothing is served before the first complete snapshot is: an Envoy that came before keeps what it
has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from buildpool.gateway.xds.subscriptions import Snapshot, Subscriptions

log: Final = logging.getLogger(__name__)


class Discovery(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """The servicer that Envoys connect to. For one event loop."""

    def __init__(
        self,
        *,
        on_rejected: Callable[[], None],
        on_connected: Callable[[int], None],
        on_answered: Callable[[], None],
    ) -> None:
        """``on_rejected`` is called for each update that an Envoy refuses.

        ``on_connected`` is called with the number of Envoys whenever that has changed;
        ``on_answered`` when one may have taken something.
        """
        self._on_rejected = on_rejected
        self._on_connected = on_connected
        self._on_answered = on_answered
        self._snapshot: Snapshot | None = None
        self._streams: set[_Stream] = set()

    def publish(self, snapshot: Snapshot) -> None:
        """Sends Envoys what they lack of a snapshot, from now on."""
        self._snapshot = snapshot
        for stream in self._streams:
            stream.wake()

    @property
    def is_settled(self) -> bool:
        """Whether an Envoy is there that serves, and has answered to all that was published.

        One that refuses a part serves on with what it had.
        """
        snapshot = self._snapshot
        return snapshot is not None and any(
            stream.envoy.has_taken(snapshot) for stream in self._streams
        )

    def has(self, resources: Snapshot) -> bool:
        """Whether an Envoy serves with just these, as far as their names go."""
        return any(stream.envoy.has(resources) for stream in self._streams)

    async def DeltaAggregatedResources(  # noqa: N802 - the name is Envoy's
        self,
        requests: AsyncIterable[discovery_pb2.DeltaDiscoveryRequest],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[discovery_pb2.DeltaDiscoveryResponse]:
        """One Envoy, for as long as it is there."""
        stream = _Stream(self._on_rejected, self._on_answered)
        self._streams.add(stream)
        self._on_connected(len(self._streams))
        reader = asyncio.create_task(stream.read(requests))
        try:
            while not reader.done():
                if self._snapshot is not None:
                    for response in stream.envoy.due(self._snapshot):
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

    def __init__(self, on_rejected: Callable[[], None], on_answered: Callable[[], None]) -> None:
        self.envoy = Subscriptions()
        self._on_rejected = on_rejected
        self._on_answered = on_answered
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def woken(self) -> None:
        """Waits until there may be something to send."""
        await self._wake.wait()
        self._wake.clear()

    async def read(self, requests: AsyncIterable[discovery_pb2.DeltaDiscoveryRequest]) -> None:
        """Reads what Envoy wants and what it took, until it goes."""
        try:
            async for request in requests:
                rejection = self.envoy.read(request)
                if rejection is not None:
                    names = rejection.names
                    what = names[0] if len(names) == 1 else "of several"
                    log.error("Envoy refuses %s %s: %s", rejection.kind, what, rejection.why)
                    self._on_rejected()
                self._on_answered()
                self.wake()
        finally:
            self.wake()
