"""What `connect` does on its user's machine: files, processes, and builders of a real buildx."""

from __future__ import annotations

import os
import shlex
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import eventually
from integration.machines import (
    NAMESPACE,
    Machine,
    a_kubeconfig,
    a_machine,
    children_of,
    is_alive,
    may_unshare,
    old_kubectl,
)

ARM = {"builders": {"architecture": "arm64"}}
FOREGROUND = "The port-forward runs until Ctrl-C; --detach keeps it in the background.\n"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine, and two pools behind one gateway."""
    with a_machine(tmp_path) as found:
        found.add("ci")
        found.add("arm", **ARM)
        yield found


def holder_of(machine: Machine, name: str = "ci") -> int:
    """The process that holds a connection."""
    return int((machine.files / name / "holder").read_text())


def kept(machine: Machine) -> list[str]:
    """All that is kept of connections; locks are not, which stay for others that wait."""
    paths = (path.relative_to(machine.files) for path in machine.files.rglob("*"))
    return sorted(str(path) for path in paths if not path.name.endswith(".lock"))


def is_open(port: int) -> bool:
    """Whether a port of this machine is listened on."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def test_pools_behind_one_gateway_are_nodes_of_one_builder(machine: Machine) -> None:
    said = machine.must("connect", "ci", "arm", "--detach")
    assert said.count("a port-forward to service/buildpool-gateway in buildpool-system") == 2
    first, second = machine.builders["ci"]
    assert first["Endpoint"] != second["Endpoint"]
    assert [p["architecture"] for n in (first, second) for p in n["Platforms"]] == [
        "amd64",
        "arm64",
    ]
    holder = holder_of(machine)
    machine.must("connect", "ci", "arm", "--detach")
    assert holder_of(machine) == holder, "the same command cuts no build"
    # Each takes the other's place.
    machine.must("connect", "arm", "ci", "--name=ci", "--detach")
    machine.must("connect", "ci", "--detach")
    (node,) = machine.builders["ci"]
    assert node["Name"] == "ci"
    assert machine.must("disconnect") == "builder ci and its files are removed\n"
    assert (machine.builders, kept(machine)) == ({}, [])


def test_pools_for_one_platform_are_no_builder(machine: Machine) -> None:
    machine.add("other")
    assert "both build for linux/amd64" in machine.fails("connect", "ci", "other")
    assert (machine.builders, kept(machine)) == ({}, [])
    assert machine.must("connect", "ci", "other", "--print=buildctl").count("buildctl ") == 2


@pytest.mark.parametrize("node", ["ci", "other"])
def test_a_builder_that_connect_has_not_made_is_never_touched(machine: Machine, node: str) -> None:
    machine.buildx("create", "--name=ci", f"--node={node}", "--driver=remote", "tcp://x:1")
    before = machine.builders
    for _ in range(2):
        said = machine.fails("connect", "ci", "--detach")
        assert "there is a builder ci already that was not made by connect" in said
        assert kept(machine) == []
    machine.must("connect", "ci", "--print=env")
    assert "was not made by connect" in machine.fails("connect", "ci", "--detach")
    assert machine.must("disconnect", "ci") == "files of ci are removed\n"
    assert machine.builders == before


def test_a_builder_that_was_removed_by_buildx_is_made_again(machine: Machine) -> None:
    machine.must("connect", "ci", "arm", "--detach")
    machine.buildx("rm", "ci")
    machine.must("connect", "ci", "arm", "--detach")
    assert len(machine.builders["ci"]) == 2
    machine.buildx("rm", "ci")
    assert machine.must("disconnect") == "files of ci are removed\n"


def test_two_commands_at_once_are_one_after_the_other(machine: Machine) -> None:
    both = [machine.start("connect", "ci", "arm", "--detach") for _ in range(2)]
    ends = [process.communicate(timeout=100) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert [out for out, _ in ends] == [ends[0][0]] * 2
    holder = holder_of(machine)
    eventually(lambda: len(children_of(holder)) == 2, within=20, what="both are forwarded")
    assert len(machine.builders["ci"]) == 2


def test_ctrl_c_ends_the_port_forward_and_the_builder_stays(machine: Machine) -> None:
    with machine.start("connect", "ci") as connecting:
        assert connecting.stdout is not None
        assert connecting.stderr is not None
        assert FOREGROUND in connecting.stdout, "it has ended"
        holder = holder_of(machine)
        said = machine.must("connect", "ci", "--detach")
        assert "is that of another terminal, and runs until Ctrl-C there" in said
        assert holder_of(machine) == holder
        os.killpg(connecting.pid, signal.SIGINT)  # as a terminal does
        assert connecting.wait(timeout=30) == 0
        assert connecting.stderr.read() == ""
    assert not is_alive(holder)
    assert "ci" in machine.builders


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_ended_early_leaves_no_process(machine: Machine, number: signal.Signals) -> None:
    slow = machine.home / "slow"
    slow.touch()
    connecting = machine.start("connect", "ci", "--detach")
    at = machine.files / "ci" / "holder"
    eventually(lambda: at.exists() and at.read_text(), within=20, what="it is held")
    holder = int(at.read_text())
    os.killpg(connecting.pid, number)
    connecting.communicate(timeout=30)
    assert not is_alive(holder)
    assert (machine.builders, kept(machine)) == ({}, [])


def test_a_port_forward_comes_back_though_kubectl_was_gone(machine: Machine) -> None:
    machine.must("connect", "ci", "--detach")
    (node,) = machine.builders["ci"]
    port = int(node["Endpoint"].rpartition(":")[2])
    kubectl, away = machine.bin / "kubectl", machine.bin / "away"
    kubectl.rename(away)
    holder = holder_of(machine)
    (child,) = eventually(lambda: children_of(holder), within=10, what="it is forwarded")
    os.kill(child, signal.SIGKILL)
    log = machine.files / "ci" / "forward.log"
    eventually(lambda: "No such file" in log.read_text(), within=10, what="kubectl is missed")
    away.rename(kubectl)
    eventually(lambda: children_of(holder), within=15, what="it is forwarded again")
    assert is_open(port)


def test_no_code_of_the_current_folder_is_run(machine: Machine) -> None:
    """A checkout may have files that are called like modules."""
    for name in ("yaml", "asyncio", "buildpool"):
        (machine.home / f"{name}.py").write_text("raise SystemExit('run from here')\n")
    machine.must("connect", "ci", "--detach")
    cwd = Path(f"/proc/{holder_of(machine)}/cwd").readlink()
    assert str(cwd) == "/"


def test_a_context_of_the_same_name_is_not_the_same_cluster(machine: Machine) -> None:
    machine.must("connect", "ci", "--detach")
    file = machine.home / "kubeconfig"
    server = file.read_text().partition("server: ")[2].split()[0]
    a_kubeconfig(file, server.replace("127.0.0.1", "localhost"), namespace=NAMESPACE)
    assert f"by context work ({server}); give this one another --name" in machine.fails(
        "connect", "ci"
    )


@pytest.mark.parametrize("is_old", [False, True])
def test_a_path_in_the_servers_url_is_kept(tmp_path: Path, is_old: bool) -> None:
    """Such as Rancher's. Older kubectls drop it from paths that are asked for."""
    base = "/k8s/clusters/one"
    with a_machine(tmp_path, base) as machine:
        machine.add("ci")
        if is_old:
            old_kubectl(machine, base)
        assert f"{NAMESPACE}/ci" in machine.must("explain", "ci")


def test_what_is_printed_is_for_other_programs(machine: Machine) -> None:
    machine.add("ci", "anna", "bert")
    printed = machine.run("connect", "ci", "--client=anna", "--print=env")
    assert all(line.startswith("export ") for line in printed.stdout.splitlines())
    assert "BUILDX_BUILDER" not in printed.stdout
    assert printed.stderr.startswith("This has to run, in a terminal of its own: kubectl ")
    (folder,) = (machine.files / "ci").glob(f"{NAMESPACE}.ci.*")
    before = (folder / "key.pem").read_bytes()
    machine.must("connect", "ci", "--client=bert", "--print=buildctl")
    assert (folder / "key.pem").read_bytes() == before
    (command,) = machine.must("connect", "ci", "--client=bert", "--print=buildx").splitlines()
    assert shlex.split(command)[:2] == ["buildx", "create"]
    github = ("connect", "ci", "--client=anna", "--print=github")
    assert "is for another machine" in machine.fails(*github, "--via=port-forward")
    # Once it is connected, the port is that which leads there, and nothing else has to run.
    machine.must("connect", "ci", "--client=anna", "--detach")
    (node,) = machine.builders["ci"]
    printed = machine.run("connect", "ci", "--client=anna", "--print=env")
    assert f"export BUILDKIT_HOST={node['Endpoint']}" in printed.stdout
    assert "export BUILDX_BUILDER=ci" in printed.stdout
    assert printed.stderr == "The port-forwards are those of connection ci, which run.\n"


def test_no_key_stays_behind(machine: Machine) -> None:
    secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/arm-client-default"
    del machine.objects[secret]
    assert "is not there yet" in machine.fails("connect", "ci", "arm")
    assert kept(machine) == []
    # A folder that is a link, such as into another disk.
    elsewhere = machine.home / "elsewhere"
    elsewhere.mkdir()
    (machine.files / "ci").symlink_to(elsewhere)
    machine.must("connect", "ci", "--detach")
    assert list(elsewhere.rglob("key.pem"))
    machine.must("disconnect")
    assert not elsewhere.exists()
    assert kept(machine) == []


def test_disconnect_says_what_it_could_not_remove(machine: Machine) -> None:
    machine.must("connect", "ci", "--detach")
    (machine.bin / "buildx").rename(machine.bin / "away")
    said = machine.fails("disconnect")
    assert said.startswith("the files of connection ci are removed, its builder is not (neither")
    assert said.endswith("docker buildx rm ci")
    assert kept(machine) == []


def test_podman_is_not_taken_for_docker(machine: Machine) -> None:
    docker = machine.bin / "docker"
    docker.write_text("#!/bin/sh\necho buildah 1.40.0\n")
    docker.chmod(0o755)
    assert "Build: buildx build --builder ci ." in machine.must("connect", "ci", "--detach")


@pytest.mark.skipif(not may_unshare(), reason="this needs a mount of its own")
def test_a_pod_without_a_kubeconfig_uses_its_own_identity(machine: Machine) -> None:
    account = machine.home / "account"
    account.mkdir()
    (account / "token").write_text("secret")
    (account / "namespace").write_text(NAMESPACE)
    (account / "ca.crt").write_bytes((machine.home / "ca.pem").read_bytes())
    to = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        "export PATH=$PATH:/usr/bin:/bin; mount -t tmpfs none /var/run && "
        f'mkdir -p {to} && cp {account}/* {to} && exec "$@"'
    )
    server = (machine.home / "kubeconfig").read_text().partition("server: ")[2].split()[0]
    host, _, port = server.removeprefix("https://").partition(":")
    environment = {k: v for k, v in machine.environment.items() if k != "KUBECONFIG"}
    environment |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    pod = replace(
        machine,
        environment=environment,
        within=("/usr/bin/unshare", "-m", "/bin/sh", "-c", script, "sh"),
    )
    assert f"{NAMESPACE}/ci" in pod.must("explain", "ci")
    said = pod.must("connect", "ci")
    assert f"asleep, the first build wakes it, at tcp://ci.{NAMESPACE}.svc:1234" in said
    pod.must("disconnect")


def test_a_builder_that_got_the_name_later_is_left_as_it_is(machine: Machine) -> None:
    machine.must("connect", "ci", "--detach")
    machine.buildx("rm", "ci")
    own = ("create", "--name", "ci", "--driver", "remote", "--node", "own", "tcp://127.0.0.1:9")
    machine.buildx(*own)
    assert "was not made by connect" in machine.fails("connect", "ci", "--detach")
    assert machine.must("disconnect") == "files of ci are removed\n"
    assert [node["Name"] for node in machine.builders["ci"]] == ["own"]
