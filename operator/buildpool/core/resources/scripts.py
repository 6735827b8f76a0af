"""The shell scripts that run in builders' pods. They use what the images of BuildKit have: busybox.

Told to go, each goes: process 1 of a container hears only what it has a trap for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FORGET: Final = 10
"""Seconds until no proxy of the cluster leads to a pod that goes. A moment, as a rule; but proxies
that have lost the API server pause for longer and longer before they ask again."""

_DRAIN: Final = """\
sleep {forget}
idle() {{
  seen=$(buildctl --addr {socket} debug histories) || return 1
  ! echo "$seen" | grep -q ^STARTED || return 1
  ! cat /proc/net/tcp /proc/net/tcp6 | grep -q ': [0-9A-F]*:{port:04X} [0-9A-F:]* 01 '
}}
until idle 2>/dev/null && sleep 1 && idle 2>/dev/null; do sleep 1; done
"""

_INPUTS: Final = """\
trap 'exit 1' TERM
until [ "$(cat {files} | sha256sum | cut -c 1-16)" = {expected} ]; do sleep 0.2; done
"""


def drain(socket: str, port: int, *, unset: Sequence[str] = ()) -> str:
    """What holds back SIGTERM: an eviction, ``kubectl delete pod``, ourselves.

    First every proxy must forget this pod (``FORGET``); what connects meanwhile is still served.
    Then until no build is active and no client is connected: BuildKit does not list all solves, and
    a daemon that got SIGTERM finishes its builds but refuses new connections, of which a build of
    linked targets needs one to go on. A daemon that does not answer is busy, not idle; one that
    dies ends its container. ``unset`` are variables that the daemon has and ``buildctl`` must not.
    """
    without = f"unset {' '.join(unset)}\n" if unset else ""
    return without + _DRAIN.format(forget=FORGET, socket=socket, port=port)


def inputs(files: Sequence[str], expected: str) -> str:
    """Waits until the kubelet shows what a revision is made of.

    It may have an older state of the Secret or ConfigMap at hand, and the daemon reads both only
    once. What is outdated meanwhile waits in vain, until it is told to go.
    """
    return _INPUTS.format(files=" ".join(files), expected=expected)


def volume_free(lock: str) -> str:
    """Waits until the predecessor has left the volume; its daemon holds this lock."""
    held = f"[ -e {lock} ] && command -v flock"
    return f"trap 'exit 1' TERM; if {held}; then flock {lock} true & wait $!; fi"
