"""`kubectl buildpool connect` as its users run it, where nothing but the API server is reached.

Their kubeconfig may get pools and one Secret, and forward ports, and no more.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e import gateways, pools
from e2e.clients import Client, client_of, context
from e2e.outside import Outside, a_user_of
from integration.machines import children_of, is_alive

FOREGROUND = "The port-forward runs until Ctrl-C; --detach keeps it in the background.\n"


if "DEVCLUSTER_NAME" not in os.environ:
    pytest.skip("this needs the node of a devcluster", allow_module_level=True)


@pytest.fixture
def outside(api: Api, namespace: str, tmp_path: Path) -> Iterator[Outside]:
    """A user outside who may use both pools, and do nothing more."""
    with a_user_of(api, namespace, tmp_path, "amd", "arm") as user:
        yield user


@pytest.fixture
def two_pools(api: Api, namespace: str, tmp_path: Path) -> tuple[Client, Client]:
    """One pool behind the gateway, and one of builders that claim another platform, without it."""
    gateways.deploy(api, "amd", namespace)
    # There is no node of another architecture. The kubelet takes back a label that says so.
    claims = '[worker.oci]\nplatforms = ["linux/arm64"]\n'
    pools.deploy(api, "arm", namespace, builders={"config": claims})
    first, second = (client_of(api, name, namespace, tmp_path / "in") for name in ("amd", "arm"))
    return first, second


def test_two_pools_are_one_builder_from_outside(
    api: Api, namespace: str, two_pools: tuple[Client, Client], outside: Outside
) -> None:
    service = api.must(
        *("get", "service", "arm", "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")
    )
    reached = outside.run("timeout", "2", "bash", "-c", f": < /dev/tcp/{service}/1234")
    assert reached.returncode != 0, "the network outside is not outside"

    listed = outside.run("kubectl", "buildpool", "status")
    assert listed.stdout.splitlines()[0].split()[:2] == ["NAME", "READY"], listed.stderr
    assert f"{namespace}/amd: 1 builder" in outside.buildpool("explain", "amd")

    said = outside.buildpool("connect", "amd", "arm", "--detach", "--use")
    print(said)
    assert f"pool {namespace}/amd: running" in said
    assert f"pool {namespace}/arm: running" in said
    assert f"a port-forward to service/buildpool-gateway in {OPERATOR_NAMESPACE}" in said
    assert f"a port-forward to service/arm in {namespace}" in said

    for path in (outside.files, *outside.files.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path

    before = [client.builds() for client in two_pools]
    builds(outside, "first")
    assert [client.builds() for client in two_pools] == [each + 1 for each in before]

    holder = int((outside.files / "amd" / "holder").read_text())
    killed = children_of(holder)
    assert len(killed) >= 2
    # The same command again changes nothing for what runs.
    outside.buildpool("connect", "amd", "arm", "--detach")
    assert int((outside.files / "amd" / "holder").read_text()) == holder
    killed = children_of(holder)
    for child in killed:
        os.kill(child, signal.SIGKILL)
    eventually(
        lambda: len(set(children_of(holder)) - set(killed)) >= 2,
        within=10,
        what="both are forwarded again",
    )
    builds(outside, "second")

    outside.buildpool("disconnect")
    eventually(lambda: not is_alive(holder), within=10, what="nothing is forwarded any more")
    assert [path.name for path in outside.files.iterdir()] == [".amd.lock"]
    assert "amd" not in outside.run("buildx", "ls").stdout

    with outside.foreground("connect", "amd") as connecting:
        assert connecting.stdout is not None
        assert FOREGROUND in connecting.stdout, "it has ended"
        holder = int((outside.files / "amd" / "holder").read_text())
        os.killpg(connecting.pid, signal.SIGINT)  # as a terminal does
        assert connecting.wait(timeout=30) == 0
    assert not is_alive(holder)
    # The builder stays, so that the next connect finds it current where it was.
    assert "amd" in outside.run("buildx", "ls").stdout


def builds(outside: Outside, content: str) -> None:
    """Builds for both platforms by the builder that is current there."""
    source = context(outside.home / "context", "FROM scratch\nCOPY file /file\n")
    (source / "file").write_text(content)
    out = outside.home / "out"
    # A file with an OCI image cannot be made by two nodes; only a registry joins what they push.
    platforms = ("--platform=linux/amd64,linux/arm64", f"--output=type=local,dest={out}")
    done = outside.run("buildx", "build", "--progress=plain", *platforms, str(source))
    assert done.returncode == 0, done.stderr
    for platform in ("linux_amd64", "linux_arm64"):
        assert (out / platform / "file").read_text() == content
