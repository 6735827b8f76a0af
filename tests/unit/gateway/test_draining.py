"""The end of a gateway's pod, before a real HTTP server that plays Envoy's administration."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic

import pytest
from aiohttp import web

from buildpool.gateway.draining import ACTIVE, CONNECTIONS, drain
from buildpool.gateway.xds.bootstrap import ADMIN_SOCKET
from daemons import until

SOON = timedelta(seconds=0.05)
LONG = timedelta(seconds=20)
NOTHING = timedelta()

ERROR = "an error"
CUT = "a connection that is cut"
LATE = "no answer in time"
UNREADABLE = "no number"
Answer = int | str
"""How many requests are active, or how it fails to say so."""


class Envoy:
    """What Envoy's administration answers, one look after the other; the last one for ever."""

    def __init__(self, *answers: Answer, refusals: int = 0, connections: int = 0) -> None:
        self.connections = connections
        self.requests: list[str] = []
        self.asked_at: list[float] = []
        self.looked = asyncio.Event()
        self.admin = Path()
        self._answers = list(answers)
        self._refusals = refusals
        self._ended = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def looks(self) -> int:
        return sum(request.startswith("GET /stats") for request in self.requests)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/drain_listeners", self._drain)
        app.router.add_get("/stats", self._stats)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        self.admin = Path(mkdtemp()) / ADMIN_SOCKET
        await web.UnixSite(self._runner, str(self.admin)).start()

    async def stop(self) -> None:
        self._ended.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            rmtree(self.admin.parent)

    def _note(self, request: web.Request) -> None:
        self.requests.append(f"{request.method} {request.path_qs}")
        self.asked_at.append(monotonic())

    async def _drain(self, request: web.Request) -> web.Response:
        self._note(request)
        if self._refusals:
            self._refusals -= 1
            return web.Response(status=503)
        return web.Response(text="OK\n")

    async def _stats(self, request: web.Request) -> web.Response:
        self._note(request)
        assert request.query["filter"] == (
            r"^http\.gateway\.downstream_rq_active$|^http\.gateway\.downstream_cx_active$"
        )
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.looked.set()
        if answer == ERROR:
            return web.Response(status=503)
        if answer == CUT:
            assert request.transport is not None
            request.transport.abort()
        if answer == LATE:
            await self._ended.wait()
        text = f"{CONNECTIONS}: {self.connections}\n{ACTIVE}: {answer}\n"
        return web.Response(text=text)


@asynccontextmanager
async def running(envoy: Envoy) -> AsyncIterator[Envoy]:
    await envoy.start()
    try:
        yield envoy
    finally:
        await envoy.stop()


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, and an answer that does not come is given up soon."""
    monkeypatch.setattr("buildpool.gateway.draining.POLL_SECONDS", 0.01)
    monkeypatch.setattr("buildpool.gateway.draining.ANSWER_SECONDS", 0.5)


async def drained(envoy: Envoy, *, settle: timedelta = NOTHING, patience: timedelta = LONG) -> bool:
    return await drain(admin=envoy.admin, settle=settle, patience=patience)


async def test_listeners_are_closed_once_before_anything_is_counted() -> None:
    async with running(Envoy(0)) as envoy:
        assert await drained(envoy)
    first, *others = envoy.requests
    # Without ``graceful``, which would say GOAWAY again and again to clients that build.
    assert first == "POST /drain_listeners"
    assert {request.partition("?")[0] for request in others} == {"GET /stats"}


async def test_connections_that_are_on_their_way_are_still_taken() -> None:
    settle = timedelta(seconds=0.2)
    async with running(Envoy(0)) as envoy:
        begun = monotonic()
        assert await drained(envoy, settle=settle)
    assert envoy.asked_at[0] - begun >= settle.total_seconds()


async def test_builds_that_run_are_waited_for() -> None:
    async with running(Envoy(2, 1, 1, 0)) as envoy:
        assert await drained(envoy)
    assert envoy.looks == 3 + 3


async def test_a_moment_between_two_requests_of_a_build_is_not_its_end() -> None:
    async with running(Envoy(1, 0, 0, 1, 0)) as envoy:
        assert await drained(envoy)
    assert envoy.looks == 4 + 3


async def test_an_envoy_that_never_had_a_client_is_quiet() -> None:
    class Unvisited(Envoy):
        async def _stats(self, request: web.Request) -> web.Response:
            self._note(request)
            return web.Response(text="")

    async with running(Unvisited(0)) as envoy:
        assert await drained(envoy)
    assert envoy.looks == 3


@pytest.mark.parametrize("line", ["a line without a number", "another: many", ""])
async def test_a_line_of_something_else_does_not_end_the_wait(line: str) -> None:
    """The end of the hook would be the end of all builds of the pod."""

    class Talkative(Envoy):
        async def _stats(self, request: web.Request) -> web.Response:
            number = await super()._stats(request)
            return web.Response(text=f"{line}\n{number.text}{line}\n")

    async with running(Talkative(2, 1, 0)) as envoy:
        assert await drained(envoy)
    assert envoy.looks == 2 + 3


async def test_builds_that_outlast_the_patience_are_said_to_run() -> None:
    async with running(Envoy(1)) as envoy:
        assert not await drained(envoy, patience=SOON)


SILENCES = {
    "an error": (0, 0, ERROR, 0),
    # Twice: a connection that was kept is tried once more by itself.
    "a cut connection": (0, 0, CUT, CUT, 0),
    "no answer": (0, 0, LATE, 0),
    "no number": (0, 0, UNREADABLE, 0),
}


@pytest.mark.parametrize("answers", SILENCES.values(), ids=SILENCES)
async def test_what_does_not_answer_may_still_run(answers: tuple[Answer, ...]) -> None:
    async with running(Envoy(*answers)) as envoy:
        assert await drained(envoy)
    assert envoy.looks == len(answers) - 1 + 3, "three looks in a row, after the silence"


async def test_an_envoy_that_never_answers_is_not_taken_for_quiet() -> None:
    async with running(Envoy(ERROR)) as envoy:
        assert not await drained(envoy, patience=SOON)


async def test_clients_are_sent_elsewhere_in_the_middle_of_the_time(tmp_path: Path) -> None:
    file = tmp_path / "goaway"
    file.write_text("0")
    async with running(Envoy(1)) as envoy:
        draining = asyncio.create_task(
            drain(admin=envoy.admin, settle=NOTHING, patience=LONG, goaway_file=file)
        )
        await envoy.looked.wait()
        assert file.read_text() == "0", "builds that run may end on the connection they know"
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        patience = timedelta(seconds=1)
        assert not await drain(
            admin=envoy.admin, settle=NOTHING, patience=patience, goaway_file=file
        )
    assert file.read_text() == "1"


async def test_who_keeps_a_connection_is_told_before_it_ends(tmp_path: Path) -> None:
    """Where nothing runs any more, long before the middle of the time."""
    file = tmp_path / "goaway"
    file.write_text("0")
    async with running(Envoy(1, 0, connections=2)) as envoy:
        draining = asyncio.create_task(
            drain(admin=envoy.admin, settle=NOTHING, patience=LONG, goaway_file=file)
        )
        await until(lambda: file.read_text() == "1", "the file says so")
        looks = envoy.looks
        await until(lambda: envoy.looks > looks + 5, "it waits until they have gone")
        assert not draining.done()
        envoy.connections = 0
        assert await draining


async def test_a_build_that_begins_meanwhile_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.draining.TAKEN_SECONDS", 0.0)
    answers = (0, 0, 0, 1, 1, 1, 0)
    async with running(Envoy(*answers, connections=1)) as envoy:
        assert await drain(
            admin=envoy.admin, settle=NOTHING, patience=LONG, goaway_file=tmp_path / "goaway"
        )
    assert envoy.looks == len(answers) - 1 + 3


async def test_who_does_not_leave_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.draining.TAKEN_SECONDS", 0.1)
    async with running(Envoy(0, connections=1)) as envoy:
        assert await drain(
            admin=envoy.admin, settle=NOTHING, patience=LONG, goaway_file=tmp_path / "goaway"
        )


async def test_a_file_that_cannot_be_written_does_not_end_the_wait(tmp_path: Path) -> None:
    file = tmp_path / "no-such-folder" / "goaway"
    async with running(Envoy(1)) as envoy:
        patience = timedelta(seconds=1)
        assert not await drain(
            admin=envoy.admin, settle=NOTHING, patience=patience, goaway_file=file
        )
    assert envoy.looks > 1


async def test_listeners_that_did_not_close_are_drained_again() -> None:
    async with running(Envoy(0, refusals=2)) as envoy:
        assert await drained(envoy)
    assert envoy.requests.count("POST /drain_listeners") == 3
    assert envoy.looks == 3


async def test_an_envoy_that_is_gone_has_nothing_to_wait_for() -> None:
    envoy = Envoy(1)
    async with running(envoy):
        pass
    assert await drained(envoy)
    assert envoy.requests == []


async def test_an_envoy_that_was_killed_has_nothing_to_wait_for(tmp_path: Path) -> None:
    """Its socket stays, and nobody listens."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / ADMIN_SOCKET))
    assert await drain(admin=tmp_path / ADMIN_SOCKET, settle=NOTHING, patience=LONG)


async def test_an_envoy_that_is_too_busy_to_be_asked_is_not_gone(tmp_path: Path) -> None:
    path = str(tmp_path / ADMIN_SOCKET)
    with ExitStack() as open_ones:
        listener = open_ones.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = open_ones.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(path)
        assert not await drain(admin=tmp_path / ADMIN_SOCKET, settle=NOTHING, patience=SOON)


async def test_an_envoy_that_goes_meanwhile_took_its_builds_with_it() -> None:
    async with running(Envoy(1)) as envoy:
        draining = asyncio.create_task(drained(envoy))
        await envoy.looked.wait()
        await envoy.stop()
        assert await draining
