"""Drives ``python -m devcluster`` as a user does, and looks for what a cluster leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster.identity import Identity, identify, is_alive
from limits import patience

PROJECT = Path(__file__).resolve().parents[2]
NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster, with a state folder of its own and the user's cache."""

    name: str
    home: Path

    @property
    def state(self) -> Path:
        return self.home / "buildpool-devcluster" / self.name

    @property
    def supervisor(self) -> int:
        identity = json.loads((self.state / "supervisor.json").read_text())
        return int(identity["pid"])

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            (sys.executable, "-m", "devcluster", *arguments),
            cwd=PROJECT,
            env={
                **os.environ,
                "XDG_STATE_HOME": str(self.home),
                "DEVCLUSTER_NAME": self.name,
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def kubectl(self, *arguments: str) -> str:
        return self.run("kubectl", *arguments).stdout

    def namespaces(self) -> dict[str, str]:
        return namespaces_of(self.supervisor)


def namespaces_of(pid: int) -> dict[str, str]:
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in NAMESPACES}


def processes(cluster: Cluster) -> list[Identity]:
    """All processes in the network of a cluster."""
    network = cluster.namespaces()["net"]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if namespaces_of(int(process.name))["net"] == network:
                found.append(identify(int(process.name)))
        except OSError:
            continue
    return found


def traces(cluster: Cluster, started: list[Identity]) -> list[str]:
    """Which of these processes, and which mounts and files of the cluster, are still there."""
    found = [f"process {process.pid}" for process in started if is_alive(process)]
    for mountinfo in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            mounts = mountinfo.read_text()
        except OSError:
            continue
        if str(cluster.state) in mounts:
            found.append(f"mount of the state folder in {mountinfo}")
    if cluster.state.exists():
        found.append(f"{cluster.state} exists")
    return found


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + patience(seconds)
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)
