"""The program beside the registry of a managed cache, on the same volume.

``/check/<repository>?reference=<tag or digest>`` tells whether a cache is whole: BuildKit fetches
layers at any time of a build, and fails the build if one of them is not what it should be. What is
not known within seconds is ``pending``: a build that waits for a cache longer than it takes without
one has no use for it.
``/status`` tells how things are. Anyone who asks must show a certificate of the pool's authority.

The port opens when the registry's is open, so that a TCP probe of it speaks for both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from aiohttp import web

from buildpool.process import serve, utc_now
from buildpool.sidecars.keeper.retention import Rules
from buildpool.sidecars.keeper.storage import RegistryStorage
from buildpool.sidecars.keeper.upkeep import State, Upkeep
from buildpool.sidecars.names import is_digest, is_repository, is_tag
from buildpool.sidecars.tls import server_context

RETRY: Final = timedelta(milliseconds=200)
"""Between two attempts to reach the registry."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """What the keeper is told when it is started."""

    storage: Path
    """The root directory of the registry's filesystem driver."""
    capacity: int
    """Bytes that the cache may take, if the file system has as many."""
    retention: timedelta
    """How long a tag is kept that no build uses."""
    grace: timedelta
    """How long anything just used or uploaded is kept; longer than any build lasts."""
    certificates: Path
    """Folder of ``ca.pem``, ``cert.pem`` and ``key.pem``."""
    port: int
    registry_port: int
    interval: timedelta = timedelta(seconds=60)
    """From the end of a round to the next one."""
    scrub: timedelta | None = timedelta(days=1)
    """How often each blob is read again; None: never, as long as its file is the same one."""
    clock: Callable[[], datetime] = utc_now


async def keep(settings: KeeperSettings) -> None:
    """Looks after the storage, and answers once the registry does, until it is cancelled.

    Raises OSError, ssl.SSLError among them, if the certificates cannot be used or the port is
    taken.
    """
    context = server_context(settings.certificates)
    rules = Rules(settings.capacity, settings.retention, settings.grace)
    upkeep = Upkeep(
        RegistryStorage(settings.storage),
        rules,
        interval=settings.interval,
        clock=settings.clock,
        scrub=settings.scrub,
    )
    rounds = asyncio.create_task(upkeep.run())
    try:
        await _until_open(settings.registry_port)
        runner = web.AppRunner(application(upkeep), access_log=None, shutdown_timeout=1)
        async with serve(runner, settings.port, ssl_context=context):
            log.info("the registry is up, and so is the keeper on port %d", settings.port)
            await rounds
    finally:
        rounds.cancel()
        with suppress(asyncio.CancelledError):
            await rounds


def application(upkeep: Upkeep) -> web.Application:
    """What answers."""

    async def check(request: web.Request) -> web.Response:
        repository = request.match_info["repository"]
        reference = request.query.get("reference", "")
        if not is_repository(repository) or not (is_digest(reference) or is_tag(reference)):
            return web.json_response({"reason": "invalid"}, status=400)
        checked = await upkeep.check(repository, reference)
        if checked.state is State.WHOLE:
            return web.json_response({"digest": checked.digest})
        message = {"message": checked.message} if checked.message else {}
        return web.json_response({"reason": checked.state} | message, status=404)

    async def status(_: web.Request) -> web.Response:
        return web.json_response(asdict(await upkeep.usage()))

    app = web.Application()
    app.router.add_get("/check/{repository:.+}", check)
    app.router.add_get("/status", status)
    return app


async def _until_open(port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("localhost", port)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            return
        await asyncio.sleep(RETRY.total_seconds())
