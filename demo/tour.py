"""``make demo``, step by step: every command is one that a user could type."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from demo.install import install
from demo.lab import BUILD, PROJECT, Lab, LabError, finish

NAMESPACE: Final = "builds"
POOL: Final = "ci"
CLIENT: Final = "default"
PORT: Final = 1234
DOCKERFILE: Final = PROJECT / "demo" / "parallel"
SLEEPS: Final = 4 * 5
"""Seconds that the stages of the Dockerfile sleep, one after the other."""
console = Console(highlight=False)


def main() -> int:
    """The whole tour; 0 where every step did what it should."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lab = Lab.from_environment("demo")
    rows: list[tuple[str, float, str]] = []
    try:
        _tour(lab, rows)
    except (LabError, subprocess.TimeoutExpired) as error:
        console.print(f"[bold red]failed:[/] {error}", markup=True, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; `make demo` goes on from here")
        return 130
    _summary(lab, rows)
    return 0


def _tour(lab: Lab, rows: list[tuple[str, float, str]]) -> None:
    if lab.devcluster:
        with _step(rows, "a Kubernetes cluster", "real, one node, in a box"):
            if subprocess.run(lab.driver("up"), cwd=PROJECT, check=False).returncode:
                raise LabError("the devcluster did not come up; see above")
    with _step(rows, "the operator", "image by BuildKit, chart by Helm"):
        install(lab)
    with _step(rows, "a BuildKitPool", f"{POOL}: two rootless builders, Ready"):
        lab.kubectl("apply", "-f", str(PROJECT / "manifests/samples/pool.yaml"))
        lab.kubectl(
            *("wait", "bkp", POOL, "-n", NAMESPACE, "--for=condition=Ready", "--timeout=180s"),
        )
    certificates, base = _certificates(lab), _base_image(lab)
    with _forwarded(lab):
        with _step(rows, "buildctl build", f"{SLEEPS} s of sleep in 4 parallel stages"):
            lab.run(*_buildctl(certificates, base))
        with _step(rows, "docker buildx build", "the same, with a remote builder"):
            _buildx(lab, certificates, base)


@contextmanager
def _step(rows: list[tuple[str, float, str]], title: str, meaning: str) -> Iterator[None]:
    console.print(f"[bold]==>[/] {title}: {meaning}")
    started = time.monotonic()
    yield
    rows.append((title, time.monotonic() - started, meaning))


def _certificates(lab: Lab) -> Path:
    """The client's certificate, out of its Secret into files, as clients want it."""
    text = lab.kubectl("get", "secret", f"{POOL}-client-{CLIENT}", "-n", NAMESPACE, "-o", "json")
    folder = BUILD / "client"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        file = folder / name
        file.touch(mode=0o600)
        file.write_bytes(base64.b64decode(json.loads(text)["data"][name]))
    return folder


@contextmanager
def _forwarded(lab: Lab) -> Iterator[None]:
    """``kubectl port-forward`` to the pool's Service, for the length of a block."""
    forward = ["kubectl", "port-forward", "-n", NAMESPACE, f"service/{POOL}", f"{PORT}:1234"]
    # It complains about every client that leaves; what matters is on its standard output.
    with subprocess.Popen(
        lab.command(*forward), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            if "Forwarding" not in process.stdout.readline():
                raise LabError("kubectl port-forward did not start")
            yield
        finally:
            process.terminate()


def _base_image(lab: Lab) -> Path | None:
    """The base image as an OCI layout folder, where builders have no registry to pull it from."""
    if not lab.devcluster:
        given = os.environ.get("DEMO_BASE_IMAGE")
        return Path(given) if given else None
    return Path(finish(lab.driver("image", "busybox")).strip())


def _buildctl(certificates: Path, base: Path | None) -> list[str]:
    command = ["buildctl", "--addr", f"tcp://localhost:{PORT}", "--tlsservername", "localhost"]
    command += ["--tlscacert", f"{certificates}/ca.pem", "--tlscert", f"{certificates}/cert.pem"]
    command += ["--tlskey", f"{certificates}/key.pem", "build", "--no-cache"]
    command += ["--frontend", "dockerfile.v0", "--progress", "plain"]
    command += ["--local", f"context={DOCKERFILE}", "--local", f"dockerfile={DOCKERFILE}"]
    if base is not None:
        digest = json.loads((base / "index.json").read_text())["manifests"][0]["digest"]
        source = f"oci-layout://base@{digest}"
        command += ["--oci-layout", f"base={base}", "--opt", f"context:busybox:1.37={source}"]
    return command


def _buildx(lab: Lab, certificates: Path, base: Path | None) -> None:
    """A remote builder of buildx's own, created, used and removed."""
    builder = "buildpool-demo"
    options = ",".join(
        (
            f"cacert={certificates}/ca.pem",
            f"cert={certificates}/cert.pem",
            f"key={certificates}/key.pem",
            "servername=localhost",
        )
    )
    context = ["--build-context", f"busybox:1.37=oci-layout://{base}"] if base else []
    try:
        lab.run(
            *("buildx", "create", "--name", builder, "--driver", "remote"),
            *("--driver-opt", options, f"tcp://localhost:{PORT}"),
        )
        lab.run(
            *("buildx", "build", "--builder", builder, "--no-cache", "--progress", "plain"),
            *context,
            DOCKERFILE,
        )
    finally:
        subprocess.run(lab.command("buildx", "rm", builder), capture_output=True, check=False)


def _summary(lab: Lab, rows: list[tuple[str, float, str]]) -> None:
    table = Table("step", "seconds", "what", box=None, title="What happened", title_justify="left")
    for title, seconds, meaning in rows:
        table.add_row(title, f"{seconds:.1f}", meaning)
    console.print()
    console.print(table)
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
