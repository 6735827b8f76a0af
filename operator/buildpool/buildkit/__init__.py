"""One builder's control API over gRPC and mTLS.

wire    the bytes of its answers; pure
daemon  the connection: who is there, and which builds run; the one place that knows gRPC
"""

from __future__ import annotations

from buildpool.buildkit.daemon import Daemon, DaemonAccess, DaemonError
from buildpool.buildkit.history import BuildEvent, BuildEventKind

__all__ = ["BuildEvent", "BuildEventKind", "Daemon", "DaemonAccess", "DaemonError"]
