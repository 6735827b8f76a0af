"""One builder's control API over gRPC and mTLS.

loads           which builds run on every builder, for passes and for the gateway
watcher         asks one daemon, for as long as its pod is watched
served          how many builds a daemon has started; pure
daemon          the connection: which builds run; the one place that knows gRPC
history         the bytes of a daemon's answers; pure
history_requests  what clients ask of the history, in a form that leaves no trace; pure
history_merge   the answers of many histories, as one daemon would give them; pure
solve_requests  the bytes of the requests with which builds start; pure
solve_identity  what of which repository such a request builds, and in which variant; pure
solve_outputs   what such a request could write, and where to; pure
methods         the names of the methods that the gateway knows
protobuf        the wire format under both; pure
"""

from __future__ import annotations

from buildpool.buildkit.daemon import (
    Daemon,
    DaemonAccess,
    DaemonError,
    DaemonLateError,
    DaemonRefusedError,
    Room,
)
from buildpool.buildkit.history import BuildEvent, BuildEventKind

__all__ = [
    "BuildEvent",
    "BuildEventKind",
    "Daemon",
    "DaemonAccess",
    "DaemonError",
    "DaemonLateError",
    "DaemonRefusedError",
    "Room",
]
