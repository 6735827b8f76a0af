"""Runs a tier of tests in a devcluster of its own, which is gone afterwards.

    python -m tests.in_cluster [--control-plane] [--keep] tests/integration [pytest's options]

With ``--ipv6`` in the place of ``--control-plane``, the control plane speaks nothing but IPv6.

The name of the devcluster is derived from this checkout: two checkouts do not meet, and what a
killed run left is repaired by the next one.

A KUBECONFIG of the user's is of no account, unless BUILDPOOL_CLUSTER=kubeconfig names its cluster
for this: then the tests run there, change it, and leave things behind. Give them one that can be
thrown away, a new one for each tier: one that has buildpool already is refused.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from demo.install import given_image, install
from demo.lab import Lab, LabError

PROJECT = Path(__file__).resolve().parent.parent
IMAGES = ("busybox", "dockerfile-frontend", "mockerfile")
"""Images that tests use; made out here, where package registries are found."""
GO_PROGRAM = (sys.executable, "-m", "tests.go_program")
"""Compiles what tests use, for the same reason."""


def main(arguments: list[str]) -> int:
    """Brings the cluster up, runs pytest in it, and takes it down; pytest's exit code."""
    flags = {"--control-plane", "--ipv6", "--keep"}
    pytest = [sys.executable, "-m", "pytest", "-q", *(a for a in arguments if a not in flags)]
    is_of_ipv6 = "--ipv6" in arguments
    plane = "--control-plane" in arguments or is_of_ipv6
    kind = "plane6" if is_of_ipv6 else "plane" if plane else "node"
    options = ["--control-plane"] * plane + ["--ip-family", "ipv6"] * is_of_ipv6
    try:
        lab = Lab.from_environment(
            f"{kind}-{hashlib.sha256(str(PROJECT).encode()).hexdigest()[:6]}"
        )
        if not lab.devcluster and is_of_ipv6:
            print("left out: a cluster of yours has the addresses that it has", flush=True)
            return 0
        if not lab.devcluster:
            return _in_the_users(lab, pytest, with_operator=not plane)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    # As after Ctrl-C: the cluster is taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def run(*command: str) -> int:
        return subprocess.run(lab.driver(*command), cwd=PROJECT, check=False).returncode

    # The operator is installed from out here: its wheels come from the network.
    install_it = [sys.executable, "-m", "demo.install", f"{lab.devcluster}"]
    try:
        return (
            run("up", *options)
            or (0 if plane else subprocess.run(install_it, cwd=PROJECT, check=False).returncode)
            or any(run("image", image) for image in (() if plane else IMAGES))
            or (0 if plane else subprocess.run(GO_PROGRAM, cwd=PROJECT, check=False).returncode)
            or run("exec", "--", *pytest)
        )
    finally:
        if "--keep" not in arguments:
            run("down")


def _in_the_users(lab: Lab, pytest: list[str], *, with_operator: bool) -> int:
    """Runs pytest in the cluster that the user named for it."""
    if with_operator:
        given_image()
    lab.meet()
    if with_operator:
        install(lab)
    environment = {name: v for name, v in os.environ.items() if name != "DEVCLUSTER_NAME"}
    return subprocess.run(pytest, cwd=PROJECT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
