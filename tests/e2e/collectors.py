"""A collector of traces that takes connections and never answers, as one that hangs does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cluster import Api, at_most
from e2e.clients import BASE
from e2e.registries import bring

PORT: Final = 4317
_SCRIPT: Final = f"""\
nc -l -p {PORT} < /dev/null &
until grep -qi ':{PORT:04X} 0' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
kill -STOP $!
touch /tmp/silent
sleep infinity
"""
"""It is suspended while it listens: the kernel takes the first connections, nobody reads from them,
and what comes later is not even refused."""


@dataclass(frozen=True, slots=True)
class Collector:
    """One that is silent. What is sent to it never leaves the cluster."""

    api: Api
    namespace: str
    endpoint: str
    """For OTLP by gRPC."""

    @property
    def is_called(self) -> bool:
        """Whether somebody has connected and waits for its answer."""
        tables = ("cat", "/proc/net/tcp", "/proc/net/tcp6")
        found = self.api.must("exec", "collector", "-n", self.namespace, "--", *tables)
        return bool(re.search(rf":{PORT:04X} [0-9A-F]+:(?!0000)[0-9A-F]{{4}} ", found))

    def traced(self) -> list[dict[str, Any]]:
        """``builders.env`` of a pool that sends its traces there."""
        return [
            {"name": "OTEL_TRACES_EXPORTER", "value": "otlp"},
            {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": self.endpoint},
        ]


@contextmanager
def silent_collector(api: Api, namespace: str) -> Iterator[Collector]:
    """Such a collector for the length of a block."""
    bring("busybox")
    container = {
        "name": "collector",
        "image": BASE,
        "command": ["sh", "-ec", _SCRIPT],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/silent"]}, "periodSeconds": 1},
        "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
    }
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    metadata = {"name": "collector", "namespace": namespace}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    api.must("wait", "pod/collector", "-n", namespace, "--for=condition=Ready", at_most(60))
    pod = api.get("pod", "collector", namespace)
    assert pod is not None
    try:
        yield Collector(api, namespace, f"http://{pod['status']['podIP']}:{PORT}")
    finally:
        api.must("delete", "pod", "collector", "-n", namespace, "--wait=false")
