"""A process that is many daemons. Told what to do by lines of JSON, it answers with such lines."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from buildpool.core.pki import Bundle, KeyPair
from daemons import HistoryServer, grpc_server


async def main() -> None:
    first = json.loads(sys.stdin.readline())
    pair = KeyPair(first["certificate"].encode(), first["key"].encode())
    bundle = Bundle(pair, first["trust"].encode())
    servers, running = [HistoryServer() for _ in range(first["daemons"])], []
    for n, server in enumerate(servers):
        one, credentials = grpc_server(server.listen, bundle)
        server.port = one.add_secure_port(f"127.0.{n // 250}.{n % 250 + 1}:0", credentials)
        await one.start()
        running.append(one)
    say([f"127.0.{n // 250}.{n % 250 + 1}:{server.port}" for n, server in enumerate(servers)])
    while line := await asyncio.to_thread(sys.stdin.readline):
        storm = json.loads(line)
        say(await blow(servers, storm["rate"], storm["seconds"]))


async def blow(
    servers: list[HistoryServer], rate: float, seconds: float
) -> list[tuple[int, float]]:
    """Builds start or end, so many per second; which daemon's, and at what time."""
    told, began, turn = [], time.monotonic(), 0
    while (due := began + turn / rate) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        n = turn * 7 % len(servers)
        server = servers[n]
        told.append((n, time.monotonic()))
        if server.builds:
            server.end(*server.builds)
        else:
            server.start(f"build-{turn}")
        turn += 1
    return told


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


asyncio.run(main())
