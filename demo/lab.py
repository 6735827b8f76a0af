"""Where commands run: inside a devcluster's network, or right here, in a cluster of the user's.

A cluster of the user's is never touched because a kubeconfig happens to be at hand: it has to be
named for it, by BUILDPOOL_CLUSTER=kubeconfig, and must not have buildpool already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = PROJECT / "build"
"""What is made on the way and can be made again; not committed."""
CLUSTER: Final = "BUILDPOOL_CLUSTER"
"""The variable that says which cluster is meant: a devcluster, unless it says ``kubeconfig``."""
PARTS: Final = "app.kubernetes.io/name=buildpool,app.kubernetes.io/component in (operator,builder)"
"""What an installation has in a cluster: Deployments with these labels."""
POOLS: Final = "buildkitpools.buildpool.dev"


class LabError(Exception):
    """A step failed; the message says which command, and what it said."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A cluster to work with."""

    devcluster: str | None
    """Name of the devcluster; None: the current context of the user's kubeconfig."""

    @classmethod
    def from_environment(cls, name: str, environ: Mapping[str, str] = os.environ) -> Lab:
        """The user's cluster if it was named for this, else a devcluster of this name."""
        said = environ.get(CLUSTER, "")
        if said not in ("", "devcluster", "kubeconfig"):
            raise LabError(
                f"{CLUSTER} is {said!r}: it can be devcluster (the default) or kubeconfig"
            )
        return cls(None if said == "kubeconfig" else name)

    def meet(self, *, own: Sequence[str] = ()) -> None:
        """Says which cluster of the user's this is; ``LabError`` if it has buildpool already.

        What lies in namespaces of ``own`` does not count. Changes nothing.
        """
        if self.devcluster:
            return
        shown = ("config", "view", "--minify", "-o")
        context = self.kubectl(*shown, "jsonpath={.current-context}")
        server = self.kubectl(*shown, "jsonpath={.clusters[0].cluster.server}")
        print(f"context {context}, server {server}", flush=True)
        deployments = self._others("deployments", "-l", PARTS)
        releases = self._others("secrets", "-l", "owner=helm,name=buildpool")
        known = self.kubectl("get", "crd", POOLS, "--ignore-not-found", "-o", "name")
        pools = self._others(POOLS) if known else []
        found = [each for each in (*pools, *deployments, *releases) if each[0] not in own]
        if found:
            named = ", ".join(f"{name} in namespace {namespace}" for namespace, name in found[:5])
            raise LabError(
                f"context {context} has buildpool already ({named}): nothing was changed. "
                f"Name another cluster, or leave {CLUSTER} out for one that is made for this"
            )

    def _others(self, kind: str, *selector: str) -> list[tuple[str, str]]:
        """Namespace and name of all objects of a kind."""
        row = "jsonpath={range .items[*]}{.metadata.namespace}{'\\t'}{.metadata.name}{'\\n'}{end}"
        lines = self.kubectl("get", kind, "-A", *selector, "-o", row).splitlines()
        return [
            (namespace, name) for namespace, _, name in (line.partition("\t") for line in lines)
        ]

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
    try:
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
    except FileNotFoundError as error:
        raise LabError(f"there is no program {command[0]} on your PATH") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)}\nended with {done.returncode}: {said[-3000:]}")
    return done.stdout
