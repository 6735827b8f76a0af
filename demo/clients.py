"""The clients as their users run them: certificates in files, a port-forward, buildctl, buildx."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.lab import BUILD, PROJECT, Lab, LabError, finish

PORT: Final = 1234
"""Where the gateway is found out here."""
DOCKERFILE: Final = PROJECT / "demo" / "parallel"
BASE: Final = "busybox:1.37"
BUILDER: Final = "buildpool-demo"
"""The builder of buildx that is created for the tour, and removed."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client of one pool."""

    lab: Lab
    certificates: Path
    server_name: str
    """The pool, as the gateway knows it."""
    address: str
    base: Path | None
    """The base image as a folder, where builders have no registry to pull it from."""

    def buildctl_build(self, *options: str) -> str:
        """Builds the project of the tour; the progress it printed."""
        folder = self.certificates
        command = ["buildctl", "--addr", self.address, "--tlsservername", self.server_name]
        command += ["--tlscacert", f"{folder}/ca.pem", "--tlscert", f"{folder}/cert.pem"]
        command += ["--tlskey", f"{folder}/key.pem", "build", "--frontend", "dockerfile.v0"]
        command += ["--progress", "plain", "--local", f"context={DOCKERFILE}"]
        command += ["--local", f"dockerfile={DOCKERFILE}", *options]
        if self.base is not None:
            digest = json.loads((self.base / "index.json").read_text())["manifests"][0]["digest"]
            source = f"oci-layout://base@{digest}"
            command += ["--oci-layout", f"base={self.base}", "--opt", f"context:{BASE}={source}"]
        return self.lab.run(*command, merged=True)

    def buildx(self, *options: str) -> str:
        """The same by ``docker buildx build``."""
        context = [f"--build-context={BASE}=oci-layout://{self.base}"] if self.base else []
        command = ["buildx", "build", "--builder", BUILDER, "--progress", "plain"]
        return self.lab.run(*command, *context, *options, DOCKERFILE, merged=True)


@contextmanager
def a_client(lab: Lab, secret: str, namespace: str, server_name: str) -> Iterator[Client]:
    """A client with the certificate in a Secret, and buildx set up for it."""
    certificates = _certificates(lab, secret, namespace)
    # In the box names of Services resolve. A port-forward ends when one of many connections breaks.
    address = f"tcp://{server_name if lab.devcluster else 'localhost'}:{PORT}"
    files = ("ca", "cert", "key")
    tls = ",".join(f"{'cacert' if f == 'ca' else f}={certificates}/{f}.pem" for f in files)
    create = ("buildx", "create", "--name", BUILDER, "--driver", "remote", "--driver-opt")
    subprocess.run(lab.command("buildx", "rm", BUILDER), capture_output=True, check=False)
    lab.run(*create, f"{tls},servername={server_name}", address)
    try:
        yield Client(lab, certificates, server_name, address, _base_image(lab))
    finally:
        subprocess.run(lab.command("buildx", "rm", BUILDER), capture_output=True, check=False)


@contextmanager
def forwarded(lab: Lab, target: str, namespace: str) -> Iterator[None]:
    """``kubectl port-forward`` to a Service, for the length of a block."""
    forward = ["kubectl", "port-forward", "-n", namespace, target, f"{PORT}:1234"]
    # It complains about every client that leaves; what matters is on its standard output.
    with subprocess.Popen(
        lab.command(*forward), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            if "Forwarding" not in process.stdout.readline():
                raise LabError(f"kubectl port-forward to {target} did not start")
            yield
        finally:
            process.terminate()


def _certificates(lab: Lab, secret: str, namespace: str) -> Path:
    """A client's certificate, out of its Secret into files, as clients want it."""
    text = lab.kubectl("get", "secret", secret, "-n", namespace, "-o", "json")
    folder = BUILD / "client"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        file = folder / name
        file.touch(mode=0o600)
        file.write_bytes(base64.b64decode(json.loads(text)["data"][name]))
    return folder


def _base_image(lab: Lab) -> Path | None:
    if not lab.devcluster:
        given = os.environ.get("DEMO_BASE_IMAGE")
        return Path(given) if given else None
    return Path(finish(lab.driver("image", "busybox")).strip())
