"""Asks one daemon which builds run on it, for as long as its pod is watched.

A task of its own for each daemon: nobody waits for another. What counts is only what a daemon says
when it is asked; its events are reasons to ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from zlib import crc32

from buildpool.buildkit import BuildEvent, BuildEventKind, DaemonAccess, DaemonError, Room
from buildpool.buildkit.served import ServedBuilds
from buildpool.core import pauses
from buildpool.core.observed.load import Load, RunningBuild

DEBOUNCE_SECONDS: Final = 0.03
"""Between an event and the question it leads to: events come in bursts."""
INTERVAL_SECONDS: Final = 10.0
"""Between two questions without any event: connections can die without a word."""
STALE_SECONDS: Final = 20.0
"""After which an answer counts no more."""
GRACE_SECONDS: Final = 5.0
"""Within which a daemon that failed may come back before its answer counts no more."""
EAGER_SECONDS: Final = 30.0
"""After a builder is seen first in which pauses do not grow: it is just starting."""
FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 4.0
"""Shorter than the grace: a daemon that answers at each try stays known."""
log = logging.getLogger(__name__)


class WatchedDaemon(Protocol):
    """A connection to a daemon; ``buildkit.daemon.Daemon``. All raise DaemonError."""

    async def snapshot(self) -> tuple[RunningBuild, ...]:
        """The builds that run now, sorted by ref; answers or fails within seconds."""

    def events(self) -> AsyncGenerator[BuildEvent, None]:
        """What happens to builds from now on, in no order, for as long as the daemon goes on."""

    async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
        """What its history answers to a question that has an end; within seconds."""

    async def has_content(self, digest: str) -> bool:
        """Whether it has some content that builds have made; within seconds."""

    async def close(self) -> None:
        """Hangs up."""


OnEvent = Callable[[BuildEvent], None]
"""Hears of all that a daemon says of its builds."""
Connect = Callable[[str, DaemonAccess], WatchedDaemon]
"""A connection to the daemon at an address, IP and port."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a daemon is, and what opens it."""

    address: str
    """IP and port."""
    access: DaemonAccess


@dataclass(frozen=True, slots=True)
class _Connection:
    target: Target
    daemon: WatchedDaemon
    listening: asyncio.Task[None]

    def check(self) -> None:
        """Raises what ended the stream of events, if it has ended."""
        if self.listening.cancelled():
            raise DaemonError("its events have ended")
        if self.listening.done():
            self.listening.result()

    async def close(self) -> None:
        self.listening.cancel()
        try:
            await asyncio.gather(self.listening, return_exceptions=True)
        finally:
            await self.daemon.close()


class Watcher:
    """Asks one daemon from now on, in a task of its own."""

    def __init__(
        self,
        name: str,
        target: Target,
        connect: Connect,
        wake: Callable[[], None],
        clock: Callable[[], datetime],
        on_event: OnEvent,
    ) -> None:
        self.load: Load | None = None
        self._name = name
        self._target = target
        self._connect = connect
        self._wake = wake
        self._clock = clock
        self._on_event = on_event
        self._time = asyncio.get_running_loop().time
        self._phase = crc32(name.encode()) / 2**32
        """From 0 to 1, for each daemon another: they are not all asked at the same moment."""
        self.daemon: WatchedDaemon | None = None
        """The connection through which it has answered, if there is one now."""
        self._due = asyncio.Event()
        self._is_asked = False
        self._served = ServedBuilds()
        self._failures = 0
        """In a row: a connection that lasts ends it."""
        self._has_answered = False
        """Since it failed last."""
        self._trouble = "it has not answered yet"
        self._eager_until = self._time() + EAGER_SECONDS
        self._expiry = asyncio.get_running_loop().call_later(EAGER_SECONDS, self._lose)
        self.task = asyncio.create_task(self._run())

    def aim(self, target: Target) -> None:
        """Another address or access than before."""
        if target != self._target:
            self._target = target
            self._due.set()

    def ask(self) -> None:
        """Asks at once, and wakes the pool whatever the answer is."""
        self._is_asked = True
        self._due.set()

    def stop(self) -> None:
        """Asks no more, and hangs up."""
        self._expiry.cancel()
        self.task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._attend()
                except DaemonError as error:
                    self._fail(str(error))
                except asyncio.CancelledError:
                    if self.task.cancelling():
                        raise
                    self._fail("the question was broken off")
                except Exception as error:
                    log.exception("%s: a defect in asking a builder", self._name)
                    self._fail(type(error).__name__)
                self._due.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._due.wait()
        finally:
            self._expiry.cancel()
            self.load = None

    async def _attend(self) -> None:
        """Connects and asks, again and again, until the daemon fails."""
        connection, opened = await self._open(), self._time()
        try:
            while True:
                self.daemon = connection.daemon
                await self._sleep()
                if connection.target != self._target and (successor := await self._successor()):
                    old, connection = connection, successor
                    self.daemon = connection.daemon
                    await old.close()
                connection.check()
                await self._ask(connection.daemon)
                if self._time() - opened >= INTERVAL_SECONDS:
                    self._failures = 0
        finally:
            self.daemon = None
            await connection.close()

    async def _open(self) -> _Connection:
        """A connection through which the daemon has answered."""
        target = self._target
        daemon = self._connect(target.address, target.access)
        # Listens first and asks then: what starts between the two is not missed.
        connection = _Connection(target, daemon, asyncio.create_task(self._listen(daemon)))
        try:
            await self._ask(daemon)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _successor(self) -> _Connection | None:
        """A daemon may know the new authority later than we do: till then the old access counts."""
        try:
            return await self._open()
        except DaemonError as error:
            log.debug("%s: no connection with new access yet: %s", self._name, error)
            return None

    async def _sleep(self) -> None:
        """Until something has happened, or the daemon's turn has come."""
        try:
            since_turn = (self._time() - self._phase * INTERVAL_SECONDS) % INTERVAL_SECONDS
            async with asyncio.timeout(INTERVAL_SECONDS - since_turn):
                await self._due.wait()
        except TimeoutError:
            return
        await asyncio.sleep(DEBOUNCE_SECONDS)

    async def _listen(self, daemon: WatchedDaemon) -> None:
        """Events only say that it is time to ask: they come late, twice and in no order."""
        try:
            async with aclosing(daemon.events()) as events:
                async for event in events:
                    if event.kind is BuildEventKind.STARTED:
                        self._served.count((event.build.ref,), now=self._time())
                    self._on_event(event)
                    if event.kind is not BuildEventKind.DELETED:
                        self._due.set()
            raise DaemonError("it has ended the connection")
        finally:
            self._due.set()

    async def _ask(self, daemon: WatchedDaemon) -> None:
        self._due.clear()
        is_asked, self._is_asked = self._is_asked, False
        as_of = self._clock()
        try:
            builds = await daemon.snapshot()
        except BaseException:
            self._is_asked |= is_asked
            raise
        refs = [build.ref for build in builds]
        self._served.count(refs, now=self._time())
        self._served.forget(now=self._time())
        is_news = self.load is None or [build.ref for build in self.load.builds] != refs
        self.load = Load(builds, as_of, self._served.total)
        self._has_answered = True
        self._expire_in(STALE_SECONDS)
        if is_news or is_asked:
            self._wake()

    def _fail(self, trouble: str) -> None:
        self._trouble = trouble
        self._failures += 1
        if self._has_answered and self.load is not None:
            self._expire_in(min(GRACE_SECONDS, self._expiry.when() - self._time()))
        self._has_answered = False

    def _pause(self) -> float:
        failures = 1 if self._time() < self._eager_until else self._failures
        pause = pauses.growing(failures, first=FIRST_RETRY_SECONDS, last=LAST_RETRY_SECONDS)
        return pauses.spread(pause, chance=self._phase)

    def _expire_in(self, seconds: float) -> None:
        self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(seconds, self._lose)

    def _lose(self) -> None:
        address = self._target.address
        log.info("%s: the builds at %s are not known: %s", self._name, address, self._trouble)
        if self.load is not None:
            self.load = None
            self._wake()
