"""Routers of the gateway as processes of their own, with an Envoy or without, and their clients."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import yaml
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from buildpool.buildkit.methods import CONTROL
from buildpool.core import naming
from buildpool.core.api.status import format_time
from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import ROUTE_BUILDER, ROUTE_METADATA, label_of
from buildpool.gateway.xds.bootstrap import ROUTER_SOCKET
from cluster import OPERATOR_NAMESPACE, PROJECT, Api, eventually
from gateway.ports import free_port
from limits import patience
from unit.gateway.requests import a_request

ACCOUNT = "buildpool-gateway"
"""The ServiceAccount of the gateway's pods, as installed."""


@dataclass
class RouterProcess:
    """A router with the rights of its ServiceAccount only."""

    kubeconfig: Path
    log: Path
    pod: str
    """Its name in the status of pools."""
    home: str = OPERATOR_NAMESPACE
    flags: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    """Where its Envoy takes clients, if it has one."""
    metrics_port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Starts it; it answers once it has seen all pools."""
        command = [sys.executable, "-m", "buildpool.cli", "gateway", *self.flags]
        command += ["--namespace", self.home, "--identity", self.pod]
        command += ["--port", str(self.port), "--sockets", str(self.sockets)]
        command += ["--metrics-port", str(self.metrics_port)]
        command += ["--health-port", str(self.health_port)]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=PROJECT
            )

    @property
    def sockets(self) -> Path:
        """Where it and its Envoy meet."""
        return self.log.parent

    @property
    def is_running(self) -> bool:
        """Whether it is the process that was started."""
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        """Whether its Envoy has taken all pools."""
        url = f"http://127.0.0.1:{self.health_port}/readyz"
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(url, timeout=5):
            return True
        return False

    def is_healthy(self) -> bool:
        """Whether there is no reason to restart it."""
        url = f"http://127.0.0.1:{self.health_port}/healthz"
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.read() == b"ok\n")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, and any others; 0 without any."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as response:
            found = text_string_to_metric_families(response.read().decode())
        return sum(
            sample.value
            for metric in found
            for sample in metric.samples
            if sample.name == f"buildpool_gateway_{name}"
            and labels.items() <= sample.labels.items()
        )

    def says(self, words: str) -> bool:
        """Whether these words are in its log."""
        return words in self.log.read_text()

    def builder_for(self, pool: PoolKey, client: str = "default") -> str:
        """The address to which it sends a request about the pool; why it refuses it, otherwise.

        It is asked as Envoy asks it about a request that needs no slot and wakes no pool.
        """
        question = a_request(
            f"{CONTROL}Prune",
            pool=label_of(pool),
            identity=naming.client_identity(pool, client),
        )
        with grpc.insecure_channel(f"unix:{self.sockets / ROUTER_SOCKET}") as channel:
            stub = external_processor_pb2_grpc.ExternalProcessorStub(channel)
            answer = next(stub.Process(iter([question]), timeout=10))
        if answer.HasField("immediate_response"):
            return str(answer.immediate_response.body.decode())
        return str(answer.dynamic_metadata[ROUTE_METADATA][ROUTE_BUILDER])


@contextmanager
def router_process(router: RouterProcess) -> Iterator[RouterProcess]:
    """A router for the length of a block, in which it must not end."""
    router.start()
    try:
        eventually(lambda: router.says(" pools."), within=30, what="the router answers")
        yield router
        assert router.is_running, router.log.read_text()[-4000:]
    finally:
        assert router.process is not None
        router.process.terminate()
        router.process.wait(timeout=patience(30))


@contextmanager
def envoy_of(router: RouterProcess, folder: Path) -> Iterator[None]:
    """The Envoy beside a router, as its pod has it, for the length of a block."""
    config = folder / "envoy.json"
    command = [sys.executable, "-m", "buildpool.cli", "gateway-bootstrap", "--output", str(config)]
    subprocess.run([*command, "--sockets", str(router.sockets)], cwd=PROJECT, check=True)
    with (folder / "envoy.log").open("wb") as out:
        process = subprocess.Popen(
            ["envoy", "-c", str(config), "--disable-hot-restart", "--concurrency", "1"],
            stdout=out,
            stderr=out,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)


@contextmanager
def a_held_client(api: Api, pool: PoolKey, port: int) -> Iterator[grpc.Future]:
    """The first word of a build, by a client with its Secret; it leaves when the block ends."""
    secret = api.get("secret", naming.client_certificate(pool, "default"), pool.namespace)
    assert secret is not None
    trust, key, certificate = (
        base64.b64decode(secret["data"][name]) for name in ("ca.pem", "key.pem", "cert.pem")
    )
    name = f"{naming.service(pool)}.{pool.namespace}.svc"
    options = [("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0)]
    credentials = grpc.ssl_channel_credentials(trust, key, certificate)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        yield channel.unary_unary(f"{CONTROL}ListWorkers").future(b"", timeout=300)


def behind(port: int, kubeconfig: Path) -> Path:
    """The same credentials, for an API server that is reached through a port of this machine."""
    settings = yaml.safe_load(kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    path = kubeconfig.with_name(f"{kubeconfig.name}-behind-{port}")
    path.write_text(yaml.safe_dump(settings))
    path.chmod(0o600)
    return path


def takes_builds(api: Api, pool: PoolKey, address: str) -> str:
    """Says in the kubelet's place that the first builder of a pool runs there; its pod."""
    label = f"buildpool.dev/builder={naming.builder(pool, 0)}"
    pods = eventually(
        lambda: api.list("pods", pool.namespace, label), within=20, what=f"{pool} has a builder"
    )
    name: str = pods[0]["metadata"]["name"]
    daemon = {
        "name": "buildkitd",
        "image": "",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": format_time(datetime.now(UTC))}},
    }
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [daemon],
    }
    to = ("pod", name, "-n", pool.namespace, "--subresource=status", "--type=merge")
    api.must("patch", *to, "-p", json.dumps({"status": status}))
    return name
