"""Clusters without a node: started, killed, mended, side by side, removed. Needs root."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devcluster.identity import is_alive
from tests.devcluster.clusters import Cluster, eventually, namespaces_of, processes, traces

pytestmark = [pytest.mark.devcluster, pytest.mark.timeout(600)]


def links() -> str:
    return subprocess.run(("ip", "-oneline", "link"), capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from a_control_plane("one", tmp_path_factory)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from a_control_plane("other", tmp_path_factory)


def a_control_plane(name: str, factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(name, factory.mktemp(name))
    cluster.run("up", "--control-plane")
    yield cluster
    cluster.run("down")


def test_up_twice_changes_nothing(one: Cluster) -> None:
    supervisor = one.supervisor
    assert "already up" in one.run("up", "--control-plane").stderr
    assert one.supervisor == supervisor


def test_the_other_kind_of_cluster_is_refused_while_one_is_up(one: Cluster) -> None:
    for other in ((), ("--control-plane", "--ip-family", "ipv6")):
        refused = one.run("up", *other, check=False)
        assert refused.returncode == 1
        assert "devcluster down" in refused.stderr


def test_a_node_of_ipv6_is_refused_with_the_remedy(tmp_path: Path) -> None:
    refused = Cluster("six", tmp_path).run("up", "--ip-family", "ipv6", check=False)
    assert refused.returncode == 1
    assert "--control-plane" in refused.stderr


def test_another_kubernetes_is_refused_while_one_is_up(one: Cluster) -> None:
    refused = one.run("up", "--control-plane", "--kubernetes", "1.31", check=False)
    assert refused.returncode == 1
    assert "with Kubernetes 1.37" in refused.stderr
    assert "devcluster down" in refused.stderr


def test_a_node_of_an_older_kubernetes_is_refused(tmp_path: Path) -> None:
    refused = Cluster("older", tmp_path).run("up", "--kubernetes", "1.31", check=False)
    assert refused.returncode == 1
    assert "--control-plane" in refused.stderr


def test_two_clusters_live_side_by_side(one: Cluster, other: Cluster) -> None:
    one.kubectl("create", "configmap", "only-here")
    assert "only-here" in one.kubectl("get", "configmaps")
    assert "only-here" not in other.kubectl("get", "configmaps")
    assert not set(one.namespaces().values()) & set(other.namespaces().values())


def test_a_command_runs_with_its_own_exit_code_and_in_its_own_folder(one: Cluster) -> None:
    done = one.run("exec", "--", "sh", "-c", "pwd; kubectl version; exit 7", check=False)
    assert done.returncode == 7
    assert done.stdout.splitlines()[0] == str(Path(__file__).parents[2])
    assert "Server Version: v1.37.2" in done.stdout


def test_requests_are_in_the_audit_log(one: Cluster) -> None:
    one.kubectl("get", "configmap", "kube-root-ca.crt")
    eventually(lambda: '"name":"kube-root-ca.crt"' in one.run("logs", "audit").stdout)


def test_a_component_that_dies_is_started_again(one: Cluster) -> None:
    one.run("kill", "kube-scheduler")
    eventually(lambda: '"restarts": 1' in one.run("status", "--json", check=False).stdout)
    eventually(lambda: one.run("status", check=False).returncode == 0)


def test_a_component_is_restarted_when_asked(one: Cluster) -> None:
    one.run("restart", "kube-apiserver")
    assert "default" in one.kubectl("get", "namespaces")


def test_up_mends_a_cluster_whose_supervisor_was_killed(one: Cluster) -> None:
    one.kubectl("create", "configmap", "kept")
    started = processes(one)
    os.kill(one.supervisor, signal.SIGKILL)
    assert "up again" in one.run("up", "--control-plane").stderr
    assert "kept" in one.kubectl("get", "configmaps")
    assert not any(map(is_alive, started))


def test_up_mends_a_cluster_whose_supervisor_is_stuck(one: Cluster) -> None:
    os.kill(one.supervisor, signal.SIGSTOP)
    assert "up again" in one.run("up", "--control-plane").stderr
    assert one.run("status").returncode == 0


def test_down_leaves_nothing(tmp_path: Path) -> None:
    cluster = Cluster("short", tmp_path)
    before = links()
    cluster.run("up", "--control-plane")
    own = len(processes(cluster))
    assert own > 4
    # What somebody has left running there, such as the operator of a test that was killed.
    cluster.run("exec", "--", "sh", "-c", "sleep infinity > /dev/null 2>&1 &")
    started = processes(cluster)
    assert len(started) == own + 1
    assert not set(cluster.namespaces().values()) & set(namespaces_of(os.getpid()).values())
    cluster.run("down")
    assert traces(cluster, started) == []
    assert links() == before
    assert "there is no cluster" in cluster.run("down").stderr


def test_two_ups_at_once_start_one_cluster(tmp_path: Path) -> None:
    cluster = Cluster("twice", tmp_path)
    try:
        with ThreadPoolExecutor() as pool:
            ups = [pool.submit(cluster.run, "up", "--control-plane") for _ in range(2)]
            said = sorted("already up" in up.result().stderr for up in ups)
        assert said == [False, True]
    finally:
        cluster.run("down")


def test_a_command_without_a_cluster_says_how_to_get_one(tmp_path: Path) -> None:
    refused = Cluster("absent", tmp_path).run("kubectl", "get", "pods", check=False)
    assert refused.returncode == 1
    assert "devcluster up" in refused.stderr
