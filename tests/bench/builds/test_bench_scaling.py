"""How fast a full pool grows: from the start of a build to a builder that takes the next one.

A pool of one slot is filled by one build; each round then starts another one and measures, from the
moment the daemon says that this build has started:

    decided    the Deployment of another builder is seen by a watch
    ready      its pod is an address of the pool's Service

The clocks are one: everything runs on one machine. Between rounds the pool shrinks to one builder.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster import Api, eventually
from e2e.clients import BASE, Client, client_of, context
from e2e.pools import deploy

ROUNDS = 12


class Watched:
    """When objects of a namespace were first seen to satisfy something."""

    def __init__(self, namespace: str, resource: str, *flags: str) -> None:
        command = ["kubectl", "get", resource, "-n", namespace, *flags, "--watch", "-o", "json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.seen: list[tuple[datetime, dict[str, Any]]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        decoder, text = json.JSONDecoder(), ""
        for line in self._process.stdout:
            text += line
            if line.startswith("}"):
                obj, _ = decoder.raw_decode(text)
                self.seen.append((datetime.now(UTC), obj))
                text = ""

    def stop(self) -> None:
        """Ends the watch."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def watched(namespace: str, resource: str, *flags: str) -> Iterator[Watched]:
    """A watch for the length of a block."""
    watch = Watched(namespace, resource, *flags)
    try:
        yield watch
    finally:
        watch.stop()


def test_bench_a_full_pool_grows(api: Api, shared_namespace: str, tmp_path: Path) -> None:
    scaling = {"min": 1, "max": 2, "targetUtilization": 100, "idleAfter": "1s"}
    deploy(api, "grows", shared_namespace, scaling=scaling, builders={"slots": 1})
    client = client_of(api, "grows", shared_namespace, tmp_path)
    decided, ready = [], []
    for number in range(ROUNDS):
        one, two = one_round(api, shared_namespace, client, tmp_path / str(number))
        decided.append(one)
        ready.append(two)
    print()
    for name, times in (("decided", decided), ("ready", ready)):
        times.sort()
        p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
        print(f"{name:>8}: p50 {p50:5.2f} s   p95 {p95:5.2f} s   all {spelled(times)}")


def one_round(api: Api, namespace: str, client: Client, folder: Path) -> tuple[float, float]:
    """Seconds from the start of the build that is too many to another builder, and to its use."""
    slices = ("-l", "kubernetes.io/service-name=grows")
    with (
        watched(namespace, "deployments") as deployments,
        watched(namespace, "endpointslices", *slices) as endpoints,
        building(client, folder / "first", 30),
    ):
        eventually(lambda: len(running(client)) == 1, within=20, what="the pool is full")
        eventually(lambda: deployments.seen and endpoints.seen, within=10, what="it is watched")
        with building(client, folder / "second", 20):
            eventually(lambda: len(running(client)) == 2, within=20, what="one build too many")
            started = max(running(client))
            new = eventually(
                lambda: first(deployments, lambda obj: obj["metadata"]["name"], started),
                within=20,
                what="another Deployment",
            )
            used = eventually(lambda: first_grown(endpoints, started), within=30, what="it serves")
    eventually(
        lambda: api.get("bkp", "grows", namespace)["status"]["replicas"] == 1,  # type: ignore[index]
        within=90,
        what="the pool is small again",
        every=0.5,
    )
    time.sleep(4)  # and its pod is gone
    return (new - started).total_seconds(), (used - started).total_seconds()


@contextmanager
def building(client: Client, folder: Path, seconds: int) -> Iterator[None]:
    """A build that runs meanwhile, and is broken off at the end."""
    source = context(folder, f"FROM {BASE}\nRUN echo {time.time()}; sleep {seconds}\n")
    command = client.build_command(source, "--no-cache")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def running(client: Client) -> list[datetime]:
    """When the builds have started that run now."""
    rows = client.ask("debug", "histories", "--format", "{{json .}}").splitlines()
    events = [json.loads(row) for row in rows]
    return [moment(e["record"]["CreatedAt"]) for e in events if e.get("type", 0) == 0]


def moment(stamp: dict[str, int]) -> datetime:
    """A protobuf timestamp."""
    return datetime.fromtimestamp(stamp["seconds"] + stamp.get("nanos", 0) / 1e9, UTC)


def first(watch: Watched, name: Any, since: datetime) -> datetime | None:
    """When something was seen for the first time, after a moment."""
    known = {name(obj) for when, obj in watch.seen if when < since}
    return next((when for when, obj in watch.seen if name(obj) not in known), None)


def first_grown(watch: Watched, since: datetime) -> datetime | None:
    """When the Service had two addresses that are ready."""
    for when, obj in watch.seen:
        addresses = [e for e in obj.get("endpoints") or () if e["conditions"].get("ready")]
        if when >= since and len(addresses) == 2:
            return when
    return None


def spelled(times: list[float]) -> str:
    return " ".join(f"{one:.2f}" for one in times)
