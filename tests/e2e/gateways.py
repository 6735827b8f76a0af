"""Pools behind the gateway, and builds on them, as tests need them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import Api, a_pool, eventually
from e2e.clients import BASE, Client, RunningBuild, base_context, context
from e2e.pools import settle
from limits import patience


def deploy(api: Api, name: str, namespace: str, **spec: Any) -> None:
    """A pool behind the gateway, Ready with as many builders as it always has."""
    spec = {"builders": {"slots": 1}, "scaling": {"min": 1, "max": 1}} | spec
    api.apply(a_pool(name, namespace, routing="Gateway", **spec))
    if spec["scaling"]["min"]:
        settle(api, name, namespace)
    eventually(
        lambda: api.condition(name, namespace, "Ready").get("status") == "True",
        within=60,
        what=f"{name} is ready",
    )


def status(api: Api, pool: str, namespace: str) -> dict[str, Any]:
    """What the pool says."""
    found: dict[str, Any] = (api.get("bkp", pool, namespace) or {}).get("status", {})
    return found


@contextmanager
def a_build(client: Client, folder: Path, seconds: int = 0) -> Iterator[RunningBuild]:
    """A build beside the test; killed where the test fails before its end."""
    source = context(folder, f"FROM {BASE}\nRUN echo {folder.name}; sleep {seconds}\n")
    build = RunningBuild(client.build_command(source, "--no-cache"), folder / "progress.log")
    try:
        yield build
    finally:
        if build.is_running:
            build.process.kill()
        build.process.wait(timeout=10)


def ends_well(build: RunningBuild, *, within: float = 120) -> None:
    """A build succeeds."""
    assert build.process.wait(timeout=patience(within)) == 0, build.progress[-2000:]


def know_builder(client: Client, folder: Path) -> None:
    """Tells the buildx of a folder of the pool, once."""
    if (folder / "config").exists():
        return
    environment = {**os.environ, "BUILDX_CONFIG": str(folder / "config")}
    create = ["buildx", "create", "--name", "remote", *client.node()]
    subprocess.run(create, env=environment, check=True, capture_output=True, timeout=60)


def looked_at(client: Client, folder: Path) -> str:
    """What ``buildx inspect`` shows of the pool."""
    know_builder(client, folder)
    environment = {**os.environ, "BUILDX_CONFIG": str(folder / "config")}
    inspect = ["buildx", "inspect", "remote"]
    done = subprocess.run(
        inspect, env=environment, check=True, capture_output=True, timeout=60, text=True
    )
    return done.stdout


@contextmanager
def buildx_build(client: Client, folder: Path, seconds: int = 0) -> Iterator[RunningBuild]:
    """The same by buildx, with a configuration of its own."""
    source = context(folder, f"FROM {BASE}\nRUN echo {folder.name}; sleep {seconds}\n")
    know_builder(client, folder)
    command = ["env", f"BUILDX_CONFIG={folder / 'config'}", "buildx", "build", "--builder=remote"]
    command += ["--progress=plain", "--no-cache", *base_context(), str(source)]
    build = RunningBuild(command, folder / "progress.log")
    try:
        yield build
    finally:
        if build.is_running:
            build.process.kill()
        build.process.wait(timeout=10)
