"""Answers Envoy's question about each request: where it goes, and with what (ext_proc).

One conversation for each request. For most it is over with the first answer; those of sessions and
solves go on until these end, which is how their slots become free. No conversation is needed any
more once a request goes on: when this process ends, what runs goes on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc

from buildpool.buildkit.history import METHOD as LISTEN
from buildpool.buildkit.solve_requests import (
    Solve,
    read_bridge_solve,
    read_solve,
    read_status,
)
from buildpool.core.api.brief import ClientBrief
from buildpool.core.routing.affinity import Traits
from buildpool.core.routing.pool_state import Placement
from buildpool.core.routing.sharing import Share
from buildpool.core.routing.values import Target, pool_of
from buildpool.gateway.ext_proc import records, responses
from buildpool.gateway.ext_proc.authorization import (
    check_care,
    check_owner,
    check_solve,
    client_of,
)
from buildpool.gateway.ext_proc.bodies import read_message, with_share, with_shared_imports
from buildpool.gateway.ext_proc.caching import share_of
from buildpool.gateway.ext_proc.calls import Call, CallKind, read_call
from buildpool.gateway.ext_proc.running import to_its_end
from buildpool.gateway.ext_proc.traits import affinity_key, traits_of
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.messages import Seat
from buildpool.gateway.pools.served import ServedPool, ServedPools
from buildpool.gateway.pools.tickets import Tickets
from buildpool.gateway.reports.builds import BuildLog, BuildRecord
from buildpool.gateway.reports.traces import Traces
from buildpool.gateway.slots.refusals import Denied, NotServed, Refused

MAX_SOLVES: Final = 4
"""Solves of one client that are read at once, where there is room (``pools.messages``)."""
MAX_LOGGED_CHARACTERS: Final = 300
"""Characters of what a client sends that are logged."""
log: Final = logging.getLogger(__name__)

_Conversation = AsyncGenerator[ext_proc.ProcessingResponse, None]


class Processor(ext_proc_grpc.ExternalProcessorServicer):  # type: ignore[misc]
    """The servicer that Envoy asks."""

    def __init__(
        self,
        pools: ServedPools,
        build_log: BuildLog,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], datetime],
        tickets: Tickets,
        traces: Traces,
    ) -> None:
        """``tickets`` lead requests to what the router answers by itself."""
        self._traces = traces
        self._pools = pools
        self._tickets = tickets
        self._build_log = build_log
        self._metrics = metrics
        self._clock = clock

    async def Process(  # noqa: N802 - the name is Envoy's
        self,
        requests: AsyncIterable[ext_proc.ProcessingRequest],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> _Conversation:
        """One request, from its headers on."""
        messages = aiter(requests)
        try:
            call = read_call(await anext(messages))
        except StopAsyncIteration:
            return
        try:
            served = self._pool_of(call)
            began: float | None = perf_counter()
            is_admitted = served.scheduler.connections.is_admitted
            asked = served.bounds.asked_by(call.identity, has_slot=is_admitted(call.connection))
            with asked as request, served.bounds.message() as seat:
                # Closed at once where this is: what it holds, others wait for.
                async with aclosing(self._answers(call, served, messages, seat)) as conversation:
                    async for answer in conversation:
                        if is_admitted(call.connection):
                            request.has_slot()
                        if began is not None:
                            self._metrics.decided(call.kind.value, perf_counter() - began)
                            began = None
                        yield answer
                        del answer
        except Refused as refused:
            yield self._refusal(call, refused)

    def _pool_of(self, call: Call) -> ServedPool:
        served = self._pools.served(call.chain)
        if served is None:
            raise NotServed(call.chain)
        return served

    def _answers(
        self, call: Call, served: ServedPool, messages: records.Messages, seat: Seat
    ) -> _Conversation:
        match call.kind:
            case CallKind.SESSION:
                return self._session(call, served, messages)
            case CallKind.SOLVE:
                return self._solve(call, served, messages, seat)
            case CallKind.STATUS:
                return self._status(call, served, messages)
            case CallKind.BRIDGE_SOLVE:
                return self._bridge_solve(call, served, messages, seat)
            case CallKind.CARE if call.path == LISTEN:
                return records.listen(self._tickets, call, served, messages)
            case CallKind.CARE if call.path in records.ANSWERS:
                return records.ANSWERS[call.path](call, served, messages)
            case _:
                return self._once(call, served)

    async def _once(self, call: Call, served: ServedPool) -> _Conversation:
        """A request that needs nothing but a builder."""
        scheduler = served.scheduler
        if call.kind is CallKind.BRIDGE:
            await check_owner(call, served, call.ref)
            yield responses.go_on(await scheduler.locator.home_of(call.connection, call.ref))
            return
        client, kind = client_of(call, served), call.kind
        if kind is CallKind.BROWSE:
            is_there = scheduler.locator.present(call.connection) is not None
            kind = CallKind.LOOK if is_there else CallKind.HELLO
        waited = timedelta(0)
        if kind is CallKind.HELLO:
            with self._wait(call, served, client):
                waited = await scheduler.admit(
                    call.connection, call.identity, max_wait=served.brief.max_wait
                )
            # Builds say hello more than once; a connection that has its slot does not wait again.
            served.note_wait(call.connection, client.name, waited)
        if kind in (CallKind.HELLO, CallKind.QUESTION):
            rest = max(timedelta(0), served.brief.max_wait - waited)
            yield responses.go_on(
                await scheduler.any_builder(call.connection, call.identity, max_wait=rest)
            )
            return
        if kind is CallKind.CARE:
            check_care(call, served, client)
        yield responses.go_on(scheduler.locator.caretaker(call.connection))

    def _wait(
        self, call: Call, served: ServedPool, client: ClientBrief
    ) -> AbstractContextManager[object]:
        """The span of a wait for a slot; none where the connection has one."""
        if served.scheduler.connections.is_admitted(call.connection):
            return nullcontext()
        about = {"pool": str(served.brief.key), "client": client.name}
        return self._traces.span(call.traceparent, "wait for a slot", **about)

    async def _session(
        self, call: Call, served: ServedPool, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        client = client_of(call, served)
        traits = Traits(context=call.shared_key, client=client.name)
        with served.contexts.session(call.identity, call.session, call.shared_key):
            placement = await served.scheduler.follow(
                call.connection, call.identity, affinity_key(served, traits)
            )
            try:
                yield responses.go_on(placement.builder)
                async for message in messages:
                    if message.HasField("response_trailers"):
                        yield responses.response_trailers()
            finally:
                served.scheduler.end(call.connection)

    async def _solve(
        self, call: Call, served: ServedPool, messages: records.Messages, seat: Seat
    ) -> _Conversation:
        client = client_of(call, served)
        # Should this process end before its next answer, Envoy goes by the last one. Not where the
        # message has to be checked first.
        scheduler = served.scheduler
        with scheduler.locator.solving(call.connection):
            with self._wait(call, served, client):
                waited = await scheduler.wait_for_slot(
                    call.connection, call.identity, max_wait=served.brief.max_wait
                )
            if waited:  # who says no hello, or said it long ago
                served.note_wait(call.connection, client.name, waited)
            place_then = (
                scheduler.locator.provisional(call.connection, call.identity)
                if client.may_export
                else None
            )
            async with served.bounds.reader(call.identity, "solves", MAX_SOLVES):
                await seat.read()
                yield responses.go_on(place_then)
                message, solve = await read_message(messages, read_solve, on_come=seat.come)
                check_solve(call, served, client, solve, message)
            about = {"pool": str(served.brief.key), "client": client.name, "build": solve.ref}
            parent = "" if solve.is_internal else call.traceparent
            with self._traces.span(parent, "place the build", **about) as note:
                traits = await traits_of(call, served, client.name, solve)
                placement = await scheduler.begin(
                    call.connection,
                    call.identity,
                    affinity_key(served, traits),
                    solve.ref,
                    is_internal=solve.is_internal,
                )
                shared = share_of(served, client, traits, solve, now=self._clock())
                note.add(
                    builder=placement.builder.name, imports=shared.imports, exports=shared.exports
                )
        if not solve.is_internal:  # of which no record is kept
            served.records.built(solve.ref, placement.builder.uid)
        self._metrics.shared(served.brief.key, shared)
        build = self._build(call, served, client, solve, placement, shared)
        try:
            yield responses.go_on_with(placement.builder, with_share(message, solve, shared))
            del message, solve, traits  # they may be large, and the build long
            seat.leave()
            with served.cancellations.heard_by(build.ref) as cancelled:
                known = self._pools.known_trouble
                async with aclosing(to_its_end(build, messages, cancelled, known=known)) as answers:
                    async for answer in answers:
                        yield answer
        finally:
            scheduler.end(call.connection, build.ref)
            if build.result != "succeeded":
                served.caches.forget_exports(build.exports)
            self._build_log.close(build, now=self._clock())

    async def _status(
        self, call: Call, served: ServedPool, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        """The progress of a build, of which only the message says which one it is."""
        await served.scheduler.locator.solve_begins(call.connection)
        async with served.bounds.reader(call.identity, "status", records.MAX_QUESTIONS):
            yield responses.go_on(self._known_home(call, served))
            _, ref = await read_message(messages, read_status, longest=records.MAX_QUESTION_BYTES)
        if served.brief.client(call.identity) is None:
            try:
                await check_owner(call, served, ref)
            except Denied:
                client_of(call, served)  # that it was removed is said first
                raise
        locator = served.scheduler.locator
        find = partial(records.find_record, served, ref)
        yield responses.go_on_with(await locator.teller_of(call.connection, ref, find))

    async def _bridge_solve(
        self, call: Call, served: ServedPool, messages: records.Messages, seat: Seat
    ) -> _Conversation:
        """A part of a build whose frontend runs at the client."""
        await check_owner(call, served, call.ref)
        builder = await served.scheduler.locator.home_of(call.connection, call.ref)
        async with served.bounds.reader(call.identity, "solves", MAX_SOLVES):
            await seat.read()
            yield responses.go_on(builder)
            build = self._build_log.find(served.brief.key, call.ref)
            message, asked = await read_message(messages, read_bridge_solve, on_come=seat.come)
            if build is None or not build.imports or asked.has_imports or asked.is_no_cache:
                yield responses.go_on_with(builder)
                return
            yield responses.go_on_with(builder, with_shared_imports(message, build.imports))

    def _known_home(self, call: Call, served: ServedPool) -> Target | None:
        """Where its solve goes, should this process end before its next answer."""
        locator = served.scheduler.locator
        home = locator.known_home(call.connection, call.ref)
        return home or locator.provisional(call.connection, call.identity)

    def _build(
        self,
        call: Call,
        served: ServedPool,
        client: ClientBrief,
        solve: Solve,
        placement: Placement,
        shared: Share,
    ) -> BuildRecord:
        waited = None
        if not solve.is_internal:
            self._metrics.placed(served.brief.key, placement.is_favourite)
            waited = served.take_wait(call.connection)
            if waited is not None:  # once, not for each target of a bake
                self._metrics.waited(served.brief.key, client.name, waited)
        build = BuildRecord(
            ref=solve.ref,
            pool=served.brief.key,
            client=client.name,
            builder=placement.builder,
            started=self._clock(),
            waited=waited or timedelta(0),
            imports=shared.imports,
            exports=shared.exports,
            is_internal=solve.is_internal,
        )
        self._build_log.open(build)
        return build

    def _refusal(self, call: Call, refused: Refused) -> ext_proc.ProcessingResponse:
        served = self._pools.served(call.chain)
        client = served.brief.client(call.identity) if served is not None else None
        name = client.name if client is not None else ""
        pool = served.brief.key if served is not None else pool_of("")
        said = (call.method, call.identity, refused)
        words = (str(each)[:MAX_LOGGED_CHARACTERS] for each in said)
        log.warning("%s: refused %s to %s: %s", call.chain, *words)
        self._metrics.refused(pool, refused.status.name, client=name)
        return responses.refuse(refused.status, str(refused))
