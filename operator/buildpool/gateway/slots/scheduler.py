"""Where the connections of one pool wait, and get a slot and a builder.

The account says who is next; this lets them wait for it. Whatever changes (a connection comes or
ends, a builder comes or goes, a daemon tells of its builds, time passes) is a turn, in which slots
are given. Nothing here knows Envoy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, TypeVar

from buildpool.core.api.duration import format_duration
from buildpool.core.naming import PoolKey
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.pool_state import Placement, PoolState
from buildpool.core.routing.values import Backlog, Target
from buildpool.gateway.slots.changes import Changes
from buildpool.gateway.slots.locator import BuildLocator
from buildpool.gateway.slots.refusals import Exhausted, NotServed, Reminder, Unavailable
from buildpool.gateway.slots.store import ConnectionStore, Home

T = TypeVar("T")
SESSION_PATIENCE: Final = 8.0
"""Seconds that a session may wait: its client gives up after ten."""
SOLVE_PATIENCE: Final = 2.0
"""Seconds that a session waits for the solve that says what is built."""


class SlotScheduler:
    """One pool's connections to this gateway. For one event loop."""

    def __init__(
        self,
        pool: PoolKey,
        state: Callable[[], PoolState],
        *,
        clock: Callable[[], datetime],
        memory: ConnectionStore,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """``told`` is called when the backlog has changed."""
        self.pool = pool
        self.connections = Connections()
        self._changes = Changes()
        self.locator = BuildLocator(
            pool, self.connections, state, changes=self._changes, note=self._note
        )
        self._memory = memory
        self._state = state
        self._clock = clock
        self._told = told
        self._admissions: dict[str, asyncio.Future[None]] = {}
        self._waiters: Counter[str] = Counter()
        """Requests that wait for an admission, by connection."""
        self._callers: dict[object, tuple[str, datetime]] = {}
        """Who waits for any builder at all, and since when."""
        self._reminder = Reminder(clock)
        self._settled: dict[str, asyncio.Event] = {}
        self._last_admission: datetime | None = None
        self._last_told = Backlog()
        self._dismissals = 0
        for home in memory.recall(pool):
            self.connections.resume(*home, now=clock())

    async def admit(self, connection: str, client: str, *, max_wait: timedelta) -> timedelta:
        """Waits until the connection has a slot; returns for how long it did.

        Raises Exhausted, or Unavailable where the pool goes. Where the caller is cancelled, the
        connection has given up.
        """
        since = self._clock()
        if not self.connections.is_admitted(connection):
            self._reminder.check(connection)
        self.connections.arrive(connection, client, now=since)
        if self.connections.is_admitted(connection):
            return timedelta(0)
        admission = self._admissions.setdefault(
            connection, asyncio.get_running_loop().create_future()
        )
        self.dispatch()
        self._waiters[connection] += 1
        is_admitted = False
        try:
            async with asyncio.timeout(max_wait.total_seconds()):
                await asyncio.shield(admission)
            is_admitted = True
        except TimeoutError:
            raise self._reminder.told(connection, self._exhausted(max_wait)) from None
        except asyncio.CancelledError:
            if admission.cancelled():  # not this request: the connection has ended
                raise Unavailable(f"pool {self.pool}: the connection has ended") from None
            raise
        finally:
            self._waiters[connection] -= 1
            if not self._waiters[connection]:
                del self._waiters[connection]
                if not is_admitted:
                    self._withdraw(connection)
        return self._clock() - since

    async def any_builder(self, connection: str, client: str, *, max_wait: timedelta) -> Target:
        """The builder to answer what is no build: the connection's own, or the least loaded.

        Where none takes builds, one is waited for, and so woken. Raises as ``admit``.
        """
        caller, dismissals = object(), self._dismissals
        self._reminder.check(connection)
        try:
            async with asyncio.timeout(max_wait.total_seconds()):
                while (found := self.locator.present(connection)) is None:
                    self._callers.setdefault(caller, (client, self._clock()))
                    self._tell()
                    await self._changes.next()
                    if dismissals != self._dismissals:
                        raise NotServed(self.pool)
        except TimeoutError:
            raise Exhausted(self._exhausted(max_wait)) from None
        finally:
            if self._callers.pop(caller, None) is not None:
                self._tell()
        return found

    async def wait_for_slot(self, connection: str, client: str) -> None:
        """Waits until a solve can begin, before its message is read. Raises as ``begin``."""
        await self._soon(
            connection,
            lambda: self.connections.claim(connection, client, now=self._clock()) or None,
        )

    async def begin(
        self,
        connection: str,
        client: str,
        key: str | None,
        ref: str | None = None,
        *,
        is_internal: bool = False,
    ) -> Placement:
        """A solve begins; where. Each has its ``end``.

        Raises Exhausted, within seconds, or Unavailable where the pool goes.
        """
        placement = await self._soon(
            connection,
            lambda: self.connections.begin(
                connection,
                client,
                key,
                self._state(),
                ref=ref,
                is_internal=is_internal,
                now=self._clock(),
            ),
        )
        self.locator.decided(connection)
        self._note(Home(connection, client, placement.builder.uid, ref or ""))
        self._event(connection).set()
        self._grant(connection)
        self.dispatch()
        return placement

    async def follow(self, connection: str, client: str, key: str | None) -> Placement:
        """A session begins: where its solve does, for which it waits a little. As ``begin``."""
        if self.connections.home_of(connection, self._state()) is None:
            try:
                async with asyncio.timeout(SOLVE_PATIENCE):
                    await self._event(connection).wait()
            except TimeoutError:
                pass
        return await self.begin(connection, client, key)

    def end(self, connection: str, ref: str | None = None) -> None:
        """A session, or the solve of ``ref``, has ended."""
        if ref:
            self._memory.ended(self.pool, connection, ref)
        has_slot = self.connections.end(connection, ref, now=self._clock())
        if has_slot or not self.connections.is_admitted(connection):
            self._memory.drop(self.pool, connection)  # it has no builder any more
        if has_slot:
            self._note(Home(connection, self.connections.client_of(connection)))
        settled = self._settled.get(connection)  # None where it has left before this end came
        if settled is not None and not self.connections.is_building(connection):
            settled.clear()
        self.dispatch()

    def leave(self, connection: str) -> None:
        """A connection has ended."""
        self._reminder.forget(connection)
        self._withdraw(connection)

    def _withdraw(self, connection: str) -> None:
        """A connection has ended, or has given up."""
        self.connections.leave(connection)
        self.locator.decided(connection)
        self._memory.drop(self.pool, connection)
        self._settled.pop(connection, None)
        admission = self._admissions.pop(connection, None)
        if admission is not None and not admission.done():
            admission.cancel()
        self.dispatch()

    def dismiss(self) -> None:
        """The pool goes: who waits is told so, and what builds goes on."""
        self._dismissals += 1
        for admission in self._admissions.values():
            if not admission.done():
                admission.set_exception(NotServed(self.pool))
        self.dispatch()

    def forget_unknown(self) -> None:
        """Forgets connections that the account does not know."""
        known = self.connections.is_known
        self._settled = {name: event for name, event in self._settled.items() if known(name)}
        self.locator.forget_unknown()
        self._reminder.forget_old()

    def dispatch(self) -> None:
        """Gives the slots that are free to those who wait, and wakes who waits for a change."""
        with suppress(NotServed):  # then there is none to give, and who ends goes on ending
            self._give()
        self._changes.tell()
        self._tell()

    def _give(self) -> None:
        now = self._clock()
        for connection in self.connections.reclaim(self._state(), now=now):
            self._memory.drop(self.pool, connection)
        for connection in self.connections.admit(self._state(), now=now):
            self._last_admission = now
            self._note(Home(connection, self.connections.client_of(connection)))
            self._grant(connection)

    @property
    def is_busy(self) -> bool:
        """Whether anybody waits or builds."""
        state = self._state()
        return self.connections.is_busy(state) or any(state.builds.values())

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many wait of each identity that waits."""
        clients = Counter(waiting.client for waiting in self.connections.waiting())
        return clients + Counter(client for client, _ in self._callers.values())

    @property
    def backlog(self) -> Backlog:
        """Who waits now, and who shares a slot."""
        shared = self._shared()
        arrivals = [waiting.since for waiting in self.connections.waiting()]
        arrivals += [since for _, since in self._callers.values()]
        if not arrivals:
            return Backlog(shared=shared)
        since = max(min(arrivals), self._last_admission or min(arrivals))
        return Backlog(len(arrivals), since, shared)

    def _shared(self) -> int:
        with suppress(NotServed):  # then it is said of nobody
            return self.connections.shared(self._state())
        return 0

    def _note(self, home: Home) -> None:
        self._memory.keep(self.pool, home, now=self._clock())

    async def _soon(self, connection: str, attempt: Callable[[], T | None]) -> T:
        """What an attempt to begin comes to, now or after some turn.

        Raises Exhausted, or NotServed where the pool goes meanwhile.
        """
        has_asked, dismissals = False, self._dismissals
        try:
            async with asyncio.timeout(SESSION_PATIENCE):
                while (found := attempt()) is None:
                    if not has_asked:
                        has_asked = True  # once: each turn wakes the others who wait here
                        self.dispatch()
                        if self.connections.is_admitted(connection):
                            continue
                    await self._changes.next()
                    if dismissals != self._dismissals:
                        raise NotServed(self.pool)
                return found
        except TimeoutError:
            raise Exhausted(
                f"pool {self.pool}: this connection gave its slot back and none is free now; "
                "connect again to wait for one"
            ) from None
        finally:
            if connection not in self._waiters:
                self.connections.give_up(connection, now=self._clock())

    def _grant(self, connection: str) -> None:
        """The requests that wait for this connection's slot wait no more."""
        admission = self._admissions.pop(connection, None)
        if admission is not None and not admission.done():
            admission.set_result(None)

    def _tell(self) -> None:
        backlog = self.backlog
        if backlog != self._last_told:
            self._last_told = backlog
            self._told()

    def _event(self, connection: str) -> asyncio.Event:
        return self._settled.setdefault(connection, asyncio.Event())

    def _exhausted(self, waited: timedelta) -> str:
        state = self._state()
        busy = sum(self.connections.used(b, state) >= state.slots for b in state.serving)
        found = (
            f"{busy} of {len(state.serving)} builders busy" if state.serving else "no builder ready"
        )
        return f"pool {self.pool}: waited {format_duration(waited)} for a slot, {found}"
