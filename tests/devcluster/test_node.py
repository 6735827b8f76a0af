"""A whole node: pods, Services, names, volumes, images, builds. Needs root; takes a minute."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devcluster.clusters import Cluster, eventually

pytestmark = [pytest.mark.devcluster, pytest.mark.timeout(600)]

SETTINGS = tuple(
    Path("/proc/sys", name)
    for name in ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory")
)
# Three branches of fifteen seconds each: a build that takes less than 45 ran them at once.
DOCKERFILE = """\
FROM python:3.11-slim-bookworm AS base
FROM base AS a
RUN sleep 15; echo a > /a
FROM base AS b
RUN sleep 15; echo b > /b
FROM base AS c
RUN sleep 15; echo c > /c
FROM scratch
COPY --from=a /a /a
COPY --from=b /b /b
COPY --from=c /c /c
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = [setting.read_text() for setting in SETTINGS]
    cluster = Cluster("node", tmp_path_factory.mktemp("node"))
    cluster.run("up")
    cluster.kubectl("apply", f"--filename={Path(__file__).with_name('builders.yaml')}")
    available = ("--for=condition=Available", "--timeout=120s")
    cluster.kubectl("wait", *available, "deploy/rootless", "deploy/userns")
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "pod/shell")
    yield cluster
    cluster.run("down")
    assert [setting.read_text() for setting in SETTINGS] == settings


@pytest.mark.parametrize("service", ["rootless", "userns"])
def test_a_builder_builds_in_parallel_through_its_service(
    node: Cluster, service: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    base = node.run("image", "python").stdout.strip()
    digest = node.run(
        "exec", "--", "sh", "-c", f"grep -o 'sha256:[0-9a-f]*' {base}/index.json"
    ).stdout
    started = time.monotonic()
    node.run(
        *("exec", "--", "buildctl", f"--addr=tcp://{service}.default.svc:1234", "build"),
        *("--frontend=dockerfile.v0", f"--local=context={tmp_path}"),
        *(f"--local=dockerfile={tmp_path}", f"--oci-layout=base={base}"),
        f"--opt=context:python:3.11-slim-bookworm=oci-layout://base@{digest.split()[0]}",
        f"--output=type=local,dest={tmp_path / 'out'}",
    )
    assert time.monotonic() - started < 40  # sending the base included
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "c"]


def test_containers_stay_in_the_cgroups_of_whoever_started_the_cluster(node: Cluster) -> None:
    shown = node.kubectl("exec", "shell", "--", "cat", "/proc/self/cgroup")
    assert shown == Path(f"/proc/{node.supervisor}/cgroup").read_text()


def test_the_pod_with_its_own_users_is_not_root_outside(node: Cluster) -> None:
    mapping = node.kubectl("exec", "deploy/userns", "--", "cat", "/proc/self/uid_map").split()
    assert mapping[0] == "0"
    assert int(mapping[1]) > 0


def test_names_resolve_in_pods_and_for_commands(node: Cluster) -> None:
    name = "rootless.default.svc.cluster.local"
    address = node.kubectl("get", "service", "rootless", "--output=jsonpath={.spec.clusterIP}")
    assert address in node.kubectl("exec", "shell", "--", "nslookup", name)
    assert address in node.run("exec", "--", "getent", "hosts", name).stdout


def test_logs_and_port_forward_work(node: Cluster) -> None:
    eventually(lambda: node.kubectl("logs", "shell") == "started\n")
    script = (
        "kubectl port-forward service/rootless 1234 >/dev/null & "
        "until buildctl --addr tcp://127.0.0.1:1234 debug info 2>/dev/null; do sleep 0.2; done; "
        "kill %1 || kill $!"
    )
    assert "v0.34.2" in node.run("exec", "--", "timeout", "30", "sh", "-c", script).stdout


def test_a_claim_is_bound_and_its_folder_goes_with_it(node: Cluster) -> None:
    node.kubectl("create", f"--filename={Path(__file__).with_name('claim.yaml')}")
    phase = ("get", "persistentvolumeclaim/short-lived", "--output=jsonpath={.status.phase}")
    eventually(lambda: node.kubectl(*phase) == "Bound")
    volumes = node.state / "volumes"
    volume = node.kubectl(*phase[:2], "--output=jsonpath={.spec.volumeName}")
    assert (volumes / volume).is_dir()
    node.kubectl("delete", "persistentvolumeclaim/short-lived")
    eventually(lambda: not (volumes / volume).exists())
    eventually(lambda: volume not in node.kubectl("get", "persistentvolumes", "--output=name"))


def test_an_image_is_built_in_the_box_and_runs(node: Cluster, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "note").write_text("from another context")
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.11-slim-bookworm\n"
        "RUN --mount=from=wheels,target=/w python -m venv /venv && cp /w/note /note\n"
        'CMD ["/venv/bin/python", "-c", "print(open(\'/note\').read())"]\n'
    )
    node.run(
        *("build", "--tag=built:dev", f"--file={tmp_path}/Dockerfile", f"--context={tmp_path}"),
        *("--named=python:3.11-slim-bookworm=image://python", f"--named=wheels={wheels}"),
    )
    node.kubectl("run", "built", "--image=built:dev", "--restart=Never")
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    node.kubectl("wait", succeeded, "--timeout=120s", "pod/built")
    eventually(lambda: node.kubectl("logs", "built") == "from another context\n")


def test_an_image_of_ours_is_loaded_by_its_name(node: Cluster) -> None:
    node.run("load", "registry")
    node.kubectl("run", "registry", "--image=registry:3.1.2")
    node.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "pod/registry")


def start_of_the_builder(node: Cluster) -> str:
    """When the first process of its container began, as the kernel says."""
    return node.kubectl("exec", "deploy/rootless", "--", "cat", "/proc/1/stat").split()[21]


def test_pods_survive_the_death_of_containerd(node: Cluster) -> None:
    restarts = "--output=jsonpath={.items[0].status.containerStatuses[0].restartCount}"
    before = node.kubectl("get", "pods", "--selector=app=rootless", restarts)
    began = start_of_the_builder(node)
    node.run("kill", "containerd")
    eventually(lambda: node.run("status", check=False).returncode == 0)
    assert node.kubectl("exec", "deploy/rootless", "--", "buildctl", "debug", "workers")
    # The kubelet counts a restart only a moment later.
    assert start_of_the_builder(node) == began
    assert node.kubectl("get", "pods", "--selector=app=rootless", restarts) == before


def test_pods_come_back_after_the_death_of_the_whole_box(node: Cluster) -> None:
    os.kill(node.supervisor, signal.SIGKILL)
    assert "up again" in node.run("up").stderr
    kept = ("exec", "shell", "--", "cat", "/data/file")
    eventually(lambda: node.run("kubectl", *kept, check=False).stdout == "kept\n", seconds=60)
    # That they are available, they may say of before.
    for builder in ("deploy/rootless", "deploy/userns"):
        asked = ("exec", builder, "--", "buildctl", "debug", "workers")
        eventually(
            lambda asked=asked: node.run("kubectl", *asked, check=False).returncode == 0,
            seconds=60,
        )


def test_a_signal_reaches_the_command(node: Cluster) -> None:
    command = (
        sys.executable,
        "-m",
        "devcluster",
        "exec",
        "--",
        shutil.which("sleep") or "sleep",
        "60",
    )
    environment = {**os.environ, "XDG_STATE_HOME": str(node.home), "DEVCLUSTER_NAME": node.name}
    with subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2]) as process:
        eventually(lambda: Path(f"/proc/{process.pid}/comm").read_bytes().strip() == b"sleep")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
