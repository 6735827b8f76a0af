"""The first process of the box: starts the components in order and keeps them running.

``python -m devcluster.supervisor NAME STATE CACHE`` makes the box, writes down who its first
process is, and returns; that process stays. It must not end while anything in the box is wanted:
its end is the end of the box. It reaps every orphan, because the kernel hands them to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from devcluster import box
from devcluster.components import Component, Kind
from devcluster.gates import is_open
from devcluster.identity import identify
from devcluster.layout import CONTROL_SOCKET, Layout
from devcluster.plan import Plan

GATE_INTERVAL_SECONDS: Final = 0.1
FIRST_PAUSE_SECONDS: Final = 0.25
LAST_PAUSE_SECONDS: Final = 10.0
LONG_LIFE_SECONDS: Final = 60.0
"""A component that lived this long starts again with the shortest pause."""
STOP_PATIENCE_SECONDS: Final = 5.0
"""Seconds between asking a component to end and ending it."""
MAX_LOG_BYTES: Final = 50 * 1024 * 1024


class State(StrEnum):
    """Where a component is."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    PAUSING = "pausing"
    STOPPING = "stopping"
    STOPPED = "stopped"


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after so many short lives in a row."""
    return float(min(FIRST_PAUSE_SECONDS * 2 ** max(failures - 1, 0), LAST_PAUSE_SECONDS))


@dataclass(slots=True)
class Tended:
    """One component and what became of it."""

    component: Component
    state: State = State.WAITING
    since: float = field(default_factory=time.monotonic)
    pid: int = 0
    restarts: int = 0
    asked: bool = False
    """The next end is one we asked for: no pause before the next start."""
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, state: State) -> None:
        """Go to a state, and tell those who wait for readiness."""
        self.state, self.since = state, time.monotonic()
        if state in (State.READY, State.DONE):
            self.ready.set()
        else:
            self.ready.clear()

    def report(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "name": self.component.name,
            "kind": self.component.kind,
            "state": self.state,
            "seconds": round(time.monotonic() - self.since, 1),
            "pid": self.pid,
            "restarts": self.restarts,
            "memory": _resident_bytes(self.pid) if self.pid else 0,
            "patience": self.component.patience.total_seconds(),
        }


class Supervisor:
    """Tends all components and answers on the control socket."""

    def __init__(self, layout: Layout, plan: Plan, environment: Mapping[str, str]) -> None:
        self._layout = layout
        self._environment = environment
        self._tended = {one.name: Tended(one) for one in plan.components(layout)}
        self._exits: dict[int, asyncio.Future[int]] = {}

    async def run(self) -> None:
        """For ever, or until SIGTERM."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        server = await asyncio.start_unix_server(self._serve, CONTROL_SOCKET)
        async with server:
            tending = [asyncio.create_task(self._tend(one)) for one in self._tended.values()]
            ended = asyncio.create_task(stop.wait())
            # A task of ours that ends with an error must end the box, loudly, not half of it.
            done, _ = await asyncio.wait({ended, *tending}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            await stop.wait()

    async def _tend(self, tended: Tended) -> None:
        component = tended.component
        for name in component.after:
            await self._tended[name].ready.wait()
        if component.kind is not Kind.ON_DEMAND:
            tended.wanted.set()
        failures = 0
        while True:
            if not tended.wanted.is_set():
                tended.enter(State.STOPPED)
            await tended.wanted.wait()
            started = time.monotonic()
            code = await self._live(tended)
            if component.kind is Kind.TASK and code == 0:
                tended.enter(State.DONE)
                return
            failures = 1 if time.monotonic() - started > LONG_LIFE_SECONDS else failures + 1
            if tended.asked:
                tended.asked, failures = False, 0
                tended.enter(State.WAITING)
                continue
            tended.restarts += 1
            tended.enter(State.PAUSING)
            await asyncio.sleep(pause_before_restart(failures))

    async def _live(self, tended: Tended) -> int:
        """One life of a component, from its start to its exit code."""
        process = self._spawn(tended.component)
        if not process:
            return os.EX_UNAVAILABLE
        tended.pid = process.pid
        exited = self._exits[process.pid] = asyncio.get_running_loop().create_future()
        tended.enter(State.STARTING)
        opening = asyncio.create_task(self._await_gate(tended))
        code: int = await exited
        process.returncode = code  # it was reaped by us, not by subprocess
        opening.cancel()
        tended.pid = 0
        return code

    def _spawn(self, component: Component) -> subprocess.Popen[bytes] | None:
        log = self._layout.log(component.name)
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            try:
                return subprocess.Popen(
                    component.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._environment,
                    cwd="/",
                )
            except OSError as error:
                output.write(f"cannot be started: {error}\n".encode())
                return None

    async def _await_gate(self, tended: Tended) -> None:
        if tended.component.kind is Kind.TASK:
            return
        gate = tended.component.gate
        while gate and not await asyncio.to_thread(is_open, gate, self._layout.pki):  # noqa: ASYNC110
            await asyncio.sleep(GATE_INTERVAL_SECONDS)
        tended.enter(State.READY)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if future := self._exits.pop(pid, None):
                future.set_result(os.waitstatus_to_exitcode(status))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = self._answer(json.loads(await reader.readline()))
        except (ValueError, KeyError, ProcessLookupError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "status":
            return {"components": [tended.report() for tended in self._tended.values()]}
        tended = self._tended[request["component"]]
        match request["do"]:
            case "start":
                tended.wanted.set()
            case "stop" | "restart":
                if request["do"] == "stop":
                    tended.wanted.clear()
                self._stop(tended)
            case "signal":
                self._signal(tended, signal.Signals(request["signal"]))
            case unknown:
                raise ValueError(unknown)
        return {"components": [tended.report()]}

    def _stop(self, tended: Tended) -> None:
        """Ask it to end; it is waited for in `_tend`, but not for ever."""
        if not tended.pid:
            return
        tended.asked = True
        tended.enter(State.STOPPING)
        self._signal(tended, signal.SIGTERM)
        asyncio.get_running_loop().call_later(STOP_PATIENCE_SECONDS, self._end, tended, tended.pid)

    def _end(self, tended: Tended, pid: int) -> None:
        if tended.pid == pid:
            self._signal(tended, signal.SIGKILL)

    def _signal(self, tended: Tended, number: signal.Signals) -> None:
        if tended.pid:
            os.kill(tended.pid, number)


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Make the box; return in the caller, stay in the box."""
    name, state, cache = sys.argv[1:]
    layout = Layout(name=name, state=Path(state), cache=Path(cache))
    plan = Plan.read(layout.plan)
    box.unshare()
    written_down, write_down = os.pipe()
    if first := os.fork():
        layout.identity.write_text(identify(first).to_json())
        os.write(write_down, b".")
        return
    os.setsid()
    os.close(write_down)
    if not os.read(written_down, 1):
        raise SystemExit("nobody wrote down who I am")  # a box that nobody could find again
    box.set_up(layout, plan.family)
    # Nothing else of the caller's environment: proxies or a KUBECONFIG would reach every component.
    environment = {
        "HOME": str(layout.data),
        "PATH": f"{plan.programs.path}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "PYTHONUNBUFFERED": "1",
    }
    asyncio.run(Supervisor(layout, plan, environment).run())


if __name__ == "__main__":
    main()
