"""The rim: starts and ends the process that holds a connection, and looks whether a way is open."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from buildpool.client.folder import Folder
from buildpool.client.nodes import folder_of
from buildpool.client.refusals import one_line
from buildpool.client.values import FILES, Connection, Forward, Node, Target
from buildpool.client.ways import LOOPBACK, Reach
from buildpool.core import naming
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey

_LISTENS_WITHIN_SECONDS: Final = 60.0
"""How long a port-forward may take until it listens."""
_ENDS_WITHIN_SECONDS: Final = 10.0
"""How long the holder of a connection may take to end before it is killed."""
_TICK_SECONDS: Final = 0.05
HANGS_UP: Final = "it hangs up after the handshake; it may not take this certificate"
_FIRST_WORDS: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""Of a client of HTTP/2: its preface, and settings without any (RFC 9113, 3.4)."""


def free_ports(
    reaches: Iterable[Reach], *, asked: int, before: Connection | None, is_held: bool
) -> dict[PoolKey, int]:
    """A port of this machine for each pool that is forwarded; the one from before, if it is free.

    ``asked`` is what the user wants for the first of them; 0: any. BuildpoolError: it is taken.
    """
    old = ports_of(before)
    ours = set(old.values()) if is_held else set()
    ports: dict[PoolKey, int] = {}
    for reach in reaches:
        port = asked + len(ports) if asked else old.get((reach.pool.key, reach.way.target), 0)
        if port not in ours and (asked or port):
            why = _obstacle(port)
            if why and asked:
                raise BuildpoolError(
                    f"port {port} of this machine {why}; give another --port, or leave it out"
                )
            port = 0 if why else port
        while not port or port in ports.values():
            port = _any_port()
        ports[reach.pool.key] = port
    return ports


def usual_ports(
    reaches: Iterable[Reach], *, asked: int, before: Connection | None, is_held: bool
) -> dict[PoolKey, int]:
    """Ports for commands that are only printed: those that are forwarded now, or the usual ones."""
    held = ports_of(before) if is_held and not asked else {}
    return {
        reach.pool.key: held.get((reach.pool.key, reach.way.target))
        or (asked or naming.PORT) + number
        for number, reach in enumerate(reaches)
    }


def ports_of(connection: Connection | None) -> dict[tuple[PoolKey, Target | None], int]:
    """The ports of a connection by what they lead to."""
    nodes = connection.nodes if connection else ()
    return {(node.pool, node.target): node.port for node in nodes if node.target}


def _obstacle(port: int) -> str:
    """Why a port of this machine cannot be listened on; empty: it can."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            return "is taken by another program" if is_taken else f"is of no use: {error.strerror}"
        return ""


def _any_port() -> int:
    with socket.socket() as trial:
        trial.bind((LOOPBACK, 0))
        port: int = trial.getsockname()[1]
        return port


def start(connection: Connection, folder: Folder) -> subprocess.Popen[bytes]:
    """Starts the process that holds a connection, and waits until its ports listen.

    It is in a session of its own: Ctrl-C is for the command that has started it.
    """
    folder.forget_holder()
    # Nothing of the current folder shall be imported, nor be kept from being removed.
    command = [sys.executable, "-P", "-m", "buildpool.cli", "hold", connection.name]
    with ExitStack() as stack:
        log = stack.enter_context(folder.new_log()) if connection.is_detached else None
        process = subprocess.Popen(  # noqa: S603 - no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_with_absolute_paths(os.environ),
            start_new_session=True,
        )
    try:
        for forward in connection.forwards:
            _wait_for(forward, process, folder if connection.is_detached else None)
    except BaseException:
        end(process)
        raise
    return process


def _with_absolute_paths(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process in another folder: kubeconfigs may be named by where we are."""
    files = environment.get("KUBECONFIG", "").split(os.pathsep)
    found = os.pathsep.join(str(Path(file).absolute()) for file in files if file)
    return {**environment, **({"KUBECONFIG": found} if found else {})}


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that was started here."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:  # it may wait for an answer of the API server
        process.kill()
        process.wait()


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
    """Until the process has ended, which it does by itself only where something is wrong."""
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
        except PermissionError:
            break
        while folder.holder() is not None:
            if time.monotonic() > deadline:
                break
            time.sleep(_TICK_SECONDS)
        else:
            return
    raise BuildpoolError(
        f"process {holder}, which holds connection {folder.path.name}, does not end; end it by hand"
    )


def complaint(node: Node, folder: Folder) -> str:
    """What is wrong between here and a pool; empty: it takes this client's certificate.

    By TLS, and by the first words of HTTP/2. A server that does not take a certificate says so only
    after a handshake that looks fine to its client, if it does not just hang up.
    """
    files = (str(Path(folder_of(node, folder.path)) / file) for file in FILES)
    ca, cert, key = files
    try:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((node.host, node.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=node.server_name) as secured,
        ):
            return _answer(secured)
    except OSError as error:  # TLS's own are among them
        return one_line(str(error))


def _answer(secured: ssl.SSLSocket) -> str:
    """What is wrong with how the server goes on after the handshake; empty: nothing."""
    try:
        secured.sendall(_FIRST_WORDS)
        if not secured.recv(1):
            return HANGS_UP
    except (ConnectionError, ssl.SSLEOFError):
        return HANGS_UP
    with suppress(OSError):
        # A connection that is closed while more comes is reset, which kubectl takes badly.
        secured.shutdown(socket.SHUT_WR)
        while secured.recv(65536):
            pass
    return ""
