"""A user's machine: real kubectl and buildx, a home, and an API server that says what a test wants.

No port is really forwarded: in the place of ``kubectl port-forward``, a program listens that
leads nowhere. So all of it runs without a cluster.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from buildpool.core import naming
from buildpool.core.pki import CertificateRequest, Use, issue, issue_authority
from cluster import PROJECT
from samples import a_raw_pool
from unit.core.pki.certificates import DAY

NAMESPACE = "builds"
GATEWAY = "buildpool-gateway.buildpool-system.svc.cluster.local"
CLOCK = "the clock"
"""Where a test says by how many seconds the API server's clock is ahead."""
Objects = dict[str, dict[str, Any]]
IN_A_TERMINAL = (shutil.which("env") or "env", "--default-signal=HUP,INT,TERM")
"""Before a command that gets signals: tests may run under nohup or in the background, where a
process is born with signals ignored."""

_FORWARD = """\
import pathlib, socket, sys, time
while pathlib.Path({slow!r}).exists():
    time.sleep(0.02)
port = int(sys.argv[-1].partition(":")[0] or 0)
with socket.create_server(("127.0.0.1", port)) as server:
    port = server.getsockname()[1]
    print(f"Forwarding from 127.0.0.1:{{port}} -> 1234", flush=True)
    while True:
        server.accept()[0].close()
"""
_KUBECTL = """\
#!/bin/sh
case " $* " in
    *" port-forward "*) exec {python} -P {forward} "$@" ;;
    *" get --raw "*) if [ -e {old} ]; then KUBECONFIG={old}; export KUBECONFIG; fi ;;
esac
exec {kubectl} "$@"
"""


@dataclass(frozen=True)
class Machine:
    """What a user has."""

    home: Path
    objects: Objects
    """What the API server has, by path; a test may change it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    """What commands are run by; empty: nothing."""

    @property
    def files(self) -> Path:
        """Where connections are kept."""
        return self.home / "config" / "buildpool"

    @property
    def bin(self) -> Path:
        """The only folder on the PATH."""
        return self.home / "bin"

    @property
    def builders(self) -> dict[str, list[dict[str, Any]]]:
        """The nodes of each builder that buildx knows."""
        files = (self.home / "buildx" / "instances").glob("*")
        return {file.name: json.loads(file.read_text())["Nodes"] for file in files}

    def command(self, *arguments: str) -> list[str]:
        """Our program, with arguments."""
        return [*self.within, sys.executable, "-P", "-m", "buildpool.cli", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs our program; the exit code is the caller's to judge."""
        return subprocess.run(
            self.command(*arguments),
            env=dict(self.environment),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts our program, as in a terminal."""
        return subprocess.Popen(
            [*IN_A_TERMINAL, *self.command(*arguments)],
            env=dict(self.environment),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def must(self, *arguments: str) -> str:
        """Runs it, which has to succeed; what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """Runs it, which has to fail; its last line."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    def buildx(self, *arguments: str) -> None:
        """Runs buildx, as the user does by hand."""
        subprocess.run(
            [str(self.bin / "buildx"), *arguments],
            env=dict(self.environment),
            capture_output=True,
            check=True,
        )

    def add(self, name: str, *clients: str, **spec: Any) -> None:
        """A pool behind the gateway, which sleeps, with its clients' Secrets and its Service."""
        where = f"/api/v1/namespaces/{NAMESPACE}"
        named = clients or ("default",)
        access = {"clients": [{"name": client} for client in named]}
        scaling = {"min": 0}
        raw = a_raw_pool(name=name, routing="Gateway", scaling=scaling, access=access, **spec)
        self.objects[f"/apis/{naming.API_VERSION}/namespaces/{NAMESPACE}/buildkitpools/{name}"] = (
            raw
        )
        service = {"spec": {"type": "ExternalName", "externalName": GATEWAY}}
        self.objects[f"{where}/services/{name}"] = service
        for client in named:
            secret = f"{where}/secrets/{name}-client-{client}"
            self.objects[secret] = {"data": a_certificate(client)}


def a_certificate(client: str) -> dict[str, str]:
    """The content of a client's Secret."""
    now = datetime.now(UTC)  # it is judged by the real clock
    authority = issue_authority("ci", now=now, lifetime=DAY)
    made = issue(authority, CertificateRequest(Use.CLIENT, client, DAY), now=now)
    files = {"ca": made.trust, "cert": made.pair.certificate, "key": made.pair.key}
    return {f"{name}.pem": base64.b64encode(content).decode() for name, content in files.items()}


@contextmanager
def an_api_server(folder: Path, objects: Objects, base: str = "") -> Iterator[str]:
    """Serves objects below a path; its URL. ``folder`` gets ``ca.pem``."""

    class Handler(BaseHTTPRequestHandler):
        """Answers for one connection."""

        def do_GET(self) -> None:
            """An object, or that there is none."""
            path = self.path.partition("?")[0]
            below = path.startswith(f"{base}/")
            found = objects.get(path.removeprefix(base)) if below else None
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
            absent = {**status, "reason": "NotFound", "message": f"{path} not found"}
            content = json.dumps(found or absent).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            """What time it is here."""
            ahead = objects.get(CLOCK, {}).get("ahead", 0)
            return super().date_time_string((timestamp or time.time()) + ahead)

        def log_message(self, *_: object) -> None:
            """Tells nobody."""

    now = datetime.now(UTC)
    authority = issue_authority("api", now=now, lifetime=DAY)
    names = {"dns_names": ("localhost",), "ip_addresses": ("127.0.0.1",)}
    wanted = CertificateRequest(Use.SERVER, "api", DAY, **names)
    made = issue(authority, wanted, now=now)
    for name, content in (
        ("ca.pem", made.trust),
        ("api.pem", made.pair.certificate + made.pair.key),
    ):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "api.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}{base}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def a_kubeconfig(path: Path, server: str, **context: str) -> None:
    """The kubeconfig of a user of this API server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "work",
        "contexts": [{"name": "work", "context": {"cluster": "work", "user": "anna", **context}}],
        "clusters": [
            {
                "name": "work",
                "cluster": {"server": server, "certificate-authority": str(path.parent / "ca.pem")},
            }
        ],
        "users": [{"name": "anna", "user": {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(config))


@contextmanager
def a_machine(home: Path, base: str = "") -> Iterator[Machine]:
    """A machine whose user may build; ``base`` is the path of the API server's URL."""
    objects: Objects = {"/version": {"gitVersion": "v1.37.0"}}
    with an_api_server(home, objects, base) as server:
        a_kubeconfig(home / "kubeconfig", server, namespace=NAMESPACE)
        folder = home / "bin"
        folder.mkdir()
        forward, old = home / "forward.py", home / "old-kubeconfig"
        forward.write_text(_FORWARD.format(slow=str(home / "slow")))
        kubectl, buildx = (shutil.which(program) for program in ("kubectl", "buildx"))
        assert kubectl, "kubectl is not on the PATH"
        assert buildx, "buildx is not on the PATH"
        (folder / "kubectl").write_text(
            _KUBECTL.format(python=sys.executable, forward=forward, kubectl=kubectl, old=old)
        )
        (folder / "kubectl").chmod(0o755)
        (folder / "buildx").symlink_to(buildx)
        (folder / "sh").symlink_to("/bin/sh")
        environment = {
            "PATH": str(folder),
            "PYTHONPATH": str(PROJECT / "operator"),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "BUILDX_CONFIG": str(home / "buildx"),
            "KUBECONFIG": "kubeconfig",  # as it may be: by where the user is
        }
        machine = Machine(home, objects, environment)
        try:
            yield machine
        finally:
            for path in machine.files.glob("*/connection.json"):
                machine.run("disconnect", path.parent.name)


def old_kubectl(machine: Machine, base: str) -> None:
    """Lets kubectl be one that drops the path of a server's URL from here on."""
    config = (machine.home / "kubeconfig").read_text()
    (machine.home / "old-kubeconfig").write_text(config.replace(f"{base}\n", "\n"))


def is_alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children_of(process: int) -> list[int]:
    """The processes that a process has started, as far as it runs."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*"):
        try:
            found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def may_unshare() -> bool:
    """Whether a process here can have mounts of its own."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0 and os.geteuid() == 0
