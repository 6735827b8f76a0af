"""Where commands run: inside a devcluster's network, or, with KUBECONFIG set, right here."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = PROJECT / "build"
"""What is made on the way and can be made again; not committed."""


class LabError(Exception):
    """A step failed; the message says which command, and what it said."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A cluster to work with."""

    devcluster: str | None
    """Name of the devcluster; None: the cluster that KUBECONFIG names."""

    @classmethod
    def from_environment(cls, name: str) -> Lab:
        """The user's cluster where there is one, else a devcluster of this name."""
        return cls(None if os.environ.get("KUBECONFIG") else name)

    def command(self, *args: str | Path) -> list[str]:
        """A command line that runs ``args`` with kubectl, helm, buildctl and buildx at hand."""
        plain = [str(arg) for arg in args]
        return [*self.driver("exec", "--"), *plain] if self.devcluster else plain

    def driver(self, *args: str) -> list[str]:
        """A command line of the devcluster itself."""
        first, *rest = args
        return [sys.executable, "-m", "devcluster", first, "--name", f"{self.devcluster}", *rest]

    def run(
        self,
        *args: str | Path,
        stdin: str | None = None,
        timeout: float = 300,
        merged: bool = False,
    ) -> str:
        """Runs a command, which has to succeed; its output, ``merged`` with its messages."""
        return finish(self.command(*args), stdin=stdin, timeout=timeout, merged=merged)

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Runs kubectl, which has to succeed; its output."""
        return self.run("kubectl", *args, stdin=stdin, timeout=timeout)


def finish(
    command: list[str], *, stdin: str | None = None, timeout: float = 300, merged: bool = False
) -> str:
    """Runs a command to its end; ``LabError`` with what it said if it fails."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        timeout=timeout,
        cwd=PROJECT,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)}\nended with {done.returncode}: {said[-3000:]}")
    return done.stdout
