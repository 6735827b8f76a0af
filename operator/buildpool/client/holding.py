"""The rim: starts and ends the process that holds a connection, and looks whether a way is open."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from buildpool.client.folder import Folder
from buildpool.client.nodes import folder_of
from buildpool.client.refusals import one_line
from buildpool.client.values import FILES, Connection, Forward, Node, Target
from buildpool.client.ways import LOOPBACK
from buildpool.core import naming
from buildpool.core.errors import BuildpoolError

_LISTENS_WITHIN_SECONDS: Final = 60.0
"""How long a port-forward may take until it listens."""
_ENDS_WITHIN_SECONDS: Final = 10.0
"""How long the holder of a connection may take to end before it is killed."""
_TICK_SECONDS: Final = 0.05


def free_ports(
    targets: Sequence[Target], *, asked: int, before: Iterable[Forward], is_held: bool
) -> dict[Target, int]:
    """A port of this machine for each Service: the one from before, where it can be had again.

    ``asked`` is what the user wants for the first of them; 0: any. BuildpoolError: it is taken.
    """
    old = {forward.target: forward.port for forward in before}
    ours = set(old.values()) if is_held else set()
    ports: dict[Target, int] = {}
    for number, target in enumerate(targets):
        if asked:
            port = asked + number
            if port not in ours and not _is_free(port):
                raise BuildpoolError(
                    f"port {port} of this machine is taken by another program; give another "
                    "--port, or leave it out"
                )
        else:
            port = old.get(target, 0)
            if not port or not (port in ours or _is_free(port)):
                port = _any_port()
        ports[target] = port
    return ports


def usual_ports(targets: Sequence[Target], *, asked: int) -> dict[Target, int]:
    """Ports for commands that are only printed."""
    return {target: (asked or naming.PORT) + number for number, target in enumerate(targets)}


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as trial:
        trial.bind((LOOPBACK, 0))
        port: int = trial.getsockname()[1]
        return port


def start(
    connection: Connection, folder: Folder, *, in_background: bool
) -> subprocess.Popen[bytes]:
    """Starts the process that holds a connection, and waits until its ports listen."""
    command = [sys.executable, "-m", "buildpool.cli", "hold", connection.name]
    if in_background:
        with folder.new_log() as log:
            process = subprocess.Popen(  # noqa: S603 - no shell
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    else:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - no shell
    try:
        for forward in connection.forwards:
            _wait_for(forward, process, folder if in_background else None)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process


def _wait_for(forward: Forward, process: subprocess.Popen[bytes], log: Folder | None) -> None:
    deadline = time.monotonic() + _LISTENS_WITHIN_SECONDS
    while not _is_open(forward.port):
        if process.poll() is not None and log is None:
            raise SystemExit(1)  # it has said why
        if process.poll() is not None or time.monotonic() > deadline:
            target = forward.target
            said = one_line(log.last_words() if log else "").removeprefix("error: ")
            raise BuildpoolError(
                said
                or f"service/{target.service} in namespace {target.namespace} is not forwarded "
                f"within {_LISTENS_WITHIN_SECONDS:g} s; see whether its pods are Ready"
            )
        time.sleep(_TICK_SECONDS)


def _is_open(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=5).close()
    except OSError:
        return False
    return True


def wait(process: subprocess.Popen[bytes]) -> None:
    """Until the process has ended, which this one asks it for when it is asked itself."""

    def end(*_: object) -> None:
        process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    if process.wait() != 0:
        raise BuildpoolError("the port-forward has ended; connect again")


def stop(folder: Folder) -> None:
    """Ends the process that holds a connection, if there is one."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _ENDS_WITHIN_SECONDS
        holder = folder.holder()
        if holder is None or holder <= 1:
            return
        try:
            os.kill(holder, number)
        except ProcessLookupError:
            return
        while folder.holder() is not None and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS)


def complaint(node: Node, folder: Folder) -> str:
    """What is wrong between here and a pool, by a TLS handshake; empty: nothing that this shows."""
    files = (str(Path(folder_of(node, folder.path)) / file) for file in FILES)
    ca, cert, key = files
    try:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(cert, key)
        with (
            socket.create_connection((node.host, node.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=node.server_name),
        ):
            return ""
    except OSError as error:  # TLS's own are among them
        return one_line(str(error))
