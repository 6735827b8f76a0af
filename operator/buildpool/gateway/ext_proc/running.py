"""A build that runs: what is answered until it ends, by itself or because its pool's users want it.

Envoy takes an answer that ends a request at any time, asked or not: its client then gets it, and
the builder sees the request end, and ends the build.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Final, TypeVar

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.core.routing.values import Target
from buildpool.gateway.ext_proc import responses
from buildpool.gateway.ext_proc.calls import headers_of
from buildpool.gateway.ext_proc.losses import loss_in
from buildpool.gateway.reports.builds import BuildRecord

Message = TypeVar("Message")
CANCELLED_WORDS: Final = "the build was cancelled by somebody who may change its pool"


async def to_its_end(
    build: BuildRecord,
    messages: AsyncIterator[ext_proc.ProcessingRequest],
    cancelled: asyncio.Event,
    *,
    known: Callable[[Target], str],
) -> AsyncGenerator[ext_proc.ProcessingResponse, None]:
    """The answers to what Envoy says of a build; notes how it ended.

    ``known``: what the cluster says of a builder that is in trouble, if anything.
    """
    async with aclosing(_until(cancelled, messages)) as said:
        async for message in said:
            if message is None and build.status is not None:
                return  # it has ended just before
            if message is None:
                build.status, build.is_cancelled = _CANCELLED, True
                yield responses.refuse(grpc.StatusCode.CANCELLED, CANCELLED_WORDS)
            elif message.HasField("response_headers"):
                headers = headers_of(message.response_headers)
                yield responses.response_headers(_outcome(build, headers, known))
            elif message.HasField("response_trailers"):
                _outcome(build, headers_of(message.response_trailers), known)
                yield responses.response_trailers()


_CANCELLED: Final = str(grpc.StatusCode.CANCELLED.value[0])


def _outcome(
    build: BuildRecord, said: dict[str, str], known: Callable[[Target], str]
) -> dict[str, str] | None:
    """Records how a build ended; returns headers that say so where its builder is lost."""
    status = said.get("grpc-status")
    if status is None:
        return None
    build.status = status
    # At once, with what is known: the client's other streams end now, too, and it shows the
    # first message that it gets.
    loss = loss_in(said, known=known(build.builder))
    if loss is None:
        return None
    build.trouble = loss.trouble or None
    return {"grpc-message": f"builder {build.builder.name} of pool {build.pool} {loss.words}"}


async def _until(
    end: asyncio.Event, messages: AsyncIterator[Message]
) -> AsyncGenerator[Message | None, None]:
    """The messages as they come; None as the last one where ``end`` was set first."""
    ending = asyncio.ensure_future(end.wait())
    coming: asyncio.Task[Message] | None = None
    try:
        while True:
            coming = asyncio.create_task(_next(messages))
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield None
                return
            try:
                message = coming.result()
            except StopAsyncIteration:
                return
            yield message
    finally:
        for task in (ending, coming):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _next(messages: AsyncIterator[Message]) -> Message:
    return await anext(messages)
