"""Programs in Go that use BuildKit's own library, as tests run them: ``tests/goclient``."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from e2e.clients import Client, run
from go_program import program


@dataclass(frozen=True, slots=True)
class GoBuild:
    """What became of one build."""

    build: int
    seconds: float
    code: str
    """The status of gRPC, such as ``PermissionDenied``; empty where the build ended well."""
    error: str
    connections: int
    """How many the program had opened by then."""


def command(client: Client, *args: str) -> list[str]:
    """A command line of the program."""
    server = ["-servername", client.server_name] * bool(client.server_name)
    files = ["-addr", client.address, "-tlsdir", str(client.certificates)]
    return [str(program()), *files, *server, *args]


def builds(client: Client, *args: str, within: float = 400) -> list[GoBuild]:
    """Runs it to its end, and tells of its builds in the order in which they ended."""
    done = run(*command(client, *args), within=within)
    assert "goclient:" not in done.stderr, done.stderr[-2000:]
    return [GoBuild(**json.loads(line)) for line in done.stdout.splitlines()]


def failures(found: list[GoBuild]) -> set[str]:
    """What builds failed with."""
    return {build.error for build in found if build.error}


LONGEST_SECONDS = 180
"""How long one build may take."""


class Kept:
    """A program that keeps its connection, and builds when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def build(self) -> GoBuild:
        """Builds once; what became of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # One that hangs is ended: nobody else ends the wait for its line.
        timer = threading.Timer(LONGEST_SECONDS, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, "the program has ended"
        return GoBuild(**json.loads(line))

    def builds_well(self) -> GoBuild:
        """Builds once, which has to succeed."""
        found = self.build()
        assert not found.error, found
        return found


@contextmanager
def kept(client: Client, *options: str) -> Iterator[Kept]:
    """A program that keeps its connection, for the length of a block."""
    line = command(client, *options, "kept")
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Kept(process)
        finally:
            process.kill()
