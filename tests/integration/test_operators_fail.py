"""Operators are killed, lose the API server, and hand over: what is there stays and is tended."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from cluster import (
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_rest,
    eventually,
    operator_process,
)
from integration.test_a_pool_converges import children, created


def test_kill_9_in_mid_pass_leaves_no_duplicate_and_no_gap(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    """Killed at ten different moments of a pool's creation, the last one finds and finishes it."""
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log", "killed")
    process.start()
    eventually(lambda: "leads." in process.log.read_text(), within=30, what="it leads")
    for number in range(10):
        installed.apply(a_pool(f"ci-{number}", namespace, scaling={"min": 2}))
        time.sleep(0.02 * number)
        process.kill()
        process.start()  # the same identity: the Lease is its own
    try:
        for number in range(10):
            eventually(
                lambda n=number: len(children(installed, f"ci-{n}", namespace)) == 7,
                within=20,
                what=f"pool ci-{number} is whole",
            )
            secret = installed.get("secret", f"ci-{number}-client-default", namespace)
            authority = installed.get(
                "secret", f"authority.{namespace}.ci-{number}", OPERATOR_NAMESPACE
            )
            assert secret is not None
            assert authority is not None
            assert secret["data"]["ca.pem"] == authority["data"]["tls.crt"]
    finally:
        for number in range(10):
            installed.must("delete", "bkp", f"ci-{number}", "-n", namespace, "--wait=false")
        eventually(lambda: not installed.list("bkp", namespace), within=30, what="all are gone")
        process.stop()


def test_a_restarted_operator_changes_nothing(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    def versions() -> dict[str, str]:
        objects = children(installed, "ci", namespace)
        return {name: obj["metadata"]["resourceVersion"] for name, obj in objects.items()}

    with operator_process(OperatorProcess(kubeconfig, tmp_path / "first.log", "first")):
        created(installed, namespace, scaling={"min": 2})
        before = at_rest(versions)
    second = OperatorProcess(kubeconfig, tmp_path / "second.log", "second")
    with operator_process(second):
        eventually(lambda: "leads." in second.log.read_text(), within=30, what="it leads")
        time.sleep(5)
        assert versions() == before


def test_when_the_leader_is_killed_the_other_acts(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    one = OperatorProcess(kubeconfig, tmp_path / "one.log", "one")
    two = OperatorProcess(kubeconfig, tmp_path / "two.log", "two")
    with operator_process(one):
        eventually(lambda: "leads." in one.log.read_text(), within=30, what="the first leads")
        with operator_process(two):
            time.sleep(5)
            assert "leads." not in two.log.read_text(), "two lead at once"
            one.kill()
            installed.apply(a_pool("ci", namespace))
            eventually(
                lambda: children(installed, "ci", namespace), within=45, what="the second acts"
            )


def test_a_leader_that_stops_hands_over_at_once(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    one = OperatorProcess(kubeconfig, tmp_path / "one.log", "one")
    two = OperatorProcess(kubeconfig, tmp_path / "two.log", "two")
    with operator_process(one):
        eventually(lambda: "leads." in one.log.read_text(), within=30, what="the first leads")
        with operator_process(two):
            time.sleep(8)  # it has started, and asks for the Lease
            assert one.stop() == 0
            # Sooner than the Lease would have ended by itself.
            eventually(lambda: "leads." in two.log.read_text(), within=10, what="the second leads")


def test_the_api_server_restarts_under_the_operator(
    installed: Api, operator: OperatorProcess, namespace: str, devcluster: list[str]
) -> None:
    """Within the Lease's patience it goes on in the same process."""
    created(installed, namespace)
    operator_pid = operator.process.pid if operator.process else 0
    subprocess.run([*devcluster, "kill", "kube-apiserver"], check=True, timeout=60)
    eventually(
        lambda: installed.kubectl("get", "ns").returncode == 0, within=30, what="the API is back"
    )
    installed.apply(a_pool("later", namespace))
    eventually(
        lambda: len(children(installed, "later", namespace)) == 6, within=30, what="it acts again"
    )
    assert operator.process is not None
    assert operator.process.poll() is None
    assert operator.process.pid == operator_pid
    assert len(children(installed, "ci", namespace)) == 6
