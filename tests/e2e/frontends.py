"""Frontends in a registry of the cluster: BuildKit's own, and one that reads another language.

Their images are assembled by the devcluster and pushed by a build, as any image is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import PROJECT
from e2e.clients import BASE, Client, context
from e2e.registries import Registry

DOCKERFILE = f"FROM {BASE}\nRUN echo built > /built\n"
MOCKERFILE = f"""\
apiVersion: v1alpha1
from: {BASE}
files:
  /etc/greeting: hello
  /opt/deep/down/note: |
    two
    lines
run:
  - tr a-z A-Z < /etc/greeting > /shouted
  - which tr > /found
cmd: [cat, /shouted]
"""


@dataclass(frozen=True, slots=True)
class Frontend:
    """One frontend: the image of the devcluster, and where a registry has it."""

    name: str
    registry: Registry
    path: str

    @property
    def repository(self) -> str:
        """As ``spec.frontends.allowed`` spells it."""
        return f"{self.registry.host}/{self.path}"

    @property
    def image(self) -> str:
        """As a ``# syntax=`` line spells it."""
        return f"{self.repository}:1"

    @property
    def gateway(self) -> tuple[str, ...]:
        """Options of buildctl that have this frontend read the file."""
        return ("--frontend", "gateway.v0", "--opt", f"source={self.image}")

    def syntax(self, text: str) -> str:
        """A file that asks for this frontend by its first line."""
        return f"# syntax={self.image}\n{text}"

    def push(self, client: Client, folder: Path) -> None:
        """Puts the image into the registry: a build that adds nothing keeps all that it is."""
        layout = _layout(self.name)
        digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        client.build(
            *(context(folder, "FROM frontend\n"), "--oci-layout", f"frontend={layout}"),
            *("--opt", f"context:frontend=oci-layout://frontend@{digest}"),
            *("--output", f"type=image,name={self.image},push=true"),
        )


def dockerfile_frontend(registry: Registry) -> Frontend:
    """BuildKit's own frontend, of the builders' version."""
    return Frontend("dockerfile-frontend", registry, "docker/dockerfile")


def mockerfile_frontend(registry: Registry) -> Frontend:
    """A frontend for YAML files: devcluster/go/tools/mockerfile."""
    return Frontend("mockerfile", registry, "example/mockerfile")


def _layout(name: str) -> Path:
    """An image of the devcluster, compiled and assembled now if need be."""
    command = [sys.executable, "-m", "devcluster", "image", name]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
