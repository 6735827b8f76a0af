"""``/healthz``: whether this process does what it should, leading or waiting to lead.

For the kubelet. It must never ask the API server anything: a cluster in trouble is no reason to
restart the operator, which could only lose time by it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

MAX_PASS_SECONDS: Final = 600.0
"""A pass that takes longer hangs: every request in it has a time limit."""


@asynccontextmanager
async def health_server(port: int, oldest_pass: Callable[[], float]) -> AsyncIterator[None]:
    """Serves for the length of a block; ``oldest_pass`` is the age of the oldest running pass."""

    async def healthz(_: web.Request) -> web.Response:
        age = oldest_pass()
        if age > MAX_PASS_SECONDS:
            return web.Response(status=503, text=f"a pass has been running for {age:.0f} s\n")
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the kubelet asks from outside
        yield
    finally:
        await runner.cleanup()
