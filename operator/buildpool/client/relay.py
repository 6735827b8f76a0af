"""The rim: a port of this machine behind which each connection has a port-forward of its own.

kubectl ends a port-forward, with all that goes through it, when one of its connections breaks off
while something is on its way: clients do that at the end of a build, and servers, too. So one build
would end another.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from buildpool.client.ways import LOOPBACK
from buildpool.core.errors import BuildpoolError

CHUNK_BYTES: Final = 256 * 1024
WAITS_SECONDS: Final = 30.0
"""How long a connection waits for a port-forward."""
DRAINS_SECONDS: Final = 10.0
"""How long what comes for a client that has gone is read: so that the other end closes in order."""


@dataclass(frozen=True, slots=True)
class PortForward:
    """One that runs, for one connection."""

    port: int
    """Where kubectl listens."""
    process: asyncio.Task[None]
    """Ends with kubectl; to cancel it ends kubectl."""
    is_taken: asyncio.Event = field(default_factory=asyncio.Event)


class Relay:
    """One port. For one event loop."""

    def __init__(self, port: int, *, drains_seconds: float = DRAINS_SECONDS) -> None:
        """``port`` is that of this machine which clients know."""
        self._port = port
        self._drains_seconds = drains_seconds
        self._server: asyncio.Server | None = None
        self._spare: PortForward | None = None
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        """Of connections. Nothing else holds one whose client has gone: it would be collected."""

    async def offer(self, forward: PortForward) -> None:
        """The next connection gets this port-forward. Returns once it has it, or once kubectl ends.

        From the first one on, the port is listened on; BuildpoolError: it cannot be.
        """
        async with self._changed:
            self._spare = forward
            self._changed.notify()
        if self._server is None:
            try:
                self._server = await asyncio.start_server(
                    self._take, LOOPBACK, self._port, limit=CHUNK_BYTES
                )
            except OSError as error:
                raise BuildpoolError(
                    f"port {self._port} of this machine cannot be listened on: {error.strerror}"
                ) from None
        taken = asyncio.create_task(forward.is_taken.wait())
        try:
            await asyncio.wait((taken, forward.process), return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()
        if self._spare is forward:
            self._spare = None

    async def close(self) -> None:
        """Takes no connection any more, and ends those that there are."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, here: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connected(here, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, here: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(WAITS_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self._spare is not None)
                forward, self._spare = self._spare, None
        except TimeoutError:
            client.close()
            return
        assert forward is not None  # noqa: S101 - it was waited for
        forward.is_taken.set()
        try:
            await _connect(here, client, forward.port, drains_seconds=self._drains_seconds)
        finally:
            forward.process.cancel()


async def _connect(
    here: asyncio.StreamReader, client: asyncio.StreamWriter, port: int, *, drains_seconds: float
) -> None:
    """Passes on all that comes, in both directions, until both have ended."""
    try:
        there, kubectl = await asyncio.open_connection(LOOPBACK, port, limit=CHUNK_BYTES)
    except OSError:
        client.close()
        return
    up = asyncio.create_task(_pump(here, kubectl))
    down = asyncio.create_task(_pump(there, client))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if up.done() and not up.result():  # the client has broken off: nobody reads what comes
            await asyncio.wait((down,), timeout=drains_seconds)
        elif not await down:
            with suppress(OSError):  # a timeout is one, too
                async with asyncio.timeout(drains_seconds):
                    while await there.read(CHUNK_BYTES):
                        pass
    finally:
        up.cancel()
        down.cancel()
        client.close()
        kubectl.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Passes on what comes, and its end; whether the sink took all of it."""
    is_whole = False
    with suppress(OSError):  # the source has broken off, which ends it, or the sink has
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
        is_whole = True
    with suppress(OSError, RuntimeError):
        sink.write_eof()
    return is_whole
