"""Where the connections of one pool wait, and get a slot and a builder.

The account says who is next; this lets them wait for it. Whatever changes (a connection comes or
ends, a builder comes or goes, a daemon tells of its builds, time passes) is a turn, in which slots
are given. Nothing here knows Envoy.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from buildpool.core.naming import PoolKey
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.pool_state import Placement, PoolState
from buildpool.core.routing.values import Backlog, Target
from buildpool.gateway.slots.callers import Callers
from buildpool.gateway.slots.changes import Changes
from buildpool.gateway.slots.locator import BuildLocator
from buildpool.gateway.slots.refusals import (
    Exhausted,
    NoBuilder,
    NotServed,
    Reminder,
    SessionEnded,
    SlotLost,
    Unavailable,
    waited_in_vain,
)
from buildpool.gateway.slots.store import ConnectionStore, Home

T = TypeVar("T")
SOLVE_PATIENCE_SECONDS: Final = 2.0
"""Seconds that a session waits for the solve that says what is built."""
SESSION_PATIENCE_SECONDS: Final = 6.0
"""Seconds that it may wait after these for a slot: its client gives up after ten."""


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
        self._callers = Callers(self._changes, clock=clock, told=self._tell)
        self._reminder = Reminder(clock)
        self._settled: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._last_admission: datetime | None = None
        self._last_told, self._dismissals = Backlog(), 0
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
        admission = self._admissions.setdefault(connection, asyncio.Future())
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
                if self.connections.is_attached(connection):
                    self._admissions.pop(connection, None)  # it waits on for what has begun
                elif not is_admitted:
                    self._withdraw(connection)
        return self._clock() - since

    async def any_builder(self, connection: str, client: str, *, max_wait: timedelta) -> Target:
        """The builder to answer what is no build: the connection's own, or the least loaded.

        Where none takes builds, one is waited for, and so woken. Raises as ``admit``.
        """
        self._reminder.check(connection)
        find = self._while_served(lambda: self.locator.present(connection))
        found = await self._callers.until(find, client, patience=max_wait)
        if found is None:
            raise Exhausted(self._exhausted(max_wait))
        return found

    async def wait_for_slot(
        self, connection: str, client: str, *, max_wait: timedelta
    ) -> timedelta:
        """Waits until a solve can begin, before its message is read; returns for how long it did.

        Raises as ``admit``, and where a session of the connection is refused meanwhile.
        """
        since, before = self._clock(), self.locator.refusal_of_session(connection)

        def attempt() -> bool | None:
            refusal = self.locator.refusal_of_session(connection)
            if refusal is not None and refusal is not before:
                raise refusal.again()
            return self.connections.claim(connection, client, now=self._clock()) or None

        if attempt():
            return timedelta(0)
        if not await self._until(connection, attempt, patience=max_wait.total_seconds()):
            raise Exhausted(self._exhausted(max_wait))
        return self._clock() - since

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
        begin = partial(self._begin, connection, client, key, ref, is_internal=is_internal)
        placement = await self._until(connection, begin, patience=SESSION_PATIENCE_SECONDS)
        if placement is None:
            raise SlotLost(self.pool)
        return placement

    async def follow(self, connection: str, client: str, key: str | None) -> Placement:
        """A session begins: where its solve does, for which it waits a little.

        Without a slot it goes to a builder all the same, and its solve waits for a slot of that
        one. Raises Exhausted where there is none, and Unavailable where the pool goes.
        """
        if self.connections.home_of(connection, self._state()) is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled[connection].wait(), SOLVE_PATIENCE_SECONDS)
        begin = partial(self._begin, connection, client, key)
        attach = partial(self._attach, connection, client)
        placement = await self._until(
            connection, begin, patience=SESSION_PATIENCE_SECONDS, otherwise=attach
        )
        if placement is None:
            raise self.locator.refuse(connection, NoBuilder(self.pool))
        return placement

    def _begin(
        self, connection: str, client: str, key: str | None, ref: str | None = None, **what: bool
    ) -> Placement | None:
        placement = self.connections.begin(
            connection, client, key, self._state(), ref=ref, now=self._clock(), **what
        )
        if placement is not None:
            if ref:
                self._note(Home(connection, client, placement.builder.uid, ref))
            if not self.connections.is_attached(connection):
                self.locator.decided(connection, ref or "")
                self._settled[connection].set()
                self._grant(connection)
            self.dispatch()
        return placement

    def _attach(self, connection: str, client: str) -> Placement | None:
        builder = self.connections.attach(connection, client, self._state(), now=self._clock())
        self.dispatch()
        return None if builder is None else Placement(builder)

    def end(self, connection: str, ref: str | None = None) -> None:
        """A session, or the solve of ``ref``, has ended."""
        if ref:
            self._memory.ended(self.pool, connection, ref)
        was_attached = self.connections.is_attached(connection)
        self.connections.end(connection, ref, now=self._clock())
        if was_attached and not self.connections.is_attached(connection):
            self.locator.refuse(connection, SessionEnded(self.pool))
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
        for connection in [name for name in self._settled if not known(name)]:
            del self._settled[connection]
        self.locator.forget_unknown()
        self._reminder.forget_old()

    def dispatch(self) -> None:
        """Gives the slots that are free to those who wait, and wakes who waits for a change."""
        with suppress(NotServed):  # then there is none to give, and who ends goes on ending
            self._give()
        self._remember()
        self._changes.tell()
        self._tell()

    def _give(self) -> None:
        now = self._clock()
        for connection in self.connections.reclaim(self._state(), now=now):
            self.locator.refuse(connection, SessionEnded(self.pool))
        for connection in self.connections.admit(self._state(), now=now):
            self._last_admission = now
            self._grant(connection)

    def _remember(self) -> None:
        """Notes what the next process has to know of the connections of which it is another now."""
        for connection in self.connections.take_moved():
            found = self.connections.to_note(connection)
            builder, builds_go_on = found or ("", False)
            if not builds_go_on:
                self._memory.drop(self.pool, connection)
            if found is not None:
                self._note(Home(connection, self.connections.client_of(connection), builder))

    @property
    def is_busy(self) -> bool:
        """Whether anybody waits or builds."""
        state = self._state()
        return self.connections.is_busy(state) or any(state.builds.values())

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many wait of each identity that waits."""
        clients = Counter(waiting.client for waiting in self.connections.waiting())
        return clients + Counter(client for client, _ in self._callers.waiting)

    @property
    def backlog(self) -> Backlog:
        """Who waits now, and who shares a slot."""
        shared = 0
        with suppress(NotServed):  # then it is said of nobody
            shared = self.connections.shared(self._state())
        arrivals = [waiting.since for waiting in self.connections.waiting()]
        if not (arrivals := [*arrivals, *(since for _, since in self._callers.waiting)]):
            return Backlog(shared=shared)
        since = max(min(arrivals), self._last_admission or min(arrivals))
        return Backlog(len(arrivals), since, shared)

    def _note(self, home: Home) -> None:
        self._memory.keep(self.pool, home, now=self._clock())

    async def _until(
        self,
        connection: str,
        attempt: Callable[[], T | None],
        *,
        patience: float,
        otherwise: Callable[[], T | None] = lambda: None,
    ) -> T | None:
        """What an attempt to begin comes to, now or after some turn; else what ``otherwise`` does.

        Raises NotServed where the pool goes meanwhile.
        """
        look = self._while_served(attempt)
        try:
            if (found := look()) is None:
                self.dispatch()  # it may be the next to get a slot
                found = await self._changes.until(look, patience=patience)
            return otherwise() if found is None else found
        finally:
            if connection not in self._waiters:
                self.connections.give_up(connection, now=self._clock())

    def _while_served(self, find: Callable[[], T | None]) -> Callable[[], T | None]:
        """The same, which raises NotServed once the pool has gone."""
        dismissals = self._dismissals

        def look() -> T | None:
            if dismissals != self._dismissals:
                raise NotServed(self.pool)
            return find()

        return look

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

    def _exhausted(self, waited: timedelta) -> str:
        serving = self._state().serving
        busy = sum(self.connections.used(b, self._state()) >= self._state().slots for b in serving)
        return waited_in_vain(self.pool, waited, busy=busy, of=len(serving))
