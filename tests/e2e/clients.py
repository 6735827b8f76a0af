"""The clients of a pool as their users run them: buildctl and buildx, with certificates in files.

Nothing here knows the operator. What a client needs is an address, a certificate out of a Secret,
and, where no registry can be reached, the base image as a folder.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import PROJECT, Api, eventually
from limits import patience

BASE = "busybox:1.37"
RELEASE = 7777
LONG = f"FROM {BASE}\nRUN echo running; sleep 20; nc -l -p {RELEASE} < /dev/null; echo released\n"
"""A build of twenty seconds, and then until it is released, however slow the machine is."""
SHORT = f"FROM {BASE}\nRUN echo built > /built\n"


@functools.cache
def base_image() -> Path | None:
    """The base image as an OCI layout; None where the builders can pull it."""
    if "DEVCLUSTER_NAME" not in os.environ:
        return None
    command = [sys.executable, "-m", "devcluster", "image", "busybox"]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=True
    )
    return Path(done.stdout.strip())


def base_context() -> list[str]:
    """The base image as an option of buildx; none where the builders can pull it."""
    return [f"--build-context={BASE}=oci-layout://{path}" for path in [base_image()] if path]


def run(*command: str, within: float = 180) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; the exit code is the caller's to judge."""
    return subprocess.run(command, capture_output=True, text=True, timeout=within, check=False)


def is_open(host: str, port: int) -> bool:
    """Whether somebody takes TCP connections there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Client:
    """One client of one pool."""

    address: str
    certificates: Path
    server_name: str = ""
    """What the builder's certificate has to be for, where the address does not say it."""

    def at(self, address: str) -> Client:
        """The same client, by another way: a port-forward, or the address of one pod."""
        return replace(self, address=address, server_name="localhost")

    def buildctl(self, *args: str) -> list[str]:
        """A command line of buildctl."""
        folder = self.certificates
        command = ["buildctl", "--addr", self.address, "--tlscacert", f"{folder}/ca.pem"]
        command += ["--tlscert", f"{folder}/cert.pem", "--tlskey", f"{folder}/key.pem"]
        return [*command, *(["--tlsservername", self.server_name] * bool(self.server_name)), *args]

    def build_command(self, context: Path, *options: str) -> list[str]:
        """A command line that builds the Dockerfile in a folder."""
        command = self.buildctl("build", "--frontend", "dockerfile.v0", "--progress", "plain")
        command += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        if base := base_image():
            digest = json.loads((base / "index.json").read_text())["manifests"][0]["digest"]
            command += ["--oci-layout", f"base={base}"]
            command += ["--opt", f"context:{BASE}=oci-layout://base@{digest}"]
        return [*command, *options]

    def build(self, context: Path, *options: str) -> str:
        """Builds, which has to succeed; the progress it printed."""
        done = run(*self.build_command(context, *options))
        assert done.returncode == 0, done.stderr
        return done.stderr

    def node(self, *options: str) -> list[str]:
        """What buildx needs to create a node of a builder, or to append one."""
        folder = self.certificates
        server = self.server_name or self.address.removeprefix("tcp://").partition(":")[0]
        tls = f"cacert={folder}/ca.pem,cert={folder}/cert.pem,key={folder}/key.pem"
        driver = ["--driver=remote", f"--driver-opt={tls},servername={server}"]
        return [*driver, *options, self.address]

    def build_with_buildx(self, context: Path, *options: str) -> str:
        """The same by buildx, whose builder is made for it and removed; the progress it printed."""
        name = f"builder-{uuid.uuid4().hex[:8]}"  # stories build side by side
        try:
            made = run("buildx", "create", "--name", name, *self.node())
            assert made.returncode == 0, made.stderr
            build = ["buildx", "build", "--builder", name, "--progress", "plain", *base_context()]
            done = run(*build, *options, str(context))
            assert done.returncode == 0, done.stderr
            return done.stderr
        finally:
            run("buildx", "rm", name)

    def ask(self, *args: str) -> str:
        """Runs buildctl, which has to succeed; its answer."""
        done = run(*self.buildctl(*args))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def builds(self) -> int:
        """How many builds are in the history of a builder."""
        return len(self.ask("debug", "histories").splitlines()[1:])

    def can_connect(self) -> bool:
        """Whether a builder takes this client."""
        return run(*self.buildctl("debug", "info")).returncode == 0


def client_of(api: Api, pool: str, namespace: str, folder: Path, name: str = "default") -> Client:
    """A client with the certificate that is in its Secret now."""
    certificates = files_of(api, f"{pool}-client-{name}", namespace, folder)
    return Client(f"tcp://{pool}.{namespace}.svc:1234", certificates)


def files_of(api: Api, secret: str, namespace: str, folder: Path) -> Path:
    """The certificate in a Secret, as files in a folder of its own."""
    found = api.get("secret", secret, namespace)
    assert found is not None, f"there is no Secret {namespace}/{secret}"
    folder /= secret
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).write_bytes(base64.b64decode(found["data"][name]))
    return folder


def context(folder: Path, dockerfile: str) -> Path:
    """A folder with nothing but this Dockerfile."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


class Buildx:
    """buildx with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "BUILDX_CONFIG": str(folder)}

    def __call__(self, *args: str) -> str:
        """Runs it, which has to succeed; what it printed, progress included."""
        done = subprocess.run(
            ["buildx", *args],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def cached_steps(progress: str) -> int:
    """How many RUN steps the builder did not have to run, as either client prints it."""
    steps = set(re.findall(r"^(#\d+) \[[^]]*\] RUN ", progress, re.MULTILINE))
    return sum(f"\n{step} CACHED\n" in progress for step in steps)


TOOLS: dict[str, Callable[..., str]] = {
    "buildctl": Client.build,
    "buildx": Client.build_with_buildx,
}
APP = f"""\
FROM {BASE} AS library
RUN cat /proc/sys/kernel/random/uuid > /library
FROM {BASE} AS program
COPY --from=library /library /library
COPY source /source
RUN cat /source /library /proc/sys/kernel/random/uuid > /program
FROM scratch
COPY --from=program /program /program
"""
"""An image without the stages that make it; whoever runs its steps again gets another one."""
STEPS = 2
"""RUN steps of it."""


@dataclass(frozen=True, slots=True)
class Project:
    """Somebody's source in a folder, built by one of the clients."""

    folder: Path
    tool: str
    client: Client

    def build(self, *options: str) -> Built:
        """Builds it, which has to succeed."""
        out = self.folder.parent / "out"
        output = f"--output=type=local,dest={out}"
        progress = TOOLS[self.tool](self.client, self.folder, output, *options)
        return Built(cached_steps(progress), (out / "program").read_text())

    def edit(self) -> None:
        """Changes the source."""
        (self.folder / "source").write_text(f"{uuid.uuid4()}\n")


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a build of the project."""

    cached: int
    """RUN steps that the builder did not have to run."""
    program: str


def new_project(folder: Path, tool: str, client: Client) -> Project:
    """A project that nobody has built, for an empty builder."""
    project = Project(context(folder / "context", APP), tool, client)
    project.edit()
    client.ask("prune", "--all")
    return project


class RunningBuild:
    """A build that goes on beside the test."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stderr=out, stdout=out)

    @property
    def is_running(self) -> bool:
        """Whether the client still waits for its build."""
        return self.process.poll() is None

    @property
    def progress(self) -> str:
        """What the client has printed so far."""
        return self._log.read_text()

    def reach_its_long_step(self) -> None:
        """Waits until the builder executes the step."""

        def runs() -> bool:
            assert self.is_running, self.progress
            return bool(re.search(r"^#\d+ [\d.]+ running$", self.progress, re.MULTILINE))

        eventually(runs, within=120, what="the build runs")

    def end(self, host: str, *, within: float = 30) -> None:
        """Lets the build on this builder end, which has to be a good end."""
        assert self.is_running, self.progress
        eventually(
            lambda: is_open(host, RELEASE), within=60, what="the build can be released", every=0.5
        )
        code = self.process.wait(timeout=patience(within))
        assert code == 0, f"the build ended with {code}: {self.progress[-2000:]}"
        assert "released" in self.progress


@contextmanager
def running_build(client: Client, folder: Path) -> Iterator[RunningBuild]:
    """A build that is in its long step; killed where the test fails before its end."""
    command = client.build_command(context(folder, LONG), "--no-cache")
    build = RunningBuild(command, folder / "progress.log")
    try:
        build.reach_its_long_step()
        yield build
    finally:
        if build.is_running:
            build.process.kill()
        build.process.wait(timeout=10)


@contextmanager
def ssh_agent(socket: Path) -> Iterator[Path]:
    """An SSH agent for the length of a block."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            yield socket
        finally:
            agent.terminate()
