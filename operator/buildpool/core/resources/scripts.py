"""The shell scripts that run in builders' pods. They use what the images of BuildKit have: busybox.

Told to go, each goes: process 1 of a container hears only what it has a trap for.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

FORGET_SECONDS: Final = 10
"""Seconds until no proxy of the cluster leads to a pod that goes. A moment, as a rule; but proxies
that have lost the API server pause for longer and longer before they ask again."""

_DRAIN: Final = """\
lives() {{
  for daemon in $(grep -ls '^Name:[[:space:]]*buildkitd$' /proc/[0-9]*/status); do
    [ "${{daemon%/status}}/ns/ipc" -ef /proc/self/ns/ipc ] && return
  done
  return 1
}}
lives && is_seen=yes || is_seen=
sleep {forget}
idle() {{
  seen=$(buildctl --addr {socket} debug histories) || return 1
  ! echo "$seen" | grep -q ^STARTED || return 1
  ! cat /proc/net/tcp /proc/net/tcp6 | grep -q ': [0-9A-F]*:{port:04X} [0-9A-F:]* 01 '
}}
until idle 2>/dev/null && sleep 1 && idle 2>/dev/null; do
  [ -z "$is_seen" ] || lives || exit 0
  sleep 1
done
"""

PATIENCE: Final = 20
"""How many probes in a row have to see a step hang before it is made to fail."""

_CLEAN_UP: Final = r"""
is_ours() { [ "$1/ns/ipc" -ef /proc/self/ns/ipc ]; }
is_of_step() { [ "$1/ns/ipc" -ef /proc/self/fd/9 ]; }
of_step() { for process in /proc/[0-9]*; do is_of_step "$process" && echo "$process"; done; }
children() { grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | sed 's,/status,,'; }
parents() { sed 's,$,/status,' | xargs sed -n 's,^PPid:[[:space:]]*,/proc/,p' | sort -u; }
names() { sed 's,$,/comm,' | xargs cat | tr -cd '[:alnum:]._\n-' | sort -u | head -n 9 | xargs; }
say() {
  for daemon in $(grep -ls '^Name:[[:space:]]*buildkitd$' /proc/[0-9]*/status); do
    daemon=${daemon%/status}
    is_ours "$daemon" || continue
    echo "time=\"$(date -u +%FT%TZ)\" level=warning msg=\"buildpool: $*\"" >> "$daemon/fd/2"
  done
}
is_held() {
  for parent in $(of_step | parents); do
    [ "$parent" = /proc/1 ] || is_of_step "$parent" || return 0
  done
  return 1
}
end_if_abandoned() {
  ! is_ours "$1" && is_of_step "$1" && ! is_held || return
  left=$(of_step)
  [ -n "$left" ] || return
  say "ended what a step had left behind: $(echo "$left" | names)"
  for process in $left; do ! is_of_step "$process" || kill -9 "${process#/proc/}"; done
}
end_abandoned() {
  for orphan in $(children 1); do end_if_abandoned "$orphan" 9< "$orphan/ns/ipc"; done
}
runtime_of() {
  for process in $(grep -ls "$1" /proc/[0-9]*/cmdline | sed 's,/cmdline,,'); do
    ! is_ours "$process" || ! tr '\0' ' ' < "$process/cmdline" | grep -q " run .*$1 \$" ||
      echo "${process#/proc/}"
  done
}
fail_hanging() {
  mkdir -p ../hanging
  for step in *; do
    main=$(sed -n 's/.*"init_process_pid":\([0-9]*\).*/\1/p' "$step/state.json")
    [ -n "$main" ] && [ ! -d "/proc/$main" ] || continue
    runtime=$(runtime_of "$step")
    [ -n "$runtime" ] || continue
    echo >> "../hanging/$step"
    seen=$(wc -l < "../hanging/$step")
    holders=$(children "$runtime" | names)
    [ "$seen" != 2 ] || say "a step has ended and hangs: its output is held by $holders"
    [ "$seen" -ge PATIENCE ] || continue
    say "failed a step that hung: its output was held by $holders"
    kill -9 $runtime
  done
  for step in ../hanging/*; do [ -d "${step##*/}" ] || rm -f "$step"; done
}
(
  end_abandoned
  cd "${XDG_RUNTIME_DIR:-/run/user/1000}/runc" && fail_hanging
) 2> /dev/null
"""

_NOBODY: Final = """\
read -r _ outside _ < /proc/self/uid_map
if [ "$outside" = 0 ]; then
  echo 'root of this pod would be root of its node, which gave it no user namespace; enable the \
feature gate UserNamespacesSupport there, or set builders.security to Rootless' >&2
  exit 1
fi
"""

_INPUTS: Final = """\
trap 'exit 1' TERM
until [ "$(cat {files} | sha256sum | cut -c 1-16)" = {expected} ]; do sleep 0.2; done
"""


def drain(socket: str, port: int, *, unset: Sequence[str] = ()) -> str:
    """What holds back SIGTERM: an eviction, ``kubectl delete pod``, ourselves.

    First every proxy must forget this pod (``FORGET_SECONDS``); what connects is still served.
    Then until no build is active and no client is connected: BuildKit does not list all solves, and
    a daemon that got SIGTERM finishes its builds but refuses new connections, of which a build of
    linked targets needs one to go on. A daemon that does not answer is busy, not idle. One that
    dies ends its container, and the wait: where containers share processes, nobody else ends that.
    ``unset`` are variables that the daemon has and ``buildctl`` must not.
    """
    without = f"unset {' '.join(unset)}\n" if unset else ""
    return without + _DRAIN.format(forget=FORGET_SECONDS, socket=socket, port=port)


def clean_up(then: Sequence[str]) -> str:
    """Ends what steps have left behind, and then becomes the command ``then``.

    For a rootless builder. Its steps have no PID namespace of their own, with whose first process
    all others would end. What a step is, shows its IPC namespace: each has one, the daemon and all
    that serves it have the pod's. While the step goes on, its runtime is outside of that namespace
    and has a child in it, so that the step is *held*. Where nobody holds it any more, what remains
    has been left behind, and is killed. Meanwhile the namespace is kept open: else it may go, and
    a step that begins gets its number.

    A step whose main process has ended hangs as long as anything holds its output, and its build
    with it, even after its client has gone. Nobody can see from here whether the client has gone.
    So the step has ``PATIENCE`` probes; then its runtime is killed, which fails the step: its end
    would look like success.
    """
    return f"{_CLEAN_UP.strip().replace('PATIENCE', str(PATIENCE))}\nexec {shlex.join(then)}\n"


def nobody_on_its_node() -> str:
    """Ends the pod before its daemon starts where its root is root of the node.

    The API server may have stored a user namespace, and forget it of each pod later, when the
    feature is turned off; a node may not know it. This is the last who can see it.
    """
    return _NOBODY


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
