"""What the clients of one pool call the contexts that their sessions upload.

A build that names no source and no image is known by its context, which its session alone says. A
session is one client's: what another client says of a session by the same id is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from buildpool.gateway.slots.changes import Changes


class SessionContexts:
    """The contexts of the sessions that are open. For one event loop."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], list[str]] = {}
        """Contexts by client and session: a client may open two sessions of one id."""
        self._changes = Changes()

    @contextmanager
    def session(self, client: str, session: str, context: str) -> Iterator[None]:
        """A session of a client is open for the length of the block. One without an id is none."""
        if not session:
            yield
            return
        contexts = self._open.setdefault((client, session), [])
        contexts.append(context)
        self._changes.tell()
        try:
            yield
        finally:
            contexts.remove(context)
            if not contexts:
                del self._open[client, session]

    def known(self, client: str, session: str) -> str:
        """The context of a session; empty where the session is not open, or names none."""
        return self._open.get((client, session), [""])[-1]

    async def soon_known(self, client: str, session: str, *, seconds: float) -> str:
        """The context of a session that may open a moment later than what asks for it."""
        if session:
            await self._changes.until(lambda: self._open.get((client, session)), patience=seconds)
        return self.known(client, session)
