"""Machines outside of the cluster's network, from which nothing but the API server is reached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster import OPERATOR_NAMESPACE, PROJECT, Api
from devcluster.layout import NODE_ADDRESS
from integration.machines import IN_A_TERMINAL

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""This end, and that of the machine outside (RFC 5737)."""
API_SERVER_PORT = 6443
ACCOUNT = "anna"


@dataclass(frozen=True)
class Outside:
    """A machine outside of the cluster's network, with a user of pools."""

    within: tuple[str, ...]
    home: Path
    environment: dict[str, str]
    namespace: str = ""
    """Where the pools are that are theirs."""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command there; the exit code is the caller's to judge."""
        return subprocess.run(
            [*self.within, *command],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def buildpool(self, *arguments: str) -> str:
        """Runs our program there, which has to succeed; what it printed."""
        done = self.run(sys.executable, "-m", "buildpool.cli", *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    @contextmanager
    def foreground(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Our program in a terminal of its own, for the length of a block."""
        with subprocess.Popen(
            [*IN_A_TERMINAL, *self.within, sys.executable, "-m", "buildpool.cli", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)

    @property
    def files(self) -> Path:
        """Where connections are kept."""
        return self.home / ".config" / "buildpool"


@contextmanager
def a_machine_outside() -> Iterator[tuple[str, ...]]:
    """A network in which one port of the node is reached, and nothing else; how to run there."""
    name = f"outside{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("link", "add", "outside0", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"{HERE}/30", "dev", "outside0")
        ip("link", "set", "outside0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "address", "add", f"{THERE}/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", f"{NODE_ADDRESS}/32", "via", HERE)
        nft(
            "table inet outside { chain input { type filter hook input priority 0;"
            f' iifname "outside0" tcp dport != {API_SERVER_PORT} drop; }}; }}'
        )
        yield ("nsenter", f"--net=/run/netns/{name}")
        nft("delete table inet outside")
    finally:
        subprocess.run(["ip", "link", "delete", "outside0"], check=False)
        ip("netns", "delete", name)


def nft(rules: str) -> None:
    """Changes what the node lets through."""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def ip(*arguments: str) -> None:
    """Changes the network."""
    subprocess.run(["ip", *arguments], check=True)


def write_kubeconfig(api: Api, path: Path, *, token: str = "", namespace: str = "") -> None:
    """A kubeconfig with the node's address; with a token, for a user who has nothing else."""
    raw = yaml.safe_load(api.must("config", "view", "--raw", "--minify", "--flatten"))
    if token:
        raw["users"] = [{"name": "user", "user": {"token": token}}]
        raw["contexts"][0]["context"] |= {"user": "user", "namespace": namespace}
    raw["clusters"][0]["cluster"]["server"] = f"https://{NODE_ADDRESS}:{API_SERVER_PORT}"
    path.write_text(yaml.safe_dump(raw))
    path.chmod(0o600)


@contextmanager
def a_user_outside(home: Path, namespace: str = "") -> Iterator[Outside]:
    """Somebody with a kubeconfig in the home folder, kubectl's plugin, and the docker of buildx."""
    programs = {
        "kubectl-buildpool": f'exec {sys.executable} -m buildpool.cli "$@"',
        "kubectl_complete-buildpool": (
            f"exec {sys.executable} -c 'from buildpool.cli import complete; complete()' \"$@\""
        ),
        "docker": '[ "$1" = buildx ] && shift && exec buildx "$@"',
    }
    (home / "bin").mkdir()
    for name, line in programs.items():
        program = home / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    environment = {
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT / "operator"),
        "HOME": str(home),
        "KUBECONFIG": str(home / "kubeconfig"),
        "BUILDX_CONFIG": str(home / "buildx"),
    }
    with a_machine_outside() as within:
        user = Outside(within, home, environment, namespace)
        try:
            yield user
        finally:
            user.run(sys.executable, "-m", "buildpool.cli", "disconnect")


FORWARDING = ("get services", "get,list pods", "create pods/portforward")
"""The rights for a port-forward, in the namespace of what is forwarded."""


def may(api: Api, namespace: str, who: str, name: str, *rules: str) -> None:
    """Gives a ServiceAccount rights in a namespace."""
    for number, rule in enumerate(rules):
        verbs, resources, *names = rule.split()
        role = f"{name}-{number}"
        rights = [f"--verb={verbs}", f"--resource={resources}"]
        api.must("create", "role", role, "-n", namespace, *rights, *names)
        api.must(
            *("create", "rolebinding", role, "-n", namespace),
            *(f"--role={role}", f"--serviceaccount={who}"),
        )


def role_of(namespace: str) -> str:
    """How the roles of the user of a namespace begin that are in the operator's namespace."""
    return f"{namespace}-{ACCOUNT}"


@contextmanager
def a_user_of(api: Api, namespace: str, home: Path, *pools: str) -> Iterator[Outside]:
    """A user outside who may do what docs/how-to/connect.md says for some pools, and no more."""
    api.must("create", "serviceaccount", ACCOUNT, "-n", namespace)
    who = f"{namespace}:{ACCOUNT}"
    secrets = " ".join(f"--resource-name={pool}-client-default" for pool in pools)
    may(
        *(api, namespace, who, ACCOUNT),
        "get,list buildkitpools.buildpool.dev",
        f"get secrets {secrets}",
        *FORWARDING,
    )
    may(api, OPERATOR_NAMESPACE, who, role_of(namespace), *FORWARDING)
    token = api.must("create", "token", ACCOUNT, "-n", namespace, "--duration=1h").strip()
    write_kubeconfig(api, home / "kubeconfig", token=token, namespace=namespace)
    try:
        with a_user_outside(home, namespace) as user:
            yield user
    finally:
        for number in range(len(FORWARDING)):
            for kind in ("rolebinding", "role"):
                name = f"{role_of(namespace)}-{number}"
                api.kubectl("delete", kind, name, "-n", OPERATOR_NAMESPACE, "--ignore-not-found")
