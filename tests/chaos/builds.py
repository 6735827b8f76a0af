"""The load: clients that build one thing after the other, as CI jobs do.

They never retry and are never told of a disruption. All they know is the address of a Service, and
a Secret that they read again before each build.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from chaos.records import Build, BuildKind
from chaos.sources import BUILDER, Work
from e2e.clients import Client, base_image

PATIENCE: Final = timedelta(seconds=180)
"""A build that takes longer hangs, and is lost."""
LAST_LINES: Final = 12
LONG: Final = (BuildKind.LONG_BUILDCTL, BuildKind.LONG_BUILDX, BuildKind.LINKED_BAKE)
SHORT: Final = (BuildKind.SHORT_BUILDCTL, BuildKind.SHORT_BUILDX, BuildKind.CHECK)
WORKERS: Final = (LONG, LONG, LONG, LONG, LONG, SHORT, SHORT)
"""What each of the concurrent clients builds. Short builds are many and long ones are at stake, so
that neither may push the other out."""

Access = Callable[[Path], Client]
"""Reads the Secret into files below a folder; the client that uses them."""
Clock = Callable[[], timedelta]
"""The time since the campaign began."""


class Load:
    """All clients at work."""

    def __init__(self, access: Access, folder: Path, *, seed: int, clock: Clock) -> None:
        self._done: list[Build] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._workers = [
            _Worker(
                kinds,
                access,
                folder / f"worker-{number}",
                # Text, because only of text a seed is the same in every process.
                chance=random.Random(f"{seed}/{number}"),
                clock=clock,
                ending=self._ending,
                report=self._report,
            )
            for number, kinds in enumerate(WORKERS)
        ]

    def start(self) -> None:
        """Starts all clients."""
        base_image()  # Looked for once, before anybody is timed.
        for worker in self._workers:
            worker.prepare()
        for worker in self._workers:
            worker.start()

    def end(self) -> None:
        """Starts no more builds, and waits until the last one has ended."""
        self._ending.set()
        for worker in self._workers:
            worker.join()

    def abort(self) -> None:
        """Ends the clients that run, whose builds count for nothing. None run after ``end``."""
        self._ending.set()
        for worker in self._workers:
            worker.abort()
        for worker in self._workers:
            if worker.ident is not None:
                worker.join()

    def builds(self) -> tuple[Build, ...]:
        """The builds that have ended so far, in the order of their ends."""
        with self._lock:
            return tuple(self._done)

    def _report(self, build: Build) -> None:
        with self._lock:
            self._done.append(build)


class _Worker(threading.Thread):
    """One client after the other, each with a folder of its own."""

    def __init__(
        self,
        kinds: tuple[BuildKind, ...],
        access: Access,
        folder: Path,
        *,
        chance: random.Random,
        clock: Clock,
        ending: threading.Event,
        report: Callable[[Build], None],
    ) -> None:
        super().__init__(name=folder.name, daemon=True)
        self._kinds = kinds
        self._access = access
        self._folder = folder
        self._chance = chance
        self._clock = clock
        self._ending = ending
        self._report = report
        self._aborted = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        configuration = str(folder / "configuration")
        self._environment = {
            **os.environ,
            "BUILDX_CONFIG": configuration,
            "DOCKER_CONFIG": configuration,
            # Their sources and results lie where the client runs; nobody is there to be asked.
            "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
        }

    def prepare(self) -> None:
        """Tells buildx where the builders are; the files of its certificate are written anew."""
        client = self._access(self._folder)
        create = ["buildx", "create", "--name", BUILDER, *client.node()]
        done = subprocess.run(
            create,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def run(self) -> None:
        """Builds until told to end."""
        while not self._ending.is_set():
            kind = self._chance.choice(self._kinds)
            mark = uuid.uuid4().hex
            work = Work(kind, self._folder / mark, mark)
            started = self._clock()
            failure = self._build(work)
            if self._aborted.is_set():
                return
            output = last_lines(work.folder / "log") if failure else ""
            self._report(Build(kind, started, self._clock(), failure, output))
            if not failure:
                shutil.rmtree(work.folder)

    def abort(self) -> None:
        """Kills the client that runs; the thread ends soon."""
        self._aborted.set()
        process = self._process
        if process is not None:
            process.kill()

    def _build(self, work: Work) -> str:
        """Builds once; why the build is lost, or nothing."""
        work.folder.mkdir(parents=True)
        try:
            command = work.command(self._access(self._folder))
        except AssertionError as error:
            return f"the client has no certificate: {error}"
        with (work.folder / "log").open("wb") as log:
            # In a session of its own: Ctrl-C is for us, who end it by its number. Should we be
            # killed, the kernel ends it.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd=work.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._aborted.is_set():
            self._process.kill()
        try:
            code = self._process.wait(PATIENCE.total_seconds())
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"no end within {PATIENCE.total_seconds():g} s"
        if code:
            return f"exit code {code}"
        return "" if work.is_made() else "success without a result"


def last_lines(log: Path) -> str:
    """The end of what a client printed."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(line[:300] for line in lines[-LAST_LINES:])


def since(began: float) -> timedelta:
    """The time since a moment of the monotonic clock."""
    return timedelta(seconds=time.monotonic() - began)
