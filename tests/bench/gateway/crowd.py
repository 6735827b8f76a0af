"""Many connections of one client, in a process of their own: ``python -m bench.gateway.crowd``.

It reads what to do from standard input, one JSON object, says "ready" once all is done that can be
done, and holds it until standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc.aio

from buildpool.buildkit import protobuf

CONTROL = "/moby.buildkit.v1.Control/"
MESSAGE = protobuf.field(1, bytes(1 << 20))
AT_ONCE = 100
"""Connections that are made at the same time."""
PATIENCE_SECONDS = 20.0
"""After which a connection that is not ready was refused."""


class Crowd:
    """The connections."""

    def __init__(self, port: int, name: str, ca: str, key: str, certificate: str) -> None:
        self._target, self._name = f"127.0.0.1:{port}", name
        self._credentials = grpc.ssl_channel_credentials(
            ca.encode(), key.encode(), certificate.encode()
        )
        self._goes_on: set[asyncio.Task[Any]] = set()
        self._channels: list[grpc.aio.Channel] = []
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def connect(self) -> grpc.aio.Channel | None:
        """One connection more; None where it was refused."""
        channel = grpc.aio.secure_channel(
            self._target,
            self._credentials,
            options=[
                ("grpc.ssl_target_name_override", self._name),
                ("grpc.default_authority", self._name),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        async with self._turns:
            try:
                await asyncio.wait_for(channel.channel_ready(), PATIENCE_SECONDS)
            except TimeoutError:
                await channel.close()
                return None
        self._channels.append(channel)
        return channel

    async def hold(self) -> bool:
        """Asks for a slot on a connection; whether it was let in."""
        channel = await self.connect()
        if channel is not None:
            self._begin(channel.unary_unary(f"{CONTROL}ListWorkers")(b""))
        return channel is not None

    async def upload(self) -> bool:
        """Sends without end on a connection that has a slot; whether it was let in."""
        channel = await self.connect()
        if channel is not None:
            await channel.unary_unary(f"{CONTROL}ListWorkers")(b"")
            self._begin(_read(channel.stream_stream(f"{CONTROL}Session")(_without_end())))
        return channel is not None

    def _begin(self, call: Any) -> None:
        async def go_on() -> None:
            with suppress(grpc.aio.AioRpcError):
                await call

        task = asyncio.create_task(go_on())
        self._goes_on.add(task)
        task.add_done_callback(self._goes_on.discard)


async def _read(answers: Any) -> None:
    async for _ in answers:
        pass


async def _without_end() -> AsyncIterator[bytes]:
    while True:
        yield MESSAGE


async def main() -> None:
    """What was asked for, held."""
    asked = json.loads(sys.stdin.readline())
    crowd = Crowd(**asked["at"])
    act = {"hold": crowd.hold, "upload": crowd.upload}[asked["act"]]
    let_in = await asyncio.gather(*(act() for _ in range(asked["times"])))
    print(f"ready {sum(let_in)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
