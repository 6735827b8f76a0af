"""Runs a tier of tests in a devcluster of its own, which is gone afterwards.

    python -m tests.in_cluster [--control-plane] [--keep] tests/integration [pytest's options]

With ``--ipv6`` in the place of ``--control-plane``, the control plane speaks nothing but IPv6.
With --kubernetes 1.31, the control plane is an older one. With --helm-3, there is a Helm 3 beside
the newest, which HELM_3 names.

The name of the devcluster is derived from this checkout: two checkouts do not meet, and what a
killed run left is repaired by the next one. Two runs of one checkout need another --name each.

A KUBECONFIG of the user's is of no account, unless BUILDPOOL_CLUSTER=kubeconfig names its cluster
for this: then the tests run there, change it, and leave things behind. Give them one that can be
thrown away, a new one for each tier: one that has buildpool already is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from demo.install import given_image, install
from demo.lab import Lab, LabError, finish

PROJECT = Path(__file__).resolve().parent.parent
HELM_3 = [sys.executable, "-m", "devcluster", "program", "helm-3"]
IMAGES = ("busybox", "dockerfile-frontend", "mockerfile")
"""Images that tests use; made out here, where package registries are found."""
GO_PROGRAM = (sys.executable, "-m", "tests.go_program")
"""Compiles what tests use, for the same reason."""
TEARDOWN_SECONDS = 120
"""Time that pytest has to end what its tests have started."""
PROMETHEUS = (sys.executable, "-m", "tests.prometheus")
"""Fetches what tests of control planes use, for the same reason."""


def main(arguments: list[str]) -> int:
    """Brings the cluster up, runs pytest in it, and takes it down; pytest's exit code."""
    flags, others = _parser().parse_known_args(arguments)
    pytest = [sys.executable, "-m", "pytest", "-q", *others]
    is_of_ipv6: bool = flags.ipv6
    plane: bool = flags.control_plane or is_of_ipv6
    older = flags.kubernetes.replace(".", "-")
    kind = flags.name or (f"plane{6 if is_of_ipv6 else older}" if plane else "node")
    options = ["--control-plane"] * plane + ["--ip-family=ipv6"] * is_of_ipv6
    options.append(f"--kubernetes={flags.kubernetes}")
    try:
        lab = Lab.from_environment(
            f"{kind}-{hashlib.sha256(str(PROJECT).encode()).hexdigest()[:6]}"
        )
        if not lab.devcluster and (is_of_ipv6 or flags.kubernetes or flags.helm_3):
            print("left out: this needs a devcluster; a cluster of yours is as it is", flush=True)
            return 0
        if not lab.devcluster:
            return _in_the_users(lab, pytest, with_operator=not plane)
        if flags.helm_3:
            os.environ["HELM_3"] = finish(HELM_3, timeout=1800).strip()
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    # As after Ctrl-C: the cluster is taken down. Also where this runs in the background, in which a
    # process is born with SIGINT ignored, and so are those that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
            or subprocess.run(PROMETHEUS if plane else GO_PROGRAM, cwd=PROJECT).returncode
            or _run_tests(lab.driver("exec", "--", *pytest))
        )
    finally:
        if not flags.keep:
            run("down")


def _run_tests(command: list[str]) -> int:
    """Runs pytest. Where this process is told to end, pytest is, too, and first ends what its tests
    have started: nobody else knows of it.
    """
    process = subprocess.Popen(command, cwd=PROJECT)
    try:
        return process.wait()
    except SystemExit:
        process.send_signal(signal.SIGINT)
        raise
    finally:  # after Ctrl-C, the terminal has sent it the signal
        try:
            process.wait(timeout=TEARDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _parser() -> argparse.ArgumentParser:
    """Our own flags; what it does not know is pytest's."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for flag in ("--control-plane", "--ipv6", "--keep", "--helm-3"):
        parser.add_argument(flag, action="store_true")
    for option in ("--kubernetes", "--name"):
        parser.add_argument(option, default="")
    return parser


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
