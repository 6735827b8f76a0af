"""The rim: makes and removes a builder by the user's own buildx."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from buildpool.client.nodes import NodeReport, creation, departures, reports_in
from buildpool.client.refusals import one_line
from buildpool.client.values import Connection, Node
from buildpool.core.errors import BuildpoolError


@dataclass(frozen=True, slots=True)
class Buildx:
    """How buildx is called here."""

    command: tuple[str, ...]

    @classmethod
    def found(cls) -> Buildx:
        """The plugin of docker, or buildx by itself."""
        if shutil.which("docker") and _run(["docker", "buildx", "version"]).returncode == 0:
            return cls(("docker", "buildx"))
        if shutil.which("buildx"):
            return cls(("buildx",))
        raise BuildpoolError(
            "neither docker buildx nor buildx is on the PATH; install it "
            "(https://github.com/docker/buildx), or use --print=buildctl"
        )

    def make(
        self, connection: Connection, root: Path, *, before: Sequence[Node], use: bool
    ) -> None:
        """Makes the builder, or makes it what it shall be; ``before`` are its nodes until now."""
        is_there = bool(before)
        for node in connection.nodes:
            use_now = use and node is connection.nodes[0]
            done = self._create(connection, node, root, is_first=not is_there, use=use_now)
            if done.returncode != 0 and is_there and "failed to find instance" in done.stderr:
                # Somebody has removed it by buildx.
                done = self._create(connection, node, root, is_first=True, use=use_now)
            if done.returncode != 0:
                raise _refusal(connection.name, done.stderr)
            is_there = True
        for command in departures(connection, before):
            self._run(*command)

    def _create(
        self, connection: Connection, node: Node, root: Path, *, is_first: bool, use: bool
    ) -> subprocess.CompletedProcess[str]:
        return self._run(*creation(connection, node, root, is_first=is_first, use=use))

    def inspect(self, name: str) -> dict[str, NodeReport]:
        """What it says of each node of a builder. Wakes no pool."""
        done = self._run("inspect", name)
        if done.returncode != 0:
            raise BuildpoolError(f"builder {name} cannot be looked at: {one_line(done.stderr)}")
        return reports_in(done.stdout)

    def remove(self, name: str) -> bool:
        """Forgets a builder; whether there was one."""
        return self._run("rm", name).returncode == 0

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run([*self.command, *arguments])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - no shell
            command, capture_output=True, text=True, errors="replace", check=False, timeout=120
        )
    except subprocess.TimeoutExpired:
        raise BuildpoolError(f"{' '.join(command[:3])} does not end; try it by hand") from None


def _refusal(name: str, said: str) -> BuildpoolError:
    if "did you mean to append" in said or "existing instance" in said:
        return BuildpoolError(
            f"there is a builder {name} already that was not made by connect; give this one "
            f"another --name, or remove that one: docker buildx rm {name}"
        )
    return BuildpoolError(f"buildx cannot make builder {name}: {one_line(said)}")
