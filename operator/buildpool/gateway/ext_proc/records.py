"""What clients ask about builds that have ended: each question goes to the builder that knows.

No daemon is asked by a ref (``buildkit.history_requests``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.buildkit.history_requests import digest_in, read_request, record_in
from buildpool.buildkit.methods import CONTENT, CONTROL
from buildpool.core.routing.values import Target
from buildpool.gateway.ext_proc import responses
from buildpool.gateway.ext_proc.authorization import check_care, client_of
from buildpool.gateway.ext_proc.bodies import read_message
from buildpool.gateway.ext_proc.calls import Call
from buildpool.gateway.pools.served import ServedPool
from buildpool.gateway.pools.tickets import HEADER, Admitted, Tickets

MAX_QUESTIONS: Final = 16
"""Questions about builds, of one client, that are read at once."""
MAX_QUESTION_BYTES: Final = 64 << 10
"""Length of a question about a build, which says little more than which one."""
UPDATE: Final = f"{CONTROL}UpdateBuildHistory"
CONTENT_READS: Final = (f"{CONTENT}Info", f"{CONTENT}Read")

Messages = AsyncIterator[ext_proc.ProcessingRequest]
Conversation = AsyncGenerator[ext_proc.ProcessingResponse, None]


async def keeper_of(call: Call, served: ServedPool, ref: str) -> Target:
    """The builder that has the record of a build, to change it; where none has, any may say so.

    Raises Unavailable where there is no builder.
    """
    locator = served.scheduler.locator
    found = locator.builder_of(ref) or await find_record(served, ref)
    found = found or locator.caretaker(call.connection)
    served.records.fleet.changes(found.uid)
    return found


async def find_record(served: ServedPool, ref: str) -> Target | None:
    """The builder that has the record of a build; None where none has."""
    return served.scheduler.locator.builder(await served.records.find(ref))


async def _holder_of(call: Call, served: ServedPool, digest: str) -> Target:
    """The builder that has what a build has made: its attestations, its log."""
    locator = served.scheduler.locator
    found = locator.builder(await served.records.holder_of(digest))
    return found or locator.caretaker(call.connection)


async def listen(
    tickets: Tickets, call: Call, served: ServedPool, messages: Messages
) -> Conversation:
    """What has been built, and is: the router answers by itself (``gateway.histories``)."""
    check_care(call, served, client_of(call, served))
    admitted = Admitted(served.brief.key, call.identity)
    async with served.bounds.reader(call.identity, "requests for lists", MAX_QUESTIONS):
        ticket = tickets.issue(admitted)
        try:
            yield responses.go_on(headers={HEADER: ticket})
            _, admitted.request = await read_message(
                messages, read_request, longest=MAX_QUESTION_BYTES
            )
        except BaseException:
            tickets.take(ticket)  # nobody will come with it
            raise
    yield responses.go_on_as_it_is()


async def _ask(
    named: Callable[[bytes], str],
    find: Callable[[Call, ServedPool, str], Awaitable[Target]],
    call: Call,
    served: ServedPool,
    messages: Messages,
) -> Conversation:
    """One question: what it is about, its message says, and who knows, ``find``."""
    check_care(call, served, client_of(call, served))
    async with served.bounds.reader(call.identity, "questions about records", MAX_QUESTIONS):
        yield responses.go_on()
        _, name = await read_message(messages, named, longest=MAX_QUESTION_BYTES)
        builder = await find(call, served, name)
    yield responses.go_on_with(builder)


ANSWERS: Final[Mapping[str, Callable[[Call, ServedPool, Messages], Conversation]]] = {
    UPDATE: partial(_ask, record_in, keeper_of),
    **dict.fromkeys(CONTENT_READS, partial(_ask, digest_in, _holder_of)),
}
"""By the path of the request."""
