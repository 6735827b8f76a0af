"""Each command, really run, loads its own program and nothing of the others; the small stay small.

Python itself says what is imported (``-X importtime``). Commands that need a cluster end at once,
because there is none.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer.main

from buildpool.cli.app import app
from buildpool.core.pki import Bundle, issue, issue_authority
from gateway.ports import free_port
from unit.core.pki.certificates import CLIENT, DAY, SERVER

ROOT = Path(__file__).parents[3]
PROGRAM = (sys.executable, "-X", "importtime", "-m", "buildpool.cli")
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"} | {
    "HOME": "/nonexistent",
    "PYTHONPATH": str(ROOT / "operator"),
}
KOPF, GRPC = "kopf", "grpc"
CLUSTER = {KOPF, "kubernetes"}
HEAVY = {*CLUSTER, GRPC, "cryptography", "prometheus_client", "yaml"}
PROGRAMS = {"buildpool.manager", "buildpool.controller", "buildpool.gateway", "buildpool.sidecars"}
ADAPTERS = {"buildpool.kube", "buildpool.buildkit", "buildpool.preflight"}
OPERATORS = {*CLUSTER, GRPC, "aiohttp", "prometheus_client", *PROGRAMS, *ADAPTERS}
"""What only the operator needs."""


@dataclass(frozen=True)
class Case:
    """A command that ends by itself, and whom it must know and must not know."""

    arguments: tuple[str, ...]
    knows: set[str]
    knows_not: set[str]


CASES = {
    "version": Case(
        ("--client",), {"buildpool.cli.app"}, {*HEAVY, "aiohttp", *PROGRAMS, *ADAPTERS}
    ),
    "crd": Case((), {"buildpool.core.api.crd"}, {*CLUSTER, GRPC, *PROGRAMS, *ADAPTERS}),
    "docs": Case(("metrics",), {"buildpool.cli.docs"}, {*CLUSTER, GRPC, "buildpool.manager"}),
    "render": Case(
        (str(ROOT / "manifests/samples/pool-full.yaml"),),
        {"buildpool.core.planning"},
        {*CLUSTER, GRPC, *PROGRAMS, *ADAPTERS},
    ),
    "connect": Case(("ci",), {"buildpool.client.connecting"}, OPERATORS),
    "disconnect": Case(("ci",), {"buildpool.client.connecting"}, OPERATORS),
    "hold": Case(("ci",), {"buildpool.client.forwarding"}, OPERATORS),
    "status": Case((), {"buildpool.client.reading"}, {*OPERATORS, "cryptography"}),
    "explain": Case(("ci",), {"buildpool.client.reading"}, {*OPERATORS, "cryptography"}),
    "top": Case(("ci",), {"buildpool.client.top"}, {*OPERATORS, "cryptography", "rich.live"}),
    "warm": Case(("ci",), {"buildpool.client.reading"}, {*OPERATORS, "cryptography"}),
    "doctor": Case(("ci",), {"buildpool.client.doctor"}, OPERATORS),
    "builds": Case((), {"buildpool.client.looking"}, OPERATORS),
    "logs": Case(("a",), {"buildpool.client.looking"}, OPERATORS),
    "cancel": Case(("a",), {"buildpool.client.cancelling"}, OPERATORS),
    "rotate": Case(("ci",), {"buildpool.client.reading"}, {*OPERATORS, "cryptography"}),
    "run": Case(
        ("--namespace", "buildpool-system"),
        {KOPF, "kubernetes", GRPC, "buildpool.manager", "buildpool.controller", *ADAPTERS},
        {"buildpool.gateway", "buildpool.sidecars"},
    ),
    "gateway": Case(
        ("--namespace", "buildpool-system"),
        {"kubernetes", GRPC, "buildpool.gateway.server"},
        {KOPF, "buildpool.preflight", *(PROGRAMS - {"buildpool.gateway"})},
    ),
    "gateway-bootstrap": Case(
        (),
        {"buildpool.gateway.xds.bootstrap"},
        {*HEAVY, *ADAPTERS, *(PROGRAMS - {"buildpool.gateway"})},
    ),
    "drain-gateway": Case(
        ("--settle-seconds", "0", "--patience-seconds", "0", "--sockets", "/nowhere"),
        {"buildpool.gateway.draining"},
        {*HEAVY, *ADAPTERS, *(PROGRAMS - {"buildpool.gateway"})},
    ),
}


def imported(told: str) -> set[str]:
    """Every module by its full name, with the packages it lies in."""
    return set(re.findall(r"^import time: .*\| +(\S+)$", told, re.MULTILINE))


@pytest.mark.parametrize("command", CASES)
def test_a_command_loads_its_program_and_no_other(command: str) -> None:
    case = CASES[command]
    done = subprocess.run(
        [*PROGRAM, command, *case.arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = imported(done.stderr)
    assert case.knows <= loaded, done.stderr[-2000:]
    assert not case.knows_not & loaded


@dataclass(frozen=True)
class Sidecar:
    """A command that serves until it is told to end."""

    page: str
    knows: set[str]
    knows_not: set[str]
    mebibytes: float
    """Memory that it may take when it has answered a request and idles."""


SIDECARS = {
    "cache-guard": Sidecar(
        "/v2/",
        {"buildpool.sidecars.guard.server"},
        {
            *HEAVY,
            *("pydantic", "typer", "buildpool.cli.app", "buildpool.sidecars.keeper"),
            *ADAPTERS,
            *(PROGRAMS - {"buildpool.sidecars"}),
        },
        45,
    ),
    "cache-keeper": Sidecar(
        "/status",
        {"buildpool.sidecars.keeper.server"},
        {
            *CLUSTER,
            *(GRPC, "prometheus_client", "typer", "buildpool.cli.app", "buildpool.sidecars.guard"),
            *ADAPTERS,
            *(PROGRAMS - {"buildpool.sidecars"}),
        },
        64,
    ),
}


def test_every_command_is_looked_at() -> None:
    commands = typer.main.get_command(app)
    assert set(commands.commands) == CASES.keys() | SIDECARS.keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", SIDECARS)
def test_a_sidecar_loads_its_program_only_and_stays_small(command: str, tmp_path: Path) -> None:
    sidecar = SIDECARS[command]
    now = datetime.now(UTC)  # OpenSSL verifies against the real clock
    authority = issue_authority("builds/ci", now=now, lifetime=DAY)
    server = mounted(tmp_path / "server", issue(authority, SERVER, now=now))
    client = mounted(tmp_path / "client", issue(authority, CLIENT, now=now))
    context = ssl.create_default_context(cafile=client / "ca.pem")
    context.load_cert_chain(client / "cert.pem", client / "key.pem")
    port = free_port()
    # Both wait until the registry accepts connections; it is asked nothing here.
    with socket.create_server(("localhost", 0)) as registry:
        flags = {
            "cache-guard": [
                f"--registry=localhost:{registry.getsockname()[1]}",
                f"--keeper=localhost:{free_port()}",
                f"--server-certificates={server}",
                f"--client-certificates={client}",
            ],
            "cache-keeper": [
                f"--storage={tmp_path}",
                "--capacity=1000000",
                "--retention=14d",
                "--grace=2h",
                f"--certificates={server}",
                f"--registry-port={registry.getsockname()[1]}",
            ],
        }
        log = tmp_path / "log"
        with running([command, *flags[command], f"--port={port}"], log) as process:
            wait_for(port, process)
            url = f"https://localhost:{port}{sidecar.page}"
            with urllib.request.urlopen(url, context=context, timeout=10) as answer:
                assert answer.status == 200
            taken = resident_mebibytes(process.pid)
    loaded = imported(log.read_text())
    assert sidecar.knows <= loaded
    assert not sidecar.knows_not & loaded
    assert process.returncode == 0, log.read_text()[-2000:]
    assert taken <= sidecar.mebibytes


@contextmanager
def running(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command for the length of a block, and told to end after it."""
    with (
        log.open("wb") as out,
        subprocess.Popen([*PROGRAM, *arguments], env=ENVIRONMENT, stderr=out) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the process accepts connections."""
    while True:
        assert process.poll() is None, "it has ended"
        try:
            socket.create_connection(("localhost", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return


def mounted(folder: Path, bundle: Bundle) -> Path:
    """The files of a certificate in a folder."""
    folder.mkdir()
    (folder / "ca.pem").write_bytes(bundle.trust)
    (folder / "cert.pem").write_bytes(bundle.pair.certificate)
    (folder / "key.pem").write_bytes(bundle.pair.key)
    return folder


def resident_mebibytes(pid: int) -> float:
    """What the kernel counts as the memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
