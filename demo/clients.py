"""The clients as their users run them: certificates in files, a port-forward, buildctl, buildx."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from demo.lab import BUILD, PROJECT, Lab, LabError, finish

PORT: Final = 1234
"""Where builders are found out here."""
DOCKERFILE: Final = PROJECT / "demo" / "parallel"


def certificates_of(lab: Lab, secret: str, namespace: str) -> Path:
    """A client's certificate, out of its Secret into files, as clients want it."""
    text = lab.kubectl("get", "secret", secret, "-n", namespace, "-o", "json")
    folder = BUILD / "client"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        file = folder / name
        file.touch(mode=0o600)
        file.write_bytes(base64.b64decode(json.loads(text)["data"][name]))
    return folder


@contextmanager
def forwarded(lab: Lab, target: str, namespace: str) -> Iterator[str]:
    """``kubectl port-forward`` to a Service or Deployment, for the length of a block."""
    forward = ["kubectl", "port-forward", "-n", namespace, target, f"{PORT}:1234"]
    # It complains about every client that leaves; what matters is on its standard output.
    with subprocess.Popen(
        lab.command(*forward), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            if "Forwarding" not in process.stdout.readline():
                raise LabError(f"kubectl port-forward to {target} did not start")
            yield f"tcp://localhost:{PORT}"
        finally:
            process.terminate()


def base_image(lab: Lab) -> Path | None:
    """The base image as an OCI layout folder, where builders have no registry to pull it from."""
    if not lab.devcluster:
        given = os.environ.get("DEMO_BASE_IMAGE")
        return Path(given) if given else None
    return Path(finish(lab.driver("image", "busybox")).strip())


def buildctl(certificates: Path, address: str) -> list[str]:
    """The start of a command line of buildctl."""
    command = ["buildctl", "--addr", address, "--tlsservername", "localhost"]
    command += ["--tlscacert", f"{certificates}/ca.pem", "--tlscert", f"{certificates}/cert.pem"]
    return [*command, "--tlskey", f"{certificates}/key.pem"]


def build_options(base: Path | None) -> list[str]:
    """What ``buildctl build`` needs for the project of the tour."""
    options = ["--frontend", "dockerfile.v0", "--progress", "plain"]
    options += ["--local", f"context={DOCKERFILE}", "--local", f"dockerfile={DOCKERFILE}"]
    if base is not None:
        digest = json.loads((base / "index.json").read_text())["manifests"][0]["digest"]
        source = f"oci-layout://base@{digest}"
        options += ["--oci-layout", f"base={base}", "--opt", f"context:busybox:1.37={source}"]
    return options


def build_with_buildx(lab: Lab, certificates: Path, base: Path | None) -> None:
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
