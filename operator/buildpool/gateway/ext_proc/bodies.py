"""The messages of requests that are read: as Envoy gathers them, and with a cache added."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import (
    MAX_MESSAGE_BYTES,
    CacheEntry,
    Solve,
    frame,
    unframe,
    with_cache,
    with_imports,
)
from buildpool.core.routing.sharing import Share
from buildpool.gateway.slots.refusals import Exhausted, Unreadable

T = TypeVar("T")
BODY_SECONDS: Final = 30.0
"""Time in which the message of a request has to come; Envoy keeps what it has of it."""
_HARMLESS: Final = {"ignore-error": "true"}
"""No build may fail because of a cache that nobody asked for."""


async def _no_wait(_: int) -> None:
    """What is short costs nobody any room."""


async def read_message(
    messages: AsyncIterator[ext_proc.ProcessingRequest],
    read: Callable[[bytes], T],
    *,
    longest: int = MAX_MESSAGE_BYTES,
    on_come: Callable[[int], Awaitable[None]] = _no_wait,
) -> tuple[bytes, T]:
    """The message of a request, and what is read of it. Raises Exhausted or Unreadable.

    ``on_come`` gets its length before anything is made of it, and may wait.
    """
    body = await _body(messages, longest)
    await on_come(len(body))
    with _refused():
        message = unframe(body)
        return message, read(message)


@contextmanager
def _refused() -> Iterator[None]:
    """What cannot be read is refused: raises Unreadable."""
    try:
        yield
    except WireError as error:
        raise Unreadable(str(error)) from error


async def _body(messages: AsyncIterator[ext_proc.ProcessingRequest], longest: int) -> bytes:
    """All of the body of a request, as Envoy gathers it."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for message in messages:
                if message.HasField("request_body"):
                    body: bytes = message.request_body.body
                    if len(body) > longest or not message.request_body.end_of_stream:
                        raise Exhausted(f"the request is longer than {longest} bytes")
                    return body
    except TimeoutError:
        raise Exhausted(f"the request did not come within {BODY_SECONDS:g} s") from None
    raise Unreadable("the request ended before its message was complete")


def with_share(message: bytes, solve: Solve, shared: Share) -> bytes | None:
    """The body of a solve with what is added to it; None where it stays as it is.

    Raises Unreadable.
    """
    exports = [_registry(each, mode="max", **_HARMLESS) for each in shared.exports]
    # Frontends that the client calls by itself get their imports when it does
    # (``with_shared_imports``).
    direct = shared.imports if solve.takes_imports_directly else ()
    imports = [_registry(each) for each in direct]
    if not exports and not imports:
        return None
    with _refused():
        return frame(with_cache(message, exports=exports, imports=imports))


def with_shared_imports(message: bytes, references: Sequence[str]) -> bytes:
    """The body of a solve of a part of a build, with caches to import. Raises Unreadable."""
    with _refused():
        return frame(with_imports(message, [_registry(each) for each in references]))


def _registry(reference: str, **attributes: str) -> CacheEntry:
    return CacheEntry("registry", {"ref": reference, **attributes})
