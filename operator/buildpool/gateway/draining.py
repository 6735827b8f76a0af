"""Ends a pod of the gateway in good order: no new connections, and what runs goes on to its end.

The pod's ``preStop`` hook. Envoy itself ends at once when it gets a signal, which the kubelet sends
only after this. It never cuts a connection. A client that never ends its own, and builds again and
again, is told in the middle of the time to go elsewhere: until then builds that run can end on the
connection that they know.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Final

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout

POLL_SECONDS: Final = 1.0
"""Time between two looks."""
ANSWER_SECONDS: Final = 5.0
"""Time that Envoy has to answer; it may be busy with builds."""
QUIET_LOOKS: Final = 3
"""Looks in a row that must find nothing: between two requests of a build there is a moment."""
ACTIVE: Final = "http.gateway.downstream_rq_active"
"""Envoy's number of requests of clients that go on, those that wait included."""


async def drain(
    *, admin_port: int, settle: timedelta, patience: timedelta, goaway_file: Path | None = None
) -> bool:
    """Returns whether nothing runs any more; False after ``patience``.

    ``settle`` is how long it takes until no node sends new connections here any more.
    ``goaway_file`` is what Envoy reads (``xds.bootstrap``).
    """
    halfway = monotonic() + patience.total_seconds() / 2
    deadline = monotonic() + patience.total_seconds()
    await asyncio.sleep(settle.total_seconds())
    admin = f"http://127.0.0.1:{admin_port}"
    timeout = ClientTimeout(total=ANSWER_SECONDS)
    async with ClientSession(timeout=timeout, raise_for_status=True) as session:
        is_draining, quiet = False, 0
        while quiet < QUIET_LOOKS:
            if monotonic() > deadline:
                return False
            if goaway_file is not None and monotonic() > halfway:
                _say_goaway(goaway_file)
                goaway_file = None  # once
            try:
                if not is_draining:
                    # Not ``graceful``: that says GOAWAY again and again to clients that build.
                    async with session.post(f"{admin}/drain_listeners"):
                        is_draining = True
                quiet = 0 if await _active(session, admin) else quiet + 1
            except ClientConnectorError:
                return True  # Envoy is gone, and all connections with it
            except (ClientError, TimeoutError):
                quiet = 0  # no answer is no proof: this hook's end would be the end of builds
            await asyncio.sleep(POLL_SECONDS)
    return True


def _say_goaway(file: Path) -> None:
    """Writes what has Envoy send its clients elsewhere. Builds that run matter more than that."""
    new = file.with_suffix(".new")
    with suppress(OSError):
        new.write_text("1")
        new.replace(file)  # Envoy notices only what takes the file's place


async def _active(session: ClientSession, admin: str) -> int:
    """Requests that go on, waiting ones included."""
    query = {"filter": f"^{re.escape(ACTIVE)}$"}
    async with session.get(f"{admin}/stats", params=query) as response:
        text = await response.text()
    return sum(int(line.rpartition(":")[2]) for line in text.splitlines() if ":" in line)
