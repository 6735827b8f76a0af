"""Answers ``ListenBuildHistory``: with the records of all builders, as one daemon would.

Envoy brings the request here as to any server, once it was let in (``pools.tickets``). Nothing that
a client sends is read here: its message was read before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import grpc.aio

from buildpool.buildkit import BuildEvent, DaemonRefusedError
from buildpool.buildkit.history import METHOD
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.gateway.pools.listeners import Listener
from buildpool.gateway.pools.records import NoAnswer
from buildpool.gateway.pools.served import ServedPool, ServedPools
from buildpool.gateway.pools.tickets import HEADER, Admitted, Tickets
from buildpool.gateway.slots.refusals import Exhausted, NotServed, Refused, Unavailable

TIMESTAMP: Final = "buildkit-current-timestamp"
"""The header with which BuildKit says what time it is: buildx counts from it how long builds run.
"""
READ_SECONDS: Final = 30.0
"""Time in which a client has to take what is sent to it."""


class Histories(grpc.GenericRpcHandler):
    """The one method, for the server of the router."""

    def __init__(
        self, pools: ServedPools, tickets: Tickets, *, clock: Callable[[], datetime]
    ) -> None:
        self._pools = pools
        self._tickets = tickets
        self._clock = clock

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method; None for those of others."""
        if details.method != METHOD:
            return None
        handler: grpc.RpcMethodHandler
        handler = grpc.unary_stream_rpc_method_handler(self._listen)  # type: ignore[no-untyped-call]
        return handler

    async def _listen(self, _: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with AsyncExitStack() as places:
            refusal = await self._answer(context, places)
            if refusal is not None:
                # What is written last comes first: so, of a client that does not read, this waits
                # until it leaves. Till then it has its places, and nothing else: no exception is
                # kept here, which would keep all that was there where it was.
                await context.abort(*refusal)

    async def _answer(
        self, context: grpc.aio.ServicerContext[Any, Any], places: AsyncExitStack
    ) -> tuple[grpc.StatusCode, str] | None:
        """Answers; returns how the request is refused, if it is."""
        headers = dict(context.invocation_metadata() or ())
        admitted = self._tickets.take(str(headers.get(HEADER, "")))
        try:
            if admitted is None or admitted.request is None:
                raise Unavailable("the gateway has just started; ask again")
            served = self._pools.find(admitted.pool)
            if served is None:
                raise NotServed(admitted.pool)
            answer = _Answer(self._pools, served, admitted, context, places)
            await answer.begin(self._clock())
            await answer.give(admitted.request)
        except Refused as refused:
            return refused.status, str(refused)
        except DaemonRefusedError as refusal:
            return grpc.StatusCode.UNKNOWN, str(refusal)
        return None


class _Answer:
    """What one request is sent."""

    def __init__(
        self,
        pools: ServedPools,
        served: ServedPool,
        admitted: Admitted,
        context: grpc.aio.ServicerContext[Any, Any],
        places: AsyncExitStack,
    ) -> None:
        """``places`` are given back once the request is over, and not before."""
        self._pools = pools
        self._places = places
        self._served = served
        self._identity = admitted.identity
        self._context = context

    async def begin(self, now: datetime) -> None:
        written = now.astimezone(UTC).isoformat().replace("+00:00", "Z")
        await self._context.send_initial_metadata(((TIMESTAMP, written),))

    async def give(self, request: HistoryRequest) -> None:
        """What there is, and then what happens, for as long as the client listens."""
        if request.has_end:
            await self._list(request)
            return
        listeners = self._served.records.listeners
        # Listens first and asks then: what happens between the two is not missed.
        listener = self._places.enter_context(listeners.listen(self._identity, request.ref))
        try:
            self._check()  # from here on, those who are removed are told
            await self._list(request, listener)
            while True:
                await self._send(await listener.next())
        except Refused as refused:
            listener.end(refused.again())
            raise

    async def _list(self, request: HistoryRequest, listener: Listener | None = None) -> None:
        served = self._served
        place = await self._places.enter_async_context(AsyncExitStack())
        await place.enter_async_context(served.bounds.a_list(self._identity))
        self._check()
        events = await self._found(request)
        if listener is not None and events and request.ref:
            listener.teller = served.records.holder_known(request.ref)
        with served.of_all.unsent.holding(served.brief.key, events) as unsent:
            del events
            while (event := unsent.take()) is not None:
                if listener is None or listener.is_news(event):
                    await self._send(event)
        await place.aclose()

    def _check(self) -> None:
        """Raises where the client has been removed since it was let in, or its pool has gone."""
        served = self._served
        if self._pools.find(served.brief.key) is not served:
            raise NotServed(served.brief.key)
        served.check_listener(self._identity)

    async def _found(self, request: HistoryRequest) -> list[BuildEvent]:
        records, locator, runs_on = self._served.records, self._served.scheduler.locator, ""
        if request.ref:
            running = locator.builder_of(request.ref)
            runs_on = running.uid if running else ""
            if request.is_active_only and not runs_on and locator.hears_all:
                return []  # buildx asks so after each build, whether there is a history at all
        try:
            return await records.listed(request, runs_on=runs_on)
        except NoAnswer:
            raise self._nobody_answers() from None

    def _nobody_answers(self) -> Unavailable:
        pool = f"pool {self._served.brief.key}"
        if self._served.records.fleet.is_empty:
            return Unavailable(f"{pool} has no builder now; a build wakes it")
        return Unavailable(f"{pool}: no builder answers now; ask again")

    async def _send(self, event: BuildEvent) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._context.write(event.message)
        except TimeoutError:
            raise Exhausted(f"nobody has read this answer for {READ_SECONDS:g} s") from None
