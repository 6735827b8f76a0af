"""Which builder answers a request of one pool that needs no slot of its own.

What is asked about a build goes where the build is, also where that is not decided yet, or where
this process may end before it is. Nothing here gives slots; ``scheduler`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from buildpool.core.naming import PoolKey
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.pool_state import PoolState
from buildpool.core.routing.values import Target
from buildpool.gateway.slots.arrivals import Arrivals
from buildpool.gateway.slots.changes import Changes
from buildpool.gateway.slots.refusals import Refused, SlotLost, Unavailable
from buildpool.gateway.slots.store import Home

PATIENCE_SECONDS: Final = 8.0
"""Seconds that a request waits for the build that it is about: its client gives up after ten."""

COMING_SECONDS: Final = 60.0
"""Seconds after which a build counts as none of the solves that come: they may come without end."""
TOGETHER_SECONDS: Final = 1.5
"""Seconds between requests that a client makes at once,"""
MOMENT_SECONDS: Final = 0.1
"""or mostly makes so."""
DAEMON_SECONDS: Final = 5.0
"""Seconds in which the solve of a build comes that is asked about. A daemon waits for three, and
Envoy and a busy router may add some to those between the two."""


class BuildLocator:
    """Where the connections of a pool, and their builds, are. For one event loop."""

    def __init__(
        self,
        pool: PoolKey,
        connections: Connections,
        state: Callable[[], PoolState],
        *,
        changes: Changes,
        note: Callable[[Home], None],
    ) -> None:
        """``note`` is given what the next process has to know."""
        self._pool = pool
        self._connections = connections
        self._state = state
        self._changes = changes
        self._note = note
        self._provisional: dict[str, str] = {}
        """Uids of builders: where solves go should this process end before it decides."""
        self._solves = Arrivals()
        self._refusals: dict[str, Refused] = {}
        """What was said last to connections whose sessions or solves were refused,"""
        self._sessions: dict[str, Refused] = {}
        """and to those whose sessions were."""

    def present(self, connection: str) -> Target | None:
        """To answer what is no build: the connection's own builder, or the least loaded.

        None where there is none now.
        """
        state = self._state()
        own = self._connections.home_of(connection, state)
        if own is not None:
            return own
        return min(
            state.takers,
            key=lambda builder: (self._connections.used(builder, state), builder.name),
            default=None,
        )

    def caretaker(self, connection: str) -> Target:
        """To answer what is asked after a build: that one's builder, though it may be going.

        Raises Unavailable where there is none.
        """
        last = self._connections.last_of(connection, self._state())
        found = last or self.present(connection)
        if found is None:
            raise Unavailable(f"pool {self._pool} has no builder now; a build wakes it")
        return found

    def provisional(self, connection: str, client: str) -> Target | None:
        """Where a solve goes should this process end before its place is decided; None: nowhere.

        It is noted, so that its session follows, and what is asked about it.
        """
        state = self._state()
        own = self._connections.home_of(connection, state)
        if own is not None or not self._connections.is_admitted(connection):
            return own
        found = state.builder(self._provisional.get(connection, ""))
        found = found or self.present(connection)
        if found is not None:
            self._provisional[connection] = found.uid
            self._note(Home(connection, client, found.uid))
        return found

    def known_home(self, connection: str, ref: str) -> Target | None:
        """Where a request about a build goes should this process end now; None: nowhere."""
        state = self._state()
        found = self._running(connection, ref) or self._connections.home_of(connection, state)
        return found or state.builder(self._provisional.get(connection, ""))

    async def home_of(self, connection: str, ref: str) -> Target:
        """The builder of a request about a build that runs: where it runs, or its connection is.

        What is asked about a build can come before the build itself has its builder, which may be
        another than that of the connection's last one. Where there is no such build, any builder
        may say so. Raises Unavailable or Exhausted, within seconds.
        """
        if not await self._may_come(connection, ref):
            return self.caretaker(connection)
        is_attached = self._connections.is_attached
        await self._begins(connection, ref)
        found = await self._changes.until(
            lambda: self._running(connection, ref), patience=PATIENCE_SECONDS
        ) or self.known_home(connection, ref)
        if connection in self._solves and (found is None or is_attached(connection)):
            raise SlotLost(self._pool)  # its solve waits on, but who asks so could not
        if found is None:
            raise Unavailable(f"pool {self._pool}: no builder is known to run the build {ref}")
        return found

    async def teller_of(
        self, connection: str, ref: str, find_record: Callable[[], Awaitable[Target | None]]
    ) -> Target:
        """The builder that tells how a build goes: where it runs, or its connection is.

        A connection that builds nothing, though it may have said hello, may ask about any build.
        ``find_record`` says which builder has a record of it. Where none has, any builder may say
        so. Of a build that waits for its slot it is told once that begins,
        or with what it is refused. Raises as that, or Unavailable.
        """
        builds = partial(self._builds, connection, ref)
        # The question comes together with its build, and may come first.
        for patience in (MOMENT_SECONDS, TOGETHER_SECONDS):
            if await self._soon(builds, patience=patience):
                await self._has_its_slot(connection)
                return await self.home_of(connection, ref)
            # It is worth a question to all daemons whether it has ended already.
            if patience == MOMENT_SECONDS and (found := await find_record()):
                return found
        return self.caretaker(connection)

    def _builds(self, connection: str, ref: str) -> bool:
        """Whether a build runs, or its connection builds or is about to."""
        is_building = connection in self._solves or self._connections.is_building(connection)
        return is_building or self.runs(ref)

    async def _may_come(self, connection: str, ref: str) -> bool:
        """Whether a build runs or comes, as far as anybody can tell; waits a little for its solve.

        It may run on a builder that has not said so yet. What names no build is about none.
        """

        def may_run() -> bool:
            state = self._state()
            asked = {builder.uid for builder in state.builders if not builder.is_leaving}
            return self._builds(connection, ref) or not (state.is_complete and asked <= state.heard)

        return bool(ref) and await self._soon(may_run, patience=DAEMON_SECONDS)

    async def _soon(self, is_so: Callable[[], bool], *, patience: float) -> bool:
        """Whether something is so within this time."""
        # Not each solve that comes is told of as a change, so the last look is at the end.
        return await self._changes.until(lambda: is_so() or None, patience=patience) or is_so()

    async def solve_begins(self, connection: str) -> None:
        """Waits while the solve of a connection waits for its slot.

        What is asked about it goes nowhere meanwhile, not even should this process end. Raises what
        the solve is refused with.
        """
        has_slot = self._connections.is_admitted
        is_coming = lambda: connection in self._solves or has_slot(connection) or None  # noqa: E731
        await self._changes.until(is_coming, patience=MOMENT_SECONDS)
        await self._has_its_slot(connection)

    async def _has_its_slot(self, connection: str) -> None:
        before = self.refusal(connection)
        while connection in self._solves and not self._connections.is_admitted(connection):
            await self._changes.next()
        refusal = self.refusal(connection)
        if refusal is not None and refusal is not before:
            raise refusal.again()

    def builder(self, uid: str) -> Target | None:
        """The builder with this pod; None where it is gone."""
        return self._state().builder(uid)

    def builder_of(self, ref: str) -> Target | None:
        """Where a build runs; None where that is not known, or it has ended."""
        return self._connections.running(ref, self._state())

    @contextmanager
    def solving(self, connection: str) -> Iterator[None]:
        """A solve has come, and begins before this is left: what is asked about it waits."""
        self._solves.come(connection)
        self._changed(connection)
        try:
            yield
        except Refused as refused:
            self._refusals[connection] = refused.again()
            raise
        finally:
            self._solves.over(connection)
            self._changed(connection)

    def _changed(self, connection: str) -> None:
        if not self._connections.is_admitted(connection):  # then nobody waits for it
            self._changes.tell()

    async def _begins(self, connection: str, ref: str) -> None:
        """Waits while the solve of a build may have come and not begun, on one that has a slot."""
        is_known = not ref or self._connections.owner_of(ref) is not None
        if not is_known and self._connections.is_admitted(connection):
            # It may be none of those that come, and these may come without end.
            with suppress(TimeoutError):
                async with asyncio.timeout(COMING_SECONDS):
                    await self._solves.begins(connection, ref)

    def refuse(self, connection: str, refused: Refused) -> Refused:
        """A session is refused: what of its connection waits for it is refused likewise."""
        self._refusals[connection] = self._sessions[connection] = refused.again()
        self._changes.tell()
        return refused

    def refusal_of_session(self, connection: str) -> Refused | None:
        """The same of its session: then no solve of the connection can go on."""
        return self._sessions.get(connection)

    def refusal(self, connection: str) -> Refused | None:
        """What a connection was refused with last."""
        return self._refusals.get(connection)

    @property
    def hears_all(self) -> bool:
        """Whether every builder says which builds it runs, so that there are no others."""
        state = self._state()
        return state.is_complete and state.heard >= {builder.uid for builder in state.builders}

    def runs(self, ref: str) -> bool:
        """Whether a builder runs this build, whoever began it."""
        return self._connections.runs(ref, self._state()) is not None

    async def owner_of(self, connection: str, ref: str) -> str | None:
        """Whose build it is, for who may ask before it has begun; None where it began elsewhere."""
        if not await self._may_come(connection, ref):
            return None
        await self._begins(connection, ref)
        nobody = ""
        find = lambda: self._connections.owner_of(ref) or (nobody if self.runs(ref) else None)  # noqa: E731
        return await self._changes.until(find, patience=PATIENCE_SECONDS) or None

    def decided(self, connection: str, ref: str = "") -> None:
        """What was said of a connection for the time being is of no use any more.

        ``ref``: the build that it has begun, if any.
        """
        self._solves.begun(connection, ref)
        self._provisional.pop(connection, None)
        self._refusals.pop(connection, None)
        self._sessions.pop(connection, None)

    def forget_unknown(self) -> None:
        """Forgets connections that the account does not know."""
        known = self._connections.is_known
        self._provisional = {name: uid for name, uid in self._provisional.items() if known(name)}
        self._refusals = {name: why for name, why in self._refusals.items() if known(name)}
        self._sessions = {name: why for name, why in self._sessions.items() if known(name)}

    def _running(self, connection: str, ref: str) -> Target | None:
        """Where a build runs, or all that its connection does."""
        state = self._state()
        found = self._connections.runs(ref, state) if ref else None
        if found is None and self._connections.is_building(connection):
            found = self._connections.home_of(connection, state)
        return found
