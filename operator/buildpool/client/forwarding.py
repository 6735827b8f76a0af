"""The rim: keeps a connection alive, in a process of its own.

Each connection of a client has a port-forward of its own, and one more waits for the next. They end
with the pod that they lead to, and with the network: others are started, behind the same port,
until this process is ended. Meanwhile certificates are fetched again in good time.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Final

from buildpool.client.certificates import certificate_in, is_due
from buildpool.client.folder import Folder
from buildpool.client.kubectl import Kubectl
from buildpool.client.recipes import forwarding
from buildpool.client.refusals import one_line
from buildpool.client.relay import PortForward, Relay
from buildpool.client.values import Certificate, Cluster, Connection, Forward, Node, Target
from buildpool.core import naming
from buildpool.core.errors import BuildpoolError

FIRST_PAUSE_SECONDS: Final = 0.2
"""After a forward has ended; the pause doubles while none comes up."""
MOST_PAUSE_SECONDS: Final = 10.0
_ENDS_WITHIN_SECONDS: Final = 5.0
"""After a program has closed its output."""
_BEGUN: Final = re.compile(r"Forwarding from 127\.0\.0\.1:([0-9]{1,5}) ", re.ASCII)
LOOK_SECONDS: Final = 600.0
"""How often the age of certificates is looked at: by the wall clock, for machines sleep."""


def hold(name: str) -> None:
    """Keeps a connection alive until this process is asked to end."""
    folder = Folder(name)
    connection = folder.connection()
    if connection is None:
        raise BuildpoolError(f"there is no connection {name}")
    with folder.held(), suppress(asyncio.CancelledError):
        asyncio.run(_hold(Kubectl.found(), connection, folder))


async def _hold(kubectl: Kubectl, connection: Connection, folder: Folder) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - it runs
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        async with asyncio.TaskGroup() as group:
            for forward in connection.forwards:
                group.create_task(_forward(kubectl, connection.cluster, forward))
            group.create_task(_renew(kubectl, connection, folder))
    except* BuildpoolError as several:
        raise several.exceptions[0] from None


async def _forward(kubectl: Kubectl, cluster: Cluster, forward: Forward) -> None:
    """Has a port-forward ready for each connection; BuildpoolError: none has ever begun."""
    command = [kubectl.program, *forwarding(cluster, forward, to_any=True)[1:]]
    relay = Relay(forward.port)
    try:
        async with asyncio.TaskGroup() as group:
            await _offer(group, command, relay, forward.target)
    except* BuildpoolError as several:
        raise several.exceptions[0] from None
    finally:
        await relay.close()


async def _offer(
    group: asyncio.TaskGroup, command: list[str], relay: Relay, target: Target
) -> None:
    pause, has_begun = FIRST_PAUSE_SECONDS, False
    while True:
        begun: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        process = group.create_task(_run(command, begun))
        port, said = await begun
        if port:
            has_begun = True
            spare = PortForward(port, process)
            await relay.offer(spare)
            if spare.is_taken.is_set():
                pause = FIRST_PAUSE_SECONDS
                continue
        elif has_begun:
            _say(said)
        else:
            raise BuildpoolError(
                f"service/{target.service} in namespace {target.namespace} cannot be forwarded "
                f"({said.removeprefix('error: ')}); docs/how-to/connect.md lists the rights that "
                "this needs"
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, MOST_PAUSE_SECONDS)


async def _run(command: list[str], begun: asyncio.Future[tuple[int, str]]) -> None:
    """A port-forward, until kubectl ends.

    ``begun`` gets the port where it listens; 0 where it never does, and why.
    """
    line = ""
    try:
        async with aclosing(_lines(command)) as lines:
            async for line in lines:
                if begun.done():
                    if not line.startswith("Handling connection"):
                        _say(line)
                elif found := _BEGUN.match(line):
                    begun.set_result((int(found[1]), ""))
    except (OSError, ValueError) as error:  # kubectl is being replaced; an endless line
        line = one_line(str(error))
        _say(line)
    finally:
        if not begun.done():
            begun.set_result((0, line))


async def _lines(command: list[str]) -> AsyncGenerator[str, None]:
    """What a program says, until it ends; it ends when nobody listens any more."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    has_ended = False
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        while raw := await process.stdout.readline():
            yield one_line(raw.decode(errors="replace"))
        has_ended = True
    finally:
        await _end(process, within=_ENDS_WITHIN_SECONDS if has_ended else 0.0)


async def _end(process: asyncio.subprocess.Process, *, within: float) -> None:
    """Waits for the end of a program; kills it, if it does not end by then.

    To kill one that has just ended takes its exit code from asyncio, which complains of that.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await process.wait()
            return
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _renew(kubectl: Kubectl, connection: Connection, folder: Folder) -> None:
    while True:
        # Others may have been connected meanwhile, through the same port-forwards.
        now = folder.connection()
        if now is None:
            raise BuildpoolError(f"connection {connection.name} was removed")
        for node in now.nodes:
            if is_due(folder.certificate(node), now=datetime.now(UTC)):
                try:
                    fetched = await asyncio.to_thread(fetch, kubectl, connection.cluster, node)
                    folder.keep_certificate(node, fetched)
                except BuildpoolError as error:
                    _say(str(error))
        folder.bound_log()
        await asyncio.sleep(LOOK_SECONDS)


def fetch(kubectl: Kubectl, cluster: Cluster, node: Node) -> Certificate:
    """The certificate of a node's client, out of its Secret."""
    name = naming.client_certificate(node.pool, node.client)
    path = f"/api/v1/namespaces/{node.pool.namespace}/secrets/{name}"
    secret = kubectl.get(cluster, path, f"Secret {name}")
    return certificate_in(secret, node.pool, node.client, now=datetime.now(UTC))


def _say(line: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {line}\n")
    sys.stderr.flush()
