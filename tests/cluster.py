"""What the tests against a real API server share: kubectl, waiting, and operators as processes.

`make integration` and `make e2e` start a cluster of their own. One of the user's has to be named
for it: see tests/in_cluster.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from demo.lab import CLUSTER
from devcluster.layout import layout
from gateway.ports import free_port
from limits import patience

PROJECT = Path(__file__).parent.parent
OPERATOR_NAMESPACE = "buildpool-system"
OPERATOR_ACCOUNT = "buildpool"


class Api:
    """A cluster as its administrator sees it, through kubectl."""

    def __init__(self) -> None:
        """Refuses a kubeconfig that merely happens to be there."""
        name, given = os.environ.get("DEVCLUSTER_NAME"), os.environ.get("KUBECONFIG")
        is_ours = name and given == str(layout(name, os.environ, Path.home()).kubeconfig)
        if not (is_ours or os.environ.get(CLUSTER) == "kubeconfig"):
            pytest.exit("these tests change a cluster: run them by `python -m tests.in_cluster`")

    def kubectl(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs kubectl; the exit code is the caller's to judge."""
        return subprocess.run(
            ["kubectl", *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def must(self, *args: str, stdin: str | None = None) -> str:
        """Runs kubectl, which has to succeed; what it printed."""
        done = self.kubectl(*args, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr or done.stdout}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Applies objects as a user would."""
        self.must("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """One object, or None."""
        done = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] | None = json.loads(done.stdout) if done.stdout.strip() else None
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind (or several, with commas)."""
        args = ["get", kind, "-n", namespace, "-o", "json"]
        items: list[dict[str, Any]]
        items = json.loads(self.must(*args, *(["-l", selector] if selector else [])))["items"]
        return items

    def condition(self, pool: str, namespace: str, kind: str) -> dict[str, Any]:
        """A condition of a pool; empty where there is none."""
        found = self.get("bkp", pool, namespace) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def reasons(self, pool: str, namespace: str) -> list[str]:
        """The reasons of all Events on a pool."""
        events = self.list("events", namespace)
        return [e["reason"] for e in events if e["involvedObject"]["name"] == pool]


def eventually(
    condition: Callable[[], Any], *, within: float, what: str, every: float = 0.1
) -> Any:
    """The first true answer; fails with the last one.

    ``within`` is what a quiet machine has ample time for, in seconds; a busy one gets more.
    """
    seconds = patience(within)
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; last: {answer!r}"
        time.sleep(every)


def at_most(seconds: float) -> str:
    """The flag by which kubectl waits as ``eventually`` does."""
    return f"--timeout={patience(seconds):g}s"


def at_rest(read: Callable[[], Any], *, quiet: float = 2, within: float = 30) -> Any:
    """What is read once it stays the same for so many seconds."""

    def same() -> Any:
        before = read()
        time.sleep(quiet)
        return before if read() == before else None

    return eventually(same, within=within, what=f"nothing changes for {quiet:g} s")


def a_pool(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A BuildKitPool as a user writes it, with `Direct` routing and as many builders all the time,
    unless it says something else.
    """
    scaling = {"min": 1, **spec.get("scaling", {})}
    scaling.setdefault("max", max(1, scaling["min"]))
    spec = {"routing": "Direct", **spec, "scaling": scaling}
    return {
        "apiVersion": "buildpool.dev/v1alpha1",
        "kind": "BuildKitPool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@dataclass
class OperatorProcess:
    """An operator as a process of its own, with the rights of its ServiceAccount only."""

    kubeconfig: Path
    log: Path
    identity: str = "one"
    flags: tuple[str, ...] = ()
    metrics_port: int = field(default_factory=free_port)
    within: tuple[str, ...] = ()
    """A command that starts it, in surroundings of its own; empty: nothing does."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Starts it; it may have to wait for the Lease."""
        command = [*self.within, sys.executable, "-m", "buildpool.cli", "run"]
        command += ["--namespace", OPERATOR_NAMESPACE, "--identity", self.identity]
        command += ["--health-port", "0", "--metrics-port", str(self.metrics_port)]
        command += ["--log-level", "debug", "--log-format", "json", *self.flags]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
                cwd=PROJECT,
            )

    def counted(self, metric: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels; 0 before it serves any."""
        try:
            found = list(samples(self.metrics_port))
        except URLError:
            return 0
        return sum(
            sample.value
            for sample in found
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def passes(self, pool: str, namespace: str) -> float:
        """The passes over a pool that it has made to the end."""
        where = {"namespace": namespace, "pool": pool}
        return self.counted("buildpool_passes_total", result="done", **where)

    def claims(self) -> float:
        """How often it has looked whether it may lead."""
        metric = "buildpool_kubernetes_requests_total"
        return self.counted(metric, method="GET", kind="Lease")

    def kill(self) -> None:
        """Ends it as a node failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Asks it to end, as the kubelet does; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=patience(30))
        self.process = None
        return code


@contextmanager
def operator_process(process: OperatorProcess) -> Iterator[OperatorProcess]:
    """An operator for the length of a block."""
    process.start()
    try:
        yield process
    finally:
        if process.process is not None:
            process.stop()


def samples(port: int) -> Iterator[Sample]:
    """Everything at ``/metrics`` of a process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples


def looks_again(
    api: Api, process: OperatorProcess, pool: str, namespace: str, *, by: str = "pods"
) -> None:
    """Has the operator make a pass over a pool that sees all that is there now, and waits for it.

    It is woken ``by`` objects of the pool. The first pass may be under way already; the second
    begins after it.
    """
    for _ in range(2):
        before = process.passes(pool, namespace)
        wake = f"example.com/wake={time.monotonic()}"
        labels = ("-l", f"buildpool.dev/pool={pool}")
        api.must("annotate", by, *labels, "-n", namespace, "--overwrite", wake)
        eventually(
            lambda before=before: process.passes(pool, namespace) > before,  # type: ignore[misc]
            within=15,
            what=f"{process.identity} looks at pool {pool}",
        )


def account_kubeconfig(api: Api, path: Path) -> Path:
    """A kubeconfig with a token of the operator's ServiceAccount."""
    raw = yaml.safe_load(api.must("config", "view", "--raw", "--minify", "--flatten"))
    token = api.must("create", "token", OPERATOR_ACCOUNT, "-n", OPERATOR_NAMESPACE, "--duration=3h")
    raw["users"] = [{"name": "operator", "user": {"token": token.strip()}}]
    raw["contexts"][0]["context"]["user"] = "operator"
    path.write_text(yaml.safe_dump(raw))
    path.chmod(0o600)
    return path
