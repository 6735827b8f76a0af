"""What BuildKit offers besides: cache mounts, secrets, SSH agents, buildx over several nodes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import Api
from e2e.clients import BASE, Client, client_of, context
from e2e.pools import deploy


@pytest.fixture(scope="module")
def pools(api: Api, shared_namespace: str) -> str:
    """The namespace of two pools, first and second, of one builder each."""
    deploy(api, "first", shared_namespace)
    deploy(api, "second", shared_namespace)
    return shared_namespace


@pytest.fixture
def client(api: Api, pools: str, tmp_path: Path) -> Client:
    """The client of the first pool."""
    return client_of(api, "first", pools, tmp_path)


def test_a_cache_mount_is_found_again_by_the_next_build(client: Client, tmp_path: Path) -> None:
    step = "RUN --mount=type=cache,target=/cache echo $ROUND >> /cache/log; cp /cache/log /log"
    folder = context(tmp_path / "context", f"FROM {BASE}\nARG ROUND\n{step}\n")
    for number, expected in (1, "1\n"), (2, "1\n2\n"):
        # Not --no-cache: that would empty the mount, too.
        client.build(
            *(folder, "--opt", f"build-arg:ROUND={number}"),
            *("--output", f"type=local,dest={tmp_path / 'out'}"),
        )
        assert (tmp_path / "out" / "log").read_text() == expected


def test_a_secret_is_seen_by_its_step_and_by_nobody_else(client: Client, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very-secret-token")
    text = (
        f"FROM {BASE}\n"
        "RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size\n"
        "RUN ls /run/secrets > /seen 2>&1 || true\n"
    )
    out = tmp_path / "out"
    progress = client.build(
        context(tmp_path / "context", text),
        *("--secret", f"id=token,src={tmp_path / 'token'}"),
        *("--output", f"type=local,dest={out}"),
    )
    assert (out / "size").read_text().strip() == str(len("very-secret-token"))
    assert "token" not in (out / "seen").read_text()
    assert "very-secret-token" not in progress


def test_an_ssh_agent_is_forwarded_into_the_step_that_asks(client: Client, tmp_path: Path) -> None:
    text = f"FROM {BASE}\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo forwarded > /agent\n"
    out = tmp_path / "out"
    with ssh_agent(tmp_path / "agent.sock") as socket:
        client.build(
            context(tmp_path / "context", text),
            *("--ssh", f"default={socket}", "--output", f"type=local,dest={out}"),
        )
    assert (out / "agent").read_text() == "forwarded\n"


def test_buildx_spreads_platforms_over_the_nodes_of_a_builder(
    api: Api, pools: str, tmp_path: Path
) -> None:
    first, second = (client_of(api, name, pools, tmp_path / name) for name in ("first", "second"))
    buildx = Buildx(tmp_path / "buildx")
    buildx("create", "--name=pair", *node(first, "linux/amd64"))
    buildx("create", "--name=pair", "--append", "--node=second", *node(second, "linux/arm64"))
    buildx("use", "pair")
    listed = buildx("ls")
    assert "pair*" in listed
    assert listed.count("running") >= 2, listed
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_text("for every platform")
    folder = context(tmp_path / "context", "FROM scratch\nCOPY file /file\n")
    before = builds(first), builds(second)
    buildx("build", "--platform=linux/arm64", f"--output={tmp_path / 'out'}", str(folder))
    assert (builds(first), builds(second)) == (before[0], before[1] + 1)
    both = tmp_path / "both"
    buildx("build", "--platform=linux/amd64,linux/arm64", f"--output={both}", str(folder))
    assert sorted(path.name for path in both.iterdir()) == ["linux_amd64", "linux_arm64"]
    assert (builds(first), builds(second)) == (before[0] + 1, before[1] + 2)


class Buildx:
    """buildx with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "BUILDX_CONFIG": str(folder)}

    def __call__(self, *args: str) -> str:
        """Runs it, which has to succeed; what it printed."""
        command = ["buildx", *args]
        done = subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def node(client: Client, platform: str) -> list[str]:
    """A pool as one node of a builder, for one platform."""
    folder = client.certificates
    server = client.address.removeprefix("tcp://").partition(":")[0]
    tls = f"cacert={folder}/ca.pem,cert={folder}/cert.pem,key={folder}/key.pem"
    options = f"--driver-opt={tls},servername={server}"
    return ["--driver=remote", options, f"--platform={platform}", client.address]


def builds(client: Client) -> int:
    """How many builds a pool of one builder has in its history."""
    return len(client.ask("debug", "histories").splitlines()[1:])


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
