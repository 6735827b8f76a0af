"""What clients ask about builds that have ended: each question goes to the builder that knows.

No daemon is asked by a ref (``buildkit.history_requests``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.buildkit.history import METHOD as LISTEN
from buildpool.buildkit.history_requests import (
    EventsOf,
    digest_in,
    has_end,
    record_in,
    without_ref,
)
from buildpool.buildkit.methods import CONTENT, CONTROL
from buildpool.buildkit.solve_requests import frame
from buildpool.core.routing.values import Target
from buildpool.gateway.ext_proc import responses
from buildpool.gateway.ext_proc.authorization import check_care, client_of
from buildpool.gateway.ext_proc.bodies import read_message
from buildpool.gateway.ext_proc.calls import Call
from buildpool.gateway.pools.served import ServedPool

MAX_QUESTIONS: Final = 16
"""Questions about builds, of one client, that are read at once."""
MAX_QUESTION_BYTES: Final = 64 << 10
"""Length of a question about a build, which says little more than which one."""
UPDATE: Final = f"{CONTROL}UpdateBuildHistory"
CONTENT_READS: Final = (f"{CONTENT}Info", f"{CONTENT}Read")

Messages = AsyncIterator[ext_proc.ProcessingRequest]
Conversation = AsyncGenerator[ext_proc.ProcessingResponse, None]


async def keeper_of(call: Call, served: ServedPool, ref: str) -> Target:
    """The builder that has the record of a build; where none has, any may say so.

    Raises Unavailable where there is no builder.
    """
    locator = served.scheduler.locator
    found = locator.builder_of(ref)
    if found is None:
        found = locator.builder(await served.records.find(ref))
    found = found or locator.caretaker(call.connection)
    served.records.reads(call.connection, found.uid)
    return found


async def _listen(call: Call, served: ServedPool, messages: Messages) -> Conversation:
    """What has been built, and is."""
    check_care(call, served, client_of(call, served))
    locator, others = served.scheduler.locator, b""
    builder: Target | None = None
    async with served.bounds.reader(call.identity, MAX_QUESTIONS):
        yield responses.go_on()
        message, (ref, asked) = await read_message(
            messages, without_ref, longest=MAX_QUESTION_BYTES
        )
        if ref:
            builder = await keeper_of(call, served, ref)
        elif has_end(message):
            listing = await served.records.gather(call.connection, message)
            builder = locator.builder(listing.builder)
            others = listing.others if builder is not None else b""
    builder = builder or locator.caretaker(call.connection)
    yield responses.go_on_with(builder, frame(asked) if ref else None)
    events = EventsOf(ref)
    async for answer in messages:
        if answer.HasField("response_body"):
            piece = answer.response_body.body
            if ref:
                yield responses.response_body(events.passed(piece))
            else:  # the first piece begins with an event; what others list goes before it
                yield responses.response_body(others + piece if others else None)
                others = b""


async def _holder_of(call: Call, served: ServedPool, digest: str) -> Target:
    """The builder that has what a build has made: its attestations, its log."""
    locator = served.scheduler.locator
    known = locator.builder(served.records.holder_of(call.connection, digest))
    return known or locator.caretaker(call.connection)


async def _ask(
    named: Callable[[bytes], str],
    find: Callable[[Call, ServedPool, str], Awaitable[Target]],
    call: Call,
    served: ServedPool,
    messages: Messages,
) -> Conversation:
    """One question: what it is about, its message says, and who knows, ``find``."""
    check_care(call, served, client_of(call, served))
    async with served.bounds.reader(call.identity, MAX_QUESTIONS):
        yield responses.go_on()
        _, name = await read_message(messages, named, longest=MAX_QUESTION_BYTES)
        builder = await find(call, served, name)
    yield responses.go_on_with(builder)


ANSWERS: Final[Mapping[str, Callable[[Call, ServedPool, Messages], Conversation]]] = {
    LISTEN: _listen,
    UPDATE: partial(_ask, record_in, keeper_of),
    **dict.fromkeys(CONTENT_READS, partial(_ask, digest_in, _holder_of)),
}
"""By the path of the request."""
