"""Where everything lies: the folders of one cluster, the cache, and the places inside the box.

Pure: computes paths, never touches them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devcluster.errors import DevclusterError

PROJECT: Final = Path(__file__).resolve().parent.parent
"""The repository: what a Python process needs on its path to import this package."""

RUN: Final = Path("/run/devcluster")
"""Sockets and other volatile files, on a tmpfs that exists only inside the box."""
CONTROL_SOCKET: Final = RUN / "control.sock"
CONTAINERD_SOCKET: Final = RUN / "containerd.sock"
BUILDKIT_SOCKET: Final = RUN / "buildkitd.sock"

COVERED: Final = (Path("/run"), Path("/var/lib"), Path("/var/log"))
"""Folders that the box replaces with its own, so nothing it needs may lie below them."""

NODE_ADDRESS: Final = "10.88.0.1"
POD_NETWORK: Final = "10.88.0.0/24"
SERVICE_NETWORK: Final = "10.96.0.0/16"
SERVICE_ADDRESS: Final = "10.96.0.1"

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one cluster."""

    name: str
    state: Path
    cache: Path

    @property
    def lock(self) -> Path:
        """Held while the cluster is started or removed."""
        return self.cache / "locks" / f"cluster-{self.name}.lock"

    @property
    def identity(self) -> Path:
        """Which process is the supervisor: told from any later one of the same number."""
        return self.state / "supervisor.json"

    @property
    def plan(self) -> Path:
        """What the supervisor is asked to run."""
        return self.state / "plan.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.state / "kubeconfig"

    @property
    def config(self) -> Path:
        """Rendered configuration files, written anew at each start."""
        return self.state / "config"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        """One log file per component, and the audit log."""
        return self.state / "logs"

    @property
    def audit_log(self) -> Path:
        """Who asked the API server for what (level Metadata)."""
        return self.logs / "audit.log"

    @property
    def data(self) -> Path:
        """What survives a crash: etcd, images, the build cache."""
        return self.state / "data"

    @property
    def volumes(self) -> Path:
        """One folder per dynamically provisioned volume."""
        return self.state / "volumes"

    @property
    def var(self) -> Path:
        """Becomes ``/var/lib`` and ``/var/log`` inside the box."""
        return self.state / "var"

    def log(self, component: str) -> Path:
        """The log of one component."""
        return self.logs / f"{component}.log"


def layout(name: str, environ: Mapping[str, str], home: Path) -> Layout:
    """Where the cluster of that name lives, by the XDG rules."""
    if not _NAME.fullmatch(name):
        raise DevclusterError(
            f"{name!r} cannot name a cluster",
            remedy="Use up to 30 lower-case letters, digits and inner hyphens.",
        )
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state")
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    for needed in (state, cache, PROJECT):
        if any(needed.is_relative_to(covered) for covered in COVERED):
            raise DevclusterError(
                f"{needed} lies below a folder that the cluster replaces with its own",
                remedy="Set XDG_STATE_HOME and XDG_CACHE_HOME to folders outside "
                + ", ".join(map(str, COVERED))
                + ".",
            )
    folder = "buildpool-devcluster"
    return Layout(name=name, state=state / folder / name, cache=cache / folder)
