"""The rim: a port of this machine whose connections go through a port-forward of kubectl.

kubectl ends a port-forward, with all builds that run through it, when one connection breaks off
while something is on its way to it; clients break theirs off at the end of a build. So kubectl sees
connections only that end in order. While it starts again, who connects waits.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from buildpool.client.ways import LOOPBACK
from buildpool.core.errors import BuildpoolError

CHUNK_BYTES: Final = 256 * 1024
WAITS_SECONDS: Final = 30.0
"""How long a connection waits for kubectl to listen."""
DRAINS_SECONDS: Final = 30.0
"""How long what comes for a client that has gone is read."""


class Relay:
    """One port. For one event loop."""

    def __init__(self, port: int) -> None:
        """``port`` is that of this machine which clients know."""
        self._port = port
        self._server: asyncio.Server | None = None
        self._inner = 0
        self._tasks: set[asyncio.Task[None]] = set()
        """Of connections. Nothing else holds one whose client has gone: it would be collected."""
        self._is_open = asyncio.Event()

    async def lead_to(self, inner: int) -> None:
        """From now on connections go to this port, where kubectl listens; 0: it starts again."""
        self._inner = inner
        if not inner:
            self._is_open.clear()
            return
        self._is_open.set()
        if self._server is None:
            try:
                self._server = await asyncio.start_server(
                    self._take, LOOPBACK, self._port, limit=CHUNK_BYTES
                )
            except OSError as error:
                raise BuildpoolError(
                    f"port {self._port} of this machine cannot be listened on: {error.strerror}"
                ) from None

    def close(self) -> None:
        """Takes no connection any more."""
        if self._server is not None:
            self._server.close()

    def _take(self, here: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connected(here, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, here: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(WAITS_SECONDS):
                await self._is_open.wait()
            there, kubectl = await asyncio.open_connection(LOOPBACK, self._inner, limit=CHUNK_BYTES)
        except OSError:  # a timeout is one, too
            client.close()
            return
        up = asyncio.create_task(_pump(here, kubectl))
        try:
            if not await _pump(there, client):
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAINS_SECONDS):
                        while await there.read(CHUNK_BYTES):
                            pass
        finally:
            up.cancel()
            for writer in (client, kubectl):
                writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Passes on what comes, and its end; whether the sink took all of it."""
    is_whole = False
    try:
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
        is_whole = True
    except OSError:
        # The source has broken off, which ends it, or the sink has.
        pass
    finally:
        with suppress(OSError, RuntimeError):
            sink.write_eof()
    return is_whole
