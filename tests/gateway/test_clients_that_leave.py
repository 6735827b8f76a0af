"""A client that leaves was not refused, however far it came: its end is no fault to be counted."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import pytest

from buildpool.gateway import access_log
from buildpool.gateway.xds.limits import Limits
from daemons import until
from gateway.lab import Lab, PoolLab, a_gateway

AT_ONCE = struct.pack("ii", 1, 0)
"""A socket that lingers for no time sends a reset."""


class Stage(StrEnum):
    """What a client does last."""

    CONNECT = "connects"
    HALF_HELLO = "sends half of its hello"
    HELLO = "sends its hello"
    ANSWER = "reads the answer"
    HALF_FINISH = "sends half of its certificate"
    FINISH = "finishes its handshake"


def leave_at(stage: Stage, port: int, trusted: ssl.SSLContext, *, with_reset: bool) -> str:
    """Goes so far with a handshake, and leaves; returns the address that it came from."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        host, number = client.getsockname()
        if with_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        if stage is Stage.CONNECT:
            return f"{host}:{number}"
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = trusted.wrap_bio(incoming, outgoing, server_hostname="ci.builds.svc")
        with suppress(ssl.SSLWantReadError):
            handshake.do_handshake()
        hello = outgoing.read()
        client.sendall(hello[:40] if stage is Stage.HALF_HELLO else hello)
        if stage in (Stage.HALF_HELLO, Stage.HELLO):
            return f"{host}:{number}"
        incoming.write(client.recv(65536))
        if stage is Stage.ANSWER:
            return f"{host}:{number}"
        while True:
            try:
                handshake.do_handshake()
            except ssl.SSLWantReadError:
                incoming.write(client.recv(65536))
            else:
                break
        finish = outgoing.read()
        client.sendall(finish[:20] if stage is Stage.HALF_FINISH else finish)
        return f"{host}:{number}"


def trust(pool: PoolLab, folder: Path) -> ssl.SSLContext:
    """What a client of the pool shows and trusts."""
    pair, authority = pool.client().pair, folder / "ca.pem"
    (folder / "cert.pem").write_bytes(pair.certificate)
    (folder / "key.pem").write_bytes(pair.key)
    authority.write_bytes(pool.authority.certificate)
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize("with_reset", [False, True], ids=["hangs up", "resets"])
async def test_a_client_that_leaves_was_not_refused(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    with_reset: bool,
) -> None:
    # Envoy notices some resets only once this time is over.
    async with a_gateway(tmp_path, Limits(hello=timedelta(seconds=1))) as lab:
        await all_leave(lab, tmp_path, caplog, with_reset=with_reset)


async def all_leave(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, with_reset: bool
) -> None:
    """Clients come so far and leave, and none is said to be refused."""
    pool = PoolLab()
    await lab.add_pool(pool, "ci-builder-0")
    caplog.set_level(logging.DEBUG, access_log.log.name)
    trusted = trust(pool, tmp_path)
    peers = {
        await asyncio.to_thread(leave_at, stage, lab.port, trusted, with_reset=with_reset)
        for stage in Stage
        for _ in range(5)
    }
    is_told = lambda peer: f"connection from {peer} " in caplog.text  # noqa: E731
    await until(lambda: all(map(is_told, peers)), "the ends of all are told", within=20)
    assert not lab.metric("refused_total")
    assert "refused a connection" not in caplog.text
