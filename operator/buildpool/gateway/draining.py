"""Ends a pod of the gateway in good order: no new connections, and what runs goes on to its end.

The pod's ``preStop`` hook. Envoy itself ends at once when it gets a signal, which the kubelet sends
only after this. It never cuts a connection. A client that never ends its own, and builds again and
again, is told in the middle of the time to go elsewhere: until then builds that run can end on the
connection that they know. Where nothing runs any more, those who keep a connection are told so
before it ends under them: their next build may be about to begin.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Final

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    UnixConnector,
)

POLL_SECONDS: Final = 1.0
"""Time between two looks."""
ANSWER_SECONDS: Final = 5.0
"""Time that Envoy has to answer; it may be busy with builds."""
QUIET_LOOKS: Final = 3
"""Looks in a row that must find nothing: between two requests of a build there is a moment."""
ACTIVE: Final = "http.gateway.downstream_rq_active"
"""Envoy's number of requests of clients that go on, those that wait included,"""
CONNECTIONS: Final = "http.gateway.downstream_cx_active"
"""and of their connections."""
_GONE: Final = (ConnectionRefusedError, FileNotFoundError)
"""What the socket of a process that has ended says; one that is busy says something else."""
TAKEN_SECONDS: Final = 15.0
"""Time in which clients leave, once they are told to: Envoy tells those that are idle after five
seconds, and closes their connections after five more."""


async def drain(
    *, admin: Path, settle: timedelta, patience: timedelta, goaway_file: Path | None = None
) -> bool:
    """Returns whether nothing runs any more; False after ``patience``.

    ``settle`` is how long it takes until no node sends new connections here any more.
    ``admin`` is the socket of Envoy's administration, and ``goaway_file`` what it reads
    (``xds.bootstrap``).
    """
    halfway = monotonic() + patience.total_seconds() / 2
    deadline = monotonic() + patience.total_seconds()
    await asyncio.sleep(settle.total_seconds())
    async with ClientSession(
        "http://envoy",
        connector=UnixConnector(str(admin)),
        timeout=ClientTimeout(total=ANSWER_SECONDS),
        raise_for_status=True,
    ) as session:
        is_draining, quiet, connections = False, 0, 0
        said: float | None = None
        while monotonic() <= deadline:
            try:
                if not is_draining:
                    # Not ``graceful``: that says GOAWAY again and again to clients that build.
                    async with session.post("/drain_listeners"):
                        is_draining = True
                active, connections = await _counts(session)
                quiet = 0 if active else quiet + 1
            except (ClientError, TimeoutError, ValueError) as error:
                if isinstance(error, ClientConnectorError) and isinstance(error.os_error, _GONE):
                    return True  # Envoy is gone, and all connections with it
                # No answer that can be read is no proof: this hook's end would be that of builds.
                quiet = 0
            is_quiet, now = quiet >= QUIET_LOOKS, monotonic()
            is_taken = not connections or (said is not None and now - said > TAKEN_SECONDS)
            if is_quiet and (is_taken or goaway_file is None):
                return True
            if said is None and goaway_file is not None and (is_quiet or now > halfway):
                _say_goaway(goaway_file)
                said = now
            await asyncio.sleep(POLL_SECONDS)
    return quiet >= QUIET_LOOKS


def _say_goaway(file: Path) -> None:
    """Writes what has Envoy send its clients elsewhere. Builds that run matter more than that."""
    new = file.with_suffix(".new")
    with suppress(OSError):
        new.write_text("1")
        new.replace(file)  # Envoy notices only what takes the file's place


async def _counts(session: ClientSession) -> tuple[int, int]:
    """Requests that go on, waiting ones included, and connections. ValueError: no such numbers."""
    query = {"filter": "|".join(f"^{re.escape(name)}$" for name in (ACTIVE, CONNECTIONS))}
    async with session.get("/stats", params=query) as response:
        lines = (await response.text()).splitlines()
    said = {name: number for name, _, number in (line.partition(":") for line in lines)}
    return int(said.get(ACTIVE, "0")), int(said.get(CONNECTIONS, "0"))
