"""Operators are killed, lose the API server, and hand over: what is there stays and is tended."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from cluster import (
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_rest,
    eventually,
    looks_again,
    operator_process,
)
from devcluster.layout import layout
from integration.test_a_pool_converges import children, created

MOMENTS = (0, 1, 3, 5, 7)
"""After how many writes of a new pool the operator is killed: it needs some ten."""


class Writes:
    """What the operator writes of a pool from now on, as the API server's own log counts it."""

    def __init__(self, pool: str, namespace: str) -> None:
        self._pool, self._namespace = pool, namespace
        self._log = layout(os.environ["DEVCLUSTER_NAME"], os.environ, Path.home()).audit_log
        self._offset = self._log.stat().st_size
        self._count = 0

    def count(self) -> int:
        """How many there were."""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            lines, _, _ = log.read().rpartition(b"\n")
        self._offset += len(lines) + 1 if lines else 0
        for line in lines.splitlines():
            entry = json.loads(line)
            target, user = entry.get("objectRef", {}), entry["user"]["username"]
            self._count += (
                entry["verb"] == "patch"
                and user.endswith(f":{OPERATOR_ACCOUNT}")
                and target.get("namespace") == self._namespace
                and target.get("name", "").startswith(self._pool)
            )
        return self._count


def test_kill_9_in_mid_pass_leaves_no_duplicate_and_no_gap(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, devcluster: list[str]
) -> None:
    """Killed in the midst of a pool's creation, again and again, the last one finishes it all."""
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log", "killed")
    process.start()
    for number, written in enumerate(MOMENTS):
        eventually(
            lambda n=number: process.log.read_text().count("leads.") > n, within=30, what="it leads"
        )
        writes = Writes(f"ci-{number}", namespace)
        installed.apply(a_pool(f"ci-{number}", namespace, scaling={"min": 2}))
        eventually(
            lambda w=writes, n=written: w.count() >= n,
            within=30,
            what=f"it has written {written} objects",
            every=0.001,
        )
        process.kill()
        process.start()  # the same identity: the Lease is its own
    try:
        for number in range(len(MOMENTS)):
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
        for number in range(len(MOMENTS)):
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
        eventually(lambda: second.passes("ci", namespace), within=30, what="it looks at the pool")
        looks_again(installed, second, "ci", namespace)
        assert versions() == before


def test_when_the_leader_is_killed_the_other_acts(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    one = OperatorProcess(kubeconfig, tmp_path / "one.log", "one")
    two = OperatorProcess(kubeconfig, tmp_path / "two.log", "two")
    with operator_process(one):
        eventually(lambda: "leads." in one.log.read_text(), within=30, what="the first leads")
        with operator_process(two):
            eventually(lambda: two.claims() >= 2, within=30, what="the second asks for the Lease")
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
            eventually(lambda: two.claims(), within=30, what="the second asks for the Lease")
            assert one.stop() == 0
            lease = installed.get("lease", "buildpool-operator", OPERATOR_NAMESPACE)
            # Not until the Lease would have ended by itself: it gave it back.
            assert lease is not None
            assert lease["spec"].get("holderIdentity") != "one"
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
