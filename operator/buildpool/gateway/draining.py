"""Ends a pod of the gateway in good order: no new connections, and what runs goes on to its end.

The pod's ``preStop`` hook. Envoy itself ends at once when it is told to, so it is told only after
this. It never cuts a connection.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from time import monotonic
from typing import Final

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout

POLL: Final = 1.0
"""Seconds between two looks."""
ANSWER: Final = 5.0
"""Seconds that Envoy has to answer; it may be busy with builds."""
PROOF: Final = 3
"""Looks in a row that must find nothing: between two requests of a build there is a moment."""
ACTIVE: Final = "http.gateway.downstream_rq_active"


async def drain(*, admin_port: int, settle: timedelta, patience: timedelta) -> bool:
    """Returns whether nothing runs any more; False after ``patience``.

    ``settle``: how long it takes until no node sends new connections here any more.
    """
    deadline = monotonic() + patience.total_seconds()
    await asyncio.sleep(settle.total_seconds())
    admin = f"http://127.0.0.1:{admin_port}"
    timeout = ClientTimeout(total=ANSWER)
    async with ClientSession(timeout=timeout, raise_for_status=True) as session:
        is_told, quiet = False, 0
        while quiet < PROOF:
            if monotonic() > deadline:
                return False
            try:
                if not is_told:
                    # Not ``graceful``: that says GOAWAY again and again to clients that build.
                    async with session.post(f"{admin}/drain_listeners"):
                        is_told = True
                quiet = 0 if await _active(session, admin) else quiet + 1
            except ClientConnectorError:
                return True  # Envoy is gone, and all connections with it
            except (ClientError, TimeoutError):
                quiet = 0  # no answer is no proof: this hook's end would be the end of builds
            await asyncio.sleep(POLL)
    return True


async def _active(session: ClientSession, admin: str) -> int:
    """Requests that go on, waiting ones included."""
    query = {"filter": f"^{re.escape(ACTIVE)}$"}
    async with session.get(f"{admin}/stats", params=query) as response:
        text = await response.text()
    return sum(int(line.rpartition(":")[2]) for line in text.splitlines() if ":" in line)
