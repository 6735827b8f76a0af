"""Faults that no API can inject: signals to what runs on the node of a devcluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster import PROJECT
from devcluster.control import inside, require_box
from devcluster.layout import CONTAINERD_SOCKET, layout


class Node:
    """The one node of a devcluster."""

    def __init__(self, cluster: str) -> None:
        box = require_box(layout(cluster, os.environ, Path.home()))
        socket = inside(box, CONTAINERD_SOCKET)
        self._ctr = ("ctr", f"--address={socket}", "--namespace=k8s.io")

    def name_again(self, image: str, name: str) -> None:
        """Gives an image that the node has a second name."""
        self._run(*self._ctr, "images", "tag", "--force", image, name)

    def kill_container(self, container: str) -> bool:
        """``kill -9`` to the first process of a container, given as in a pod's status.

        False if it does not run any more, which a status may not say yet.
        """
        number = container.rpartition("/")[2]
        done = self._try(*self._ctr, "tasks", "kill", "--signal", "SIGKILL", number)
        if is_there := "not found" not in done.stderr:
            self._must(done)
        return is_there

    def kill_component(self, component: str) -> None:
        """``kill -9`` to a part of Kubernetes itself, which is started again."""
        self._run(sys.executable, "-m", "devcluster", "kill", component)

    def _run(self, *command: str) -> None:
        self._must(self._try(*command))

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
        )

    def _must(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, f"{' '.join(done.args)}: {done.stderr or done.stdout}"
