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

from demo import cache
from demo.clients import (
    base_image,
    build_options,
    build_with_buildx,
    buildctl,
    certificates_of,
    forwarded,
)
from demo.install import install
from demo.lab import BUILD, PROJECT, Lab, LabError

NAMESPACE: Final = "builds"
POOL: Final = "ci"
CLIENT: Final = "default"
SLEEPS: Final = 4 * 5
"""Seconds that the stages of the Dockerfile sleep, one after the other."""
console = Console(highlight=False)


def main() -> int:
    """The whole tour; 0 where every step did what it should."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lab = Lab.from_environment("demo")
    rows: list[tuple[str, float, str]] = []
    rounds: list[cache.Round] = []
    try:
        _tour(lab, rows, rounds)
    except (LabError, subprocess.TimeoutExpired) as error:
        console.print(f"[bold red]failed:[/] {error}", markup=True, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; `make demo` goes on from here")
        return 130
    _summary(lab, rows, rounds)
    return 0


def _tour(lab: Lab, rows: list[tuple[str, float, str]], rounds: list[cache.Round]) -> None:
    if lab.devcluster:
        with _step(rows, "a Kubernetes cluster", "real, one node, in a box"):
            if subprocess.run(lab.driver("up"), cwd=PROJECT, check=False).returncode:
                raise LabError("the devcluster did not come up; see above")
    with _step(rows, "the operator", "image by BuildKit, chart by Helm"):
        install(lab)
    with _step(rows, "a BuildKitPool", f"{POOL}: two rootless builders and a cache, Ready"):
        lab.kubectl("apply", "-f", str(PROJECT / "manifests/samples/pool.yaml"))
        lab.kubectl(
            *("wait", "bkp", POOL, "-n", NAMESPACE, "--for=condition=Ready", "--timeout=180s"),
        )
    certificates, base = certificates_of(lab, f"{POOL}-client-{CLIENT}", NAMESPACE), base_image(lab)
    with forwarded(lab, f"service/{POOL}", NAMESPACE) as address:
        with _step(rows, "buildctl build", f"{SLEEPS} s of sleep in 4 parallel stages"):
            build = ["build", "--no-cache", *build_options(base)]
            lab.run(*buildctl(certificates, address), *build)
        with _step(rows, "docker buildx build", "the same, with a remote builder"):
            build_with_buildx(lab, certificates, base)
    with _step(rows, "the shared cache", "exported by one builder, imported by another"):
        rounds += cache.shared_cache(lab, POOL, NAMESPACE, certificates, base)


@contextmanager
def _step(rows: list[tuple[str, float, str]], title: str, meaning: str) -> Iterator[None]:
    console.print(f"[bold]==>[/] {title}: {meaning}")
    started = time.monotonic()
    yield
    rows.append((title, time.monotonic() - started, meaning))


def _summary(lab: Lab, rows: list[tuple[str, float, str]], rounds: list[cache.Round]) -> None:
    table = Table("step", "seconds", "what", box=None, title="What happened", title_justify="left")
    for title, seconds, meaning in rows:
        table.add_row(title, f"{seconds:.1f}", meaning)
    console.print()
    console.print(table)
    console.print()
    console.print(cache.table(rounds))
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
