"""Answers ``ListenBuildHistory``: with the records of all builders, as one daemon would.

Envoy brings the request here as to any server, once it was let in (``pools.tickets``). Nothing that
a client sends is read here: its message was read before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import grpc.aio

from buildpool.buildkit import DaemonRefusedError
from buildpool.buildkit.history import METHOD
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.gateway.pools.listeners import Listener
from buildpool.gateway.pools.records import NoAnswer
from buildpool.gateway.pools.served import ServedPool, ServedPools
from buildpool.gateway.pools.tickets import HEADER, Admitted, Tickets
from buildpool.gateway.slots.refusals import Denied, Exhausted, NotServed, Refused, Unavailable

TIMESTAMP: Final = "buildkit-current-timestamp"
"""The header with which BuildKit says what time it is: buildx counts from it how long builds run.
"""
MAX_LISTS: Final = 8
"""Lists that one client is sent at once. They have a bound of their own: a client that reads none
can still ask what its builds need."""
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
        headers = dict(context.invocation_metadata() or ())
        admitted = self._tickets.take(str(headers.get(HEADER, "")))
        try:
            if admitted is None or admitted.request is None:
                raise Unavailable("the gateway has just started; ask again")
            served = self._pools.find(admitted.pool)
            if served is None:
                raise NotServed(admitted.pool)
            answer = _Answer(served, admitted, context)
            await answer.begin(self._clock())
            await answer.give(admitted.request)
        except Refused as refused:
            await context.abort(refused.status, str(refused))
        except DaemonRefusedError as refusal:
            await context.abort(grpc.StatusCode.UNKNOWN, str(refusal))


class _Answer:
    """What one request is sent."""

    def __init__(
        self, served: ServedPool, admitted: Admitted, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
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
        with listeners.listen(self._identity, request.ref) as listener:
            await self._list(request, listener)
            while True:
                event = await listener.next()
                if self._served.brief.client(self._identity) is None:
                    raise Denied("this client is not among access.clients any more")
                await self._send(event.message)

    async def _list(self, request: HistoryRequest, listener: Listener | None = None) -> None:
        records, running = self._served.records, None
        async with self._served.bounds.reader(self._identity, MAX_LISTS):
            if request.ref:
                running = self._served.scheduler.locator.builder_of(request.ref)
                if request.is_active_only and running is None:
                    return  # buildx asks so after each build, whether there is a history at all
            try:
                events = await records.listed(request, runs_on=running.uid if running else "")
            except NoAnswer:
                raise self._nobody_answers() from None
            if listener is not None and events and request.ref:
                listener.teller = records.holder_known(request.ref)
            for event in events:
                if listener is None or listener.is_news(event):
                    await self._send(event.message)

    def _nobody_answers(self) -> Unavailable:
        pool = f"pool {self._served.brief.key}"
        if self._served.records.fleet.is_empty:
            return Unavailable(f"{pool} has no builder now; a build wakes it")
        return Unavailable(f"{pool}: no builder answers now; ask again")

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._context.write(message)
        except TimeoutError:
            raise Exhausted(f"nobody has read this answer for {READ_SECONDS:g} s") from None
