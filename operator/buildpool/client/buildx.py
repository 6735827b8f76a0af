"""The rim: makes and removes a builder by the user's own buildx."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildpool.client.nodes import NodeReport, creation, is_of, reports_in
from buildpool.client.refusals import one_line
from buildpool.client.values import Connection
from buildpool.core.errors import BuildpoolError

_MOST_SECONDS: Final = 120.0
"""That a command of buildx may take."""
_BUILD_SECONDS: Final = 3600.0
"""That a build may take, with its wait for a slot."""


@dataclass(frozen=True, slots=True)
class Buildx:
    """How buildx is called here."""

    command: tuple[str, ...]

    @classmethod
    def found(cls) -> Buildx:
        """The plugin of docker, or buildx by itself."""
        # Podman calls itself docker, too, and has a command buildx that is none.
        if shutil.which("docker") and "buildx" in _run(["docker", "buildx", "version"]).stdout:
            return cls(("docker", "buildx"))
        if shutil.which("buildx"):
            return cls(("buildx",))
        raise BuildpoolError(
            "neither docker buildx nor buildx is on the PATH; install it "
            "(https://github.com/docker/buildx), or use --print=buildctl"
        )

    def make(
        self, connection: Connection, root: Path, *, before: Connection | None, use: bool
    ) -> None:
        """Makes the builder, or makes it what it shall be; ``before`` is what was connected.

        It touches no builder that ``connect`` has not made, and leaves none that is half made.
        """
        is_there = self._has(connection.name)
        if is_there and not (before and before.is_made and self.has_that_of(before)):
            raise BuildpoolError(
                f"there is a builder {connection.name} already that was not made by connect; give "
                f"this one another --name, or remove that one: docker buildx rm {connection.name}"
            )
        if is_there and before and before.nodes != connection.nodes:
            # Changed one by one, a node could need the address that another one still has.
            self.remove(connection.name)
            is_there = False
        is_new = False
        try:
            for node in connection.nodes:
                is_first = not (is_there or is_new)
                use_now = use and node is connection.nodes[0]
                arguments = creation(connection, node, root, is_first=is_first, use=use_now)
                done = self._run(*arguments)
                if done.returncode != 0:
                    said = one_line(done.stderr)
                    raise BuildpoolError(f"buildx cannot make builder {connection.name}: {said}")
                is_new = is_new or is_first
        except BaseException:
            if is_new:
                with suppress(BuildpoolError):
                    self.remove(connection.name)
            raise

    def _has(self, name: str) -> bool:
        """Whether there is a builder of this name; asks none of its nodes, as a list would."""
        done = self._run("create", "--name", name, "--leave", "--node", "none.of.it")
        return "failed to find instance" not in done.stderr

    def has_that_of(self, connection: Connection) -> bool:
        """Whether the builder of this name is still the one that was made for a connection."""
        # Its nodes are not waited for: it is about what buildx has noted.
        done = self._run("inspect", "--timeout=1ms", connection.name)
        if "unknown flag" in done.stderr:
            done = self._run("inspect", connection.name)
        return done.returncode == 0 and is_of(connection, done.stdout)

    def inspect(self, name: str) -> dict[str, NodeReport]:
        """What it says of each node of a builder. Wakes no pool."""
        done = self._run("inspect", name)
        if done.returncode != 0:
            raise BuildpoolError(f"builder {name} cannot be looked at: {one_line(done.stderr)}")
        return reports_in(done.stdout)

    def builds(self, name: str) -> str:
        """Its list of the builds of which a builder has a record, a JSON object in each line."""
        done = self._run("--builder", name, "history", "ls", "--format=json")
        if done.returncode == 0:
            return done.stdout
        said = one_line(done.stderr)
        if "unknown flag" in said or "is not a docker command" in said:
            said = "this buildx has no history; use 0.22 or later"
        raise BuildpoolError(f"the builds of builder {name} cannot be listed: {said}")

    @property
    def version(self) -> str:
        """What it says of itself, such as ``github.com/docker/buildx v0.38.2``."""
        return one_line(self._run("version").stdout)

    def try_out(self, name: str, context: Path) -> str:
        """Builds a folder, and keeps nothing of it; what was wrong, empty: nothing."""
        output = ("--progress=plain", "--output=type=cacheonly")
        done = self._run("build", "--builder", name, *output, str(context), within=_BUILD_SECONDS)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return "" if done.returncode == 0 else one_line(lines[-1] if lines else "it does not say")

    def show_log(self, name: str, ref: str) -> bool:
        """Prints the log of a build, to its end if it runs; whether it could."""
        # Not captured: it can be long, and last.
        command = [*self.command, "--builder", name, "history", "logs", ref]
        return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - no shell

    def remove(self, name: str) -> bool:
        """Removes a builder; whether there was one."""
        done = self._run("rm", name)
        if done.returncode == 0:
            return True
        if f'no builder "{name}" found' in done.stderr:
            return False
        raise BuildpoolError(f"builder {name} cannot be removed: {one_line(done.stderr)}")

    def _run(
        self, *arguments: str, within: float = _MOST_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return _run([*self.command, *arguments], within)


def _run(command: list[str], within: float = _MOST_SECONDS) -> subprocess.CompletedProcess[str]:
    called = " ".join(command[:3])
    try:
        return subprocess.run(  # noqa: S603 - no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=within,
        )
    except subprocess.TimeoutExpired:
        raise BuildpoolError(f"{called} does not end; try it by hand") from None
    except OSError as error:
        raise BuildpoolError(f"{called} cannot be run: {error.strerror}") from None
