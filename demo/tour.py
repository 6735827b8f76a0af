"""``make demo``, step by step: every command is one that a user could type."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.table import Table

from demo import builds
from demo.clients import a_client, forwarded
from demo.install import given_image, install
from demo.lab import BUILD, PROJECT, Lab, LabError

OPERATOR: Final = "buildpool-demo"
"""The release, and its namespace. Nothing of the demo has the name of anything that users have."""
NAMESPACE: Final = "buildpool-demo-builds"
POOL: Final = "demo"
CLIENT: Final = "default"
AT_WORK: Final = 2
"""Builders that are warm when many builds come at once."""
BUILDERS: Final = f"buildpool.dev/pool={POOL},app.kubernetes.io/component=builder"
console = Console(highlight=False)


def main() -> int:
    """The whole tour; 0 where every step did what it should."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows: list[tuple[str, float, str]] = []
    rounds: list[builds.Round] = []
    try:
        lab = Lab.from_environment("demo")
        if not lab.devcluster:
            given_image()
        lab.meet(own=(OPERATOR, NAMESPACE))
        _tour(lab, rows, rounds)
    except (LabError, subprocess.TimeoutExpired) as error:
        console.print(f"[bold red]failed:[/] {error}", markup=True, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; `make demo` goes on from here")
        return 130
    _summary(lab, rows, rounds)
    return 0


def _tour(lab: Lab, rows: list[tuple[str, float, str]], rounds: list[builds.Round]) -> None:
    if lab.devcluster:
        with _step(rows, "a Kubernetes cluster", "real, one node, in a box"):
            if subprocess.run(lab.driver("up"), cwd=PROJECT, check=False).returncode:
                raise LabError("the devcluster did not come up; see above")
    with _step(rows, "the operator", "image by BuildKit, chart by Helm"):
        install(lab, release=OPERATOR, namespace=OPERATOR)
    pool = ("bkp", POOL, "-n", NAMESPACE)
    with _step(rows, "a BuildKitPool", f"{POOL}, with a cache; asleep: no builder runs"):
        lab.kubectl("apply", "-f", str(PROJECT / "demo/pool.yaml"))
        lab.kubectl("wait", *pool, "--for=condition=Ready", "--timeout=60s")
    with (
        forwarded(lab, f"service/{OPERATOR}-gateway", OPERATOR),
        a_client(lab, f"{POOL}-client-{CLIENT}", NAMESPACE, f"{POOL}.{NAMESPACE}.svc") as client,
    ):
        with _step(rows, "docker buildx build", "wakes the pool, and builds on it"):
            rounds.append(builds.one_build("the first, wakes the pool", client))
        lab.kubectl("scale", *pool, "--replicas=2")
        two = f"jsonpath={{.status.readyReplicas}}={AT_WORK}"
        lab.kubectl("wait", *pool, f"--for={two}", "--timeout=120s")
        with _step(
            rows, f"{builds.AT_ONCE} builds at once", f"room for {builds.ROOM}, all succeed"
        ):
            times, waited = builds.many_at_once(lab, client, POOL, NAMESPACE)
            if not waited:
                raise LabError(f"none of {builds.AT_ONCE} builds waited for one of the others")
            console.print(
                f"    {waited} waited; from {times[0]:.1f} to {times[-1]:.1f} s, "
                f"with buildctl and with docker buildx"
            )
        with _step(rows, "other builders", "those there were are thrown away"):
            lab.kubectl("delete", "deployment", "-n", NAMESPACE, "-l", BUILDERS, "--wait=true")
            lab.kubectl("wait", *pool, "--for=jsonpath={.status.readyReplicas}=0", "--timeout=60s")
            lab.kubectl("wait", *pool, f"--for={two}", "--timeout=120s")
        with _step(rows, "docker buildx build", "the same project, and no cache flag"):
            rounds.append(builds.one_build("again, on a builder that has nothing", client))
    if rounds[-1].cached != rounds[-1].steps or not rounds[-1].steps:
        raise LabError(f"the cache was not found: {rounds[-1]}")


@contextmanager
def _step(rows: list[tuple[str, float, str]], title: str, meaning: str) -> Iterator[None]:
    console.print(f"[bold]==>[/] {title}: {meaning}")
    started = time.monotonic()
    yield
    rows.append((title, time.monotonic() - started, meaning))


def _summary(lab: Lab, rows: list[tuple[str, float, str]], rounds: list[builds.Round]) -> None:
    table = Table("step", "seconds", "what", box=None, title="What happened", title_justify="left")
    for title, seconds, meaning in rows:
        table.add_row(title, f"{seconds:.1f}", meaning)
    console.print()
    console.print(table)
    console.print()
    console.print(builds.table(rounds))
    console.print()
    console.print(lab.kubectl("get", "bkp", "-A"))
    prefix = " ".join(lab.command()) if lab.devcluster else ""
    shown = prefix.replace(str(PROJECT) + os.sep, "")
    console.print("Try next:", style="bold")
    for command in (
        f"kubectl describe bkp {POOL} -n {NAMESPACE}",
        f"kubectl scale bkp {POOL} -n {NAMESPACE} --replicas=3",
        f"kubectl delete deployment {POOL}-builder-0 -n {NAMESPACE}   # it comes back",
        f"kubectl delete bkp {POOL} -n {NAMESPACE}",
    ):
        console.print(f"  {shown} {command}".rstrip(), soft_wrap=True)
    if lab.devcluster:
        down = " ".join(lab.driver("down")).replace(str(PROJECT) + os.sep, "")
        console.print(f"  {down}   # everything is gone", soft_wrap=True)
    shutil.rmtree(BUILD / "client", ignore_errors=True)
