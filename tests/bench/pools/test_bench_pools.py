"""What a hundred pools cost: to create, to leave alone, to find again after a restart, to remove.

Prints a table and writes ``build/bench/pools.json``. Times are reported and never asserted: they
are those of this machine. That an idle pool is not written to holds on every machine.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench.figures import report
from bench.pools.processes import (
    cpu_seconds,
    pid_here,
    pools_carried_out,
    pools_passed,
    requests_made,
    resident_mib,
)
from cluster import Api, OperatorProcess, a_pool, eventually, operator_process

POOLS = 100
OBJECTS = 7
"""Of one pool: its authority, two certificates, a ConfigMap, a Service, a Deployment, a budget."""
IDLE_SECONDS = 60.0
QUIET_SECONDS = 5.0
SCRAPE_SECONDS = 0.25
"""How often the operator is asked how far it is: how exact the times are, and a load of its own."""
PATIENCE = 300.0
EARLIER, LATER = "bench-earlier", "bench-later"
"""Namespaces: of the pools that are there before the operator is, and of those that come later."""

Figures = dict[str, float]


class Meter:
    """What an operator, which leads, and the API server have cost since the meter was set."""

    def __init__(self, process: OperatorProcess) -> None:
        log = process.log
        eventually(lambda: "leads." in log.read_text(), within=60, what="it leads", every=0.01)
        assert process.process is not None
        self.port, self.pid = process.metrics_port, process.process.pid
        self.api_server = pid_here("kube-apiserver")
        self.set()

    def set(self) -> None:
        """Counts from here on."""
        self.since = time.monotonic()
        self.cpu, self.api_cpu = cpu_seconds(self.pid), cpu_seconds(self.api_server)
        self.requests = requests_made(self.port)

    def read(self) -> Figures:
        """Everything since then."""
        seconds, made = time.monotonic() - self.since, requests_made(self.port)
        return {
            "seconds": seconds,
            "writes": made["write"] - self.requests["write"],
            "reads": made["read"] - self.requests["read"],
            "operator CPU seconds": cpu_seconds(self.pid) - self.cpu,
            "operator MiB": resident_mib(self.pid),
            "API server CPU seconds": cpu_seconds(self.api_server) - self.api_cpu,
        }

    def read_once_created(self, namespace: str) -> Figures:
        """The same, once all pools of a namespace have what they consist of."""
        whole = lambda: pools_carried_out(self.port, namespace) == POOLS  # noqa: E731
        eventually(whole, within=PATIENCE, what="all pools are carried out", every=SCRAPE_SECONDS)
        figures = self.read()
        return figures | {
            "objects per second": POOLS * OBJECTS / figures["seconds"],
            "writes per pool": figures["writes"] / POOLS,
            "reads per pool": figures["reads"] / POOLS,
        }

    def set_once_quiet(self) -> None:
        """Waits until nothing has been written for a while, and counts from there on."""

        def is_quiet() -> bool:
            before = requests_made(self.port)["write"]
            time.sleep(QUIET_SECONDS)
            return requests_made(self.port)["write"] == before

        eventually(is_quiet, within=PATIENCE, what="nothing is written")
        self.set()


def test_a_hundred_pools(installed: Api, kubeconfig: Path, tmp_path: Path) -> None:
    results: dict[str, Figures] = {
        "machine": {"cores": os.cpu_count() or 0, "load average": os.getloadavg()[0]}
    }
    for namespace in (EARLIER, LATER):
        installed.must("create", "namespace", namespace)
    results["kubectl apply while no operator runs"] = {"seconds": apply_pools(installed, EARLIER)}

    with an_operator("first", kubeconfig, tmp_path) as process:
        meter = Meter(process)
        results["from leadership to the last pool"] = meter.read_once_created(EARLIER)
        assert count_objects(installed, EARLIER) == POOLS * OBJECTS

        meter.set_once_quiet()
        time.sleep(IDLE_SECONDS)
        idle = meter.read()
        results["idle"] = idle | {"reads per second": idle["reads"] / idle["seconds"]}

    with an_operator("second", kubeconfig, tmp_path) as process:
        meter = Meter(process)
        passed = lambda: pools_passed(meter.port) == POOLS  # noqa: E731
        eventually(passed, within=PATIENCE, what="a pass over each pool", every=SCRAPE_SECONDS)
        restart = results["from a restart to a pass over each pool"] = meter.read()

        meter.set_once_quiet()
        apply = {"of these, kubectl apply": apply_pools(installed, LATER)}
        created = meter.read_once_created(LATER)
        results["from the first apply to the last pool"] = created | apply
        assert count_objects(installed, LATER) == POOLS * OBJECTS

        meter.set_once_quiet()
        for namespace in (EARLIER, LATER):
            installed.must("delete", "bkp", "--all", "-n", namespace, "--wait=false")
        gone = lambda: not installed.must("get", "bkp", "-A", "-o", "name")  # noqa: E731
        eventually(gone, within=PATIENCE, what="all pools are gone", every=0.5)
        results["removal of both hundreds"] = meter.read()
    for namespace in (EARLIER, LATER):
        installed.must("delete", "namespace", namespace, "--wait=false")

    report("pools", f"{POOLS} pools of one builder, {OBJECTS} objects each", results)
    assert idle["writes"] == 0, "an idle pool is written to"
    assert restart["writes"] == 0, "a restart writes to pools that are as they should be"


@contextmanager
def an_operator(name: str, kubeconfig: Path, folder: Path) -> Iterator[OperatorProcess]:
    """An operator that logs as it does by default."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    flags = ("--log-level", "info")
    process = OperatorProcess(kubeconfig, folder / f"{name}.log", name, flags, metrics_port=port)
    with operator_process(process):
        yield process


def apply_pools(api: Api, namespace: str) -> float:
    """Seconds that one ``kubectl apply`` of all pools takes."""
    pools = yaml.safe_dump_all([a_pool(f"pool-{n:03}", namespace) for n in range(POOLS)])
    started = time.monotonic()
    api.must("apply", "-f", "-", stdin=pools)
    return time.monotonic() - started


def count_objects(api: Api, namespace: str) -> int:
    """Objects of all pools of a namespace, wherever they lie."""
    kinds = "deployments,services,configmaps,secrets,poddisruptionbudgets"
    selector = f"pool-namespace={namespace}"
    names = api.must("get", kinds, "-A", "-l", f"buildpool.dev/{selector}", "-o", "name")
    return len(names.splitlines())
