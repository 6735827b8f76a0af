"""Answers Envoy's question about each request: where it goes, and with what (ext_proc).

One conversation for each request. For most it is over with the first answer; those of sessions and
solves go on until these end, which is how their slots become free. No conversation is needed any
more once a request goes on: when this process ends, what runs goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc

from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import (
    Solve,
    read_bridge_solve,
    read_solve,
    read_status,
    unframe,
)
from buildpool.core.routing.affinity import Traits, key_of
from buildpool.core.routing.sharing import NOTHING, Share, Wish, reference_of, share
from buildpool.core.routing.state import Place
from buildpool.core.routing.values import Builder, ClientBrief, pool_of
from buildpool.gateway.ext_proc import responses as answers
from buildpool.gateway.ext_proc.authorization import Denied, check_owner, check_solve, client_of
from buildpool.gateway.ext_proc.bodies import read_body, with_import, with_share
from buildpool.gateway.ext_proc.calls import Call, Kind, headers_of, read_call
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.served import House, Room
from buildpool.gateway.reports.builds import Build, Ledger
from buildpool.gateway.slots.refusals import Exhausted, NotServed, Unavailable

ENVOY_LOST_IT: Final = "upstream connect error or disconnect/reset"
"""How Envoy begins to tell that a connection to a builder has ended."""
WORTH_TELLING: Final = timedelta(seconds=1)
"""Waits that are logged."""
MAX_MESSAGES: Final = 4
"""Messages of one client that are read at once: each may have 16 MiB, and some copies;"""
MAX_QUESTIONS: Final = 16
"""and of those that only ask for the progress of a build."""
MAX_STATUS: Final = 64 << 10
"""Bytes of a request for the progress of a build: it says which one."""
TOLD: Final = 300
"""Characters of what a client sends that are logged."""
CONTEXT_PATIENCE: Final = 0.1
"""Seconds that a solve which names no source and no image waits for its session."""
UNAVAILABLE: Final = str(grpc.StatusCode.UNAVAILABLE.value[0])
log: Final = logging.getLogger(__name__)

_Conversation = AsyncGenerator[ext_proc.ProcessingResponse, None]


class Processor(ext_proc_grpc.ExternalProcessorServicer):  # type: ignore[misc]
    """The servicer that Envoy asks."""

    def __init__(
        self,
        house: House,
        ledger: Ledger,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._house = house
        self._ledger = ledger
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
            room = self._room(call)
            began: float | None = perf_counter()
            # Closed at once where this is: what it holds, others wait for.
            async with aclosing(self._answers(call, room, messages)) as conversation:
                async for answer in conversation:
                    if began is not None:
                        self._metrics.decided(call.kind.value, perf_counter() - began)
                        began = None
                    yield answer
                    del answer
        except Denied as error:
            yield self._refusal(call, grpc.StatusCode.PERMISSION_DENIED, error)
        except Exhausted as error:
            yield self._refusal(call, grpc.StatusCode.RESOURCE_EXHAUSTED, error)
        except Unavailable as error:
            yield self._refusal(call, grpc.StatusCode.UNAVAILABLE, error)
        except WireError as error:
            yield self._refusal(call, grpc.StatusCode.INVALID_ARGUMENT, error)

    def _room(self, call: Call) -> Room:
        room = self._house.room(call.chain)
        if room is None:
            raise NotServed(call.chain)
        return room

    def _answers(
        self, call: Call, room: Room, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        match call.kind:
            case Kind.SESSION:
                return self._session(call, room, messages)
            case Kind.SOLVE:
                return self._solve(call, room, messages)
            case Kind.STATUS:
                return self._status(call, room, messages)
            case Kind.BRIDGE_SOLVE:
                return self._bridge_solve(call, room, messages)
            case _:
                return self._once(call, room)

    async def _once(self, call: Call, room: Room) -> _Conversation:
        """A request that needs nothing but a builder."""
        desk = room.desk
        if call.kind is Kind.BRIDGE:
            await check_owner(call, room, call.ref)
            yield answers.go_on(await desk.where.home_of(call.connection, call.ref))
            return
        client = client_of(call, room)
        waited = timedelta(0)
        if call.kind is Kind.HELLO:
            waited = await desk.admit(call.connection, call.identity, max_wait=room.brief.max_wait)
            # Builds say hello more than once; who has its slot does not wait again.
            before = room.waited.get(call.connection, timedelta(0))
            room.waited[call.connection] = max(waited, before)
            if waited >= WORTH_TELLING:
                log.info(
                    "%s: %s waited %.1f s", room.brief.key, client.name, waited.total_seconds()
                )
        if call.kind in (Kind.HELLO, Kind.QUESTION):
            left = max(timedelta(0), room.brief.max_wait - waited)
            yield answers.go_on(
                await desk.any_builder(call.connection, call.identity, max_wait=left)
            )
            return
        builder = desk.where.caretaker(call.connection)
        if builder is None:
            raise Unavailable(f"pool {room.brief.key} has no builder now; a build wakes it")
        yield answers.go_on(builder)

    async def _session(
        self, call: Call, room: Room, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        client = client_of(call, room)
        traits = Traits(context=call.shared_key, client=client.name)
        room.contexts[call.session] = call.shared_key
        try:
            place = await room.desk.follow(call.connection, call.identity, self._key(room, traits))
            try:
                yield answers.go_on(place.builder)
                async for message in messages:
                    if message.HasField("response_trailers"):
                        yield answers.response_trailers()
            finally:
                room.desk.end(call.connection)
        finally:
            room.contexts.pop(call.session, None)

    async def _solve(
        self, call: Call, room: Room, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        client = client_of(call, room)
        # Should this process end before its next answer, Envoy goes by the last one. Not where the
        # message has to be checked first.
        desk = room.desk
        await desk.approach(call.connection, call.identity)
        place_then = (
            desk.where.provisional(call.connection, call.identity) if client.may_export else None
        )
        async with room.reader(call.identity, MAX_MESSAGES):
            yield answers.go_on(place_then)
            message = unframe(await read_body(messages))
            solve = read_solve(message)
            check_solve(call, room, client, solve)
        traits = await self._traits(room, client, solve)
        key = self._key(room, traits)
        place = await desk.begin(
            call.connection, call.identity, key, solve.ref, is_internal=solve.is_internal
        )
        shared = self._share(room, client, traits, solve)
        build = self._build(call, room, client, solve, place, shared)
        try:
            yield answers.go_on_with(place.builder, with_share(message, solve, shared))
            del message  # it may be large, and the build long
            async for answer in messages:
                if answer.HasField("response_headers"):
                    said = headers_of(answer.response_headers)
                    yield answers.response_headers(self._outcome(build, said))
                elif answer.HasField("response_trailers"):
                    self._outcome(build, headers_of(answer.response_trailers))
                    yield answers.response_trailers()
        finally:
            desk.end(call.connection)
            if build.exports is not None and build.result != "succeeded":
                room.exported.pop(build.exports, None)
            self._ledger.close(build, now=self._clock())

    async def _status(
        self, call: Call, room: Room, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        """The progress of a build, of which only the message says which one it is."""
        async with room.reader(call.identity, MAX_QUESTIONS):
            yield answers.go_on(self._known_home(call, room))
            ref = read_status(unframe(await read_body(messages, longest=MAX_STATUS)))
        if room.brief.client(call.identity) is None:
            await check_owner(call, room, ref)
        yield answers.go_on_with(await room.desk.where.home_of(call.connection, ref))

    async def _bridge_solve(
        self, call: Call, room: Room, messages: AsyncIterator[ext_proc.ProcessingRequest]
    ) -> _Conversation:
        """A part of a build whose frontend runs at the client."""
        await check_owner(call, room, call.ref)
        builder = await room.desk.where.home_of(call.connection, call.ref)
        async with room.reader(call.identity, MAX_MESSAGES):
            yield answers.go_on(builder)
            build = self._ledger.find(room.brief.key, call.ref)
            message = unframe(await read_body(messages))
            asked = read_bridge_solve(message)
            if build is None or build.imports is None or asked.has_imports or asked.is_no_cache:
                yield answers.go_on_with(builder)
                return
            yield answers.go_on_with(builder, with_import(message, build.imports))

    def _known_home(self, call: Call, room: Room) -> Builder | None:
        """Where its solve goes, should this process end before its next answer."""
        where = room.desk.where
        home = where.known_home(call.connection, call.ref)
        return home or where.provisional(call.connection, call.identity)

    async def _traits(self, room: Room, client: ClientBrief, solve: Solve) -> Traits:
        # The session that says what the context is called comes at the same time.
        if not solve.source and not solve.images:
            until = perf_counter() + CONTEXT_PATIENCE
            while solve.session not in room.contexts and perf_counter() < until:  # noqa: ASYNC110 - mostly no turn
                await asyncio.sleep(0.002)
        return Traits(
            source=solve.source,
            part=solve.part,
            image=solve.images[0] if solve.images else "",
            context=room.contexts.get(solve.session, ""),
            client=client.name,
        )

    def _key(self, room: Room, traits: Traits) -> str | None:
        key = key_of(traits, room.brief.affinity)
        return None if key is None else f"{key[0].value}:{key[1]}"

    def _share(self, room: Room, client: ClientBrief, traits: Traits, solve: Solve) -> Share:
        if solve.is_internal:
            return NOTHING
        now, cache = self._clock(), room.brief.cache
        reference = reference_of(cache, traits) if cache is not None else None
        wish = Wish(
            imports=bool(solve.imports),
            exports=bool(solve.exports),
            is_no_cache=solve.is_no_cache,
        )
        exported = room.exported.get(reference) if reference is not None else None
        shared = share(room.brief, client, traits, wish, exported=exported, now=now)
        if shared.exports is not None:
            room.note_export(shared.exports, now)
        self._metrics.shared(room.brief.key, shared)
        return shared

    def _build(
        self,
        call: Call,
        room: Room,
        client: ClientBrief,
        solve: Solve,
        place: Place,
        shared: Share,
    ) -> Build:
        waited = timedelta(0)
        if not solve.is_internal:
            self._metrics.placed(room.brief.key, place.is_favourite)
            if call.connection in room.waited:  # not for each target of a bake
                waited = room.waited.pop(call.connection)
                self._metrics.waited(room.brief.key, client.name, waited)
        build = Build(
            ref=solve.ref,
            pool=room.brief.key,
            client=client.name,
            builder=place.builder,
            started=self._clock(),
            waited=waited,
            imports=shared.imports,
            exports=shared.exports,
            is_internal=solve.is_internal,
        )
        self._ledger.open(build)
        return build

    def _outcome(self, build: Build, said: dict[str, str]) -> dict[str, str] | None:
        """Notes how a build ended; headers to put in place where its builder is gone."""
        status = said.get("grpc-status")
        if status is None:
            return None
        build.status = status
        # Envoy's own words where it has lost the builder; daemons say nothing like it.
        if status != UNAVAILABLE or not said.get("grpc-message", "").startswith(ENVOY_LOST_IT):
            return None
        # At once, with what is known: the client's other streams end now, and it tells what it
        # hears first.
        build.trouble = self._house.known_trouble(build.builder) or "nobody says why yet"
        message = f"builder {build.builder.name} of pool {build.pool} is gone: {build.trouble}"
        return {"grpc-message": message}

    def _refusal(
        self, call: Call, code: grpc.StatusCode, error: Exception
    ) -> ext_proc.ProcessingResponse:
        room = self._house.room(call.chain)
        client = room.brief.client(call.identity) if room is not None else None
        name = client.name if client is not None else ""
        pool = room.brief.key if room is not None else pool_of("")
        said = (call.method, call.identity, error)
        log.warning("%s: refused %s to %s: %s", call.chain, *(str(each)[:TOLD] for each in said))
        self._metrics.refused(pool, code.name, client=name)
        return answers.refuse(code, str(error))
