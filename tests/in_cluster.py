"""Runs a tier of tests in a devcluster of its own, which is gone afterwards.

    python -m tests.in_cluster [--control-plane] [--keep] tests/integration [pytest's options]

With KUBECONFIG set, the tests run against that cluster instead. The name of the devcluster is
derived from this checkout: two checkouts do not meet, and what a killed run left is repaired by the
next one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
IMAGES = ("busybox", "dockerfile-frontend", "mockerfile")
"""Images that tests use; made out here, where package registries are found."""


def main(arguments: list[str]) -> int:
    """Brings the cluster up, runs pytest in it, and takes it down; pytest's exit code."""
    flags = {"--control-plane", "--keep"}
    up = ["--control-plane"] if "--control-plane" in arguments else []
    pytest = [sys.executable, "-m", "pytest", "-q", *(a for a in arguments if a not in flags)]
    if os.environ.get("KUBECONFIG"):
        return subprocess.run(pytest, cwd=PROJECT, check=False).returncode
    kind = "plane" if up else "node"
    name = f"{kind}-{hashlib.sha256(str(PROJECT).encode()).hexdigest()[:6]}"
    environment = {**os.environ, "DEVCLUSTER_NAME": name}
    devcluster = [sys.executable, "-m", "devcluster"]

    def run(*command: str) -> int:
        return subprocess.run(
            [*devcluster, *command], cwd=PROJECT, env=environment, check=False
        ).returncode

    try:
        # The operator is installed from out here: its wheels come from the network.
        install = [sys.executable, "-m", "demo.install", name]
        return (
            run("up", *up)
            or (0 if up else subprocess.run(install, cwd=PROJECT, check=False).returncode)
            or any(run("image", image) for image in (() if up else IMAGES))
            or run("exec", "--", *pytest)
        )
    finally:
        if "--keep" not in arguments:
            run("down")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
