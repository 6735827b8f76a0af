"""The operator's image, built by BuildKit, and its Helm chart, installed as a user would.

    python -m demo.install NAME      into the devcluster of that name

In a devcluster there is no registry to pull from: the image is built inside it, with a base image
assembled from Debian packages and with wheels fetched out here, where there is a network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from buildpool import __version__
from demo.lab import BUILD, PROJECT, Lab, LabError, finish

RELEASE: Final = "buildpool"
NAMESPACE: Final = "buildpool-system"
REPOSITORY: Final = "docker.io/library/buildpool"
PYTHON: Final = "python:3.11-slim-bookworm"
"""The base image of the Dockerfile; wheels are fetched for its Python."""
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SOURCES: Final = (
    "Dockerfile",
    "pyproject.toml",
    "requirements/build.txt",
    "requirements/operator.txt",
    "operator/buildpool",
)


def install(lab: Lab, release: str = RELEASE, namespace: str = NAMESPACE) -> None:
    """Builds the image where there is none yet, and installs or upgrades the chart.

    In a cluster of the user's, ``lab.meet`` comes first.
    """
    repository, tag = _build(lab) if lab.devcluster else given_image()
    lab.run(
        *("helm", "upgrade", "--install", release, PROJECT / "manifests/helm/buildpool"),
        *("--namespace", namespace, "--create-namespace", "--wait", "--timeout", "120s"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
    )


def given_image() -> tuple[str, str]:
    """The image for a cluster of the user's own, as its repository and its tag."""
    repository, _, tag = os.environ.get("BUILDPOOL_IMAGE", "").rpartition(":")
    if not repository:
        raise LabError(
            "there is no public image yet: build the Dockerfile, push the image where your cluster "
            "can pull it, and set BUILDPOOL_IMAGE=registry/buildpool:tag"
        )
    return repository, tag


def _build(lab: Lab) -> tuple[str, str]:
    """Builds and loads the image, unless the node has it; tagged by what it is made from."""
    sources = _fingerprint()
    tag = f"{__version__}-{sources}"
    images = lab.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names}")
    if tag not in images:
        command = lab.driver("build", "--tag", f"buildpool:{tag}")
        command += ["--file", str(PROJECT / "Dockerfile"), "--context", str(PROJECT)]
        command += ["--named", f"wheels={_wheels(sources)}", "--named", f"{PYTHON}=image://python"]
        finish(command, timeout=600)
    return REPOSITORY, tag


def _wheels(sources: str) -> Path:
    """The project and its dependencies as wheels, in a folder made once per content."""
    folder = BUILD / f"wheels-{sources}"
    if folder.exists():
        return folder
    for stale in BUILD.glob("wheels-*"):
        shutil.rmtree(stale)
    making = BUILD / "wheels-making"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    finish(
        [
            *(*pip, "download", "--require-hashes", "--requirement", "requirements/operator.txt"),
            *("--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"),
            *(f"--platform={platform}" for platform in PLATFORMS),
            *("--no-deps", "--dest", str(making)),
        ],
        timeout=600,
    )
    wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(making))
    finish([*pip, *wheel, str(PROJECT)], timeout=600)
    return making.rename(folder)


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for source in SOURCES:
        path = PROJECT / source
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            digest.update(str(file.relative_to(PROJECT)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    install(Lab(sys.argv[1]))
