"""``helm upgrade --wait``, which judges by kstatus, turns red and green as a pool's state is.

No pod runs here: green is for pools without builders. tests/e2e has the others.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster import Api, OperatorProcess, a_pool, at_most, eventually
from integration.charts import helm

INVALID = {"builders": {"config": "no toml"}}
"""The API server takes it: only the operator reads the text."""
TAKEN = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 1234}]}}


def chart(folder: Path, namespace: str, **spec: Any) -> str:
    """A chart of one pool."""
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: pool\nversion: 1.0.0\n")
    pool = yaml.safe_dump(a_pool("ci", namespace, **spec))
    (folder / "templates" / "pool.yaml").write_text(pool)
    return str(folder)


def upgrade(folder: str, namespace: str, seconds: int) -> subprocess.CompletedProcess[str]:
    wait = ("--wait=watcher", f"--timeout={seconds}s")
    return helm("upgrade", "--install", "pool", folder, "-n", namespace, *wait)


def bind(api: Api, pod: str, namespace: str) -> None:
    """Does what the scheduler would do if there were a node."""
    node = {"apiVersion": "v1", "kind": "Node", "name": "somewhere"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": node}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/binding"
    api.must("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))


def test_a_pool_that_nobody_has_looked_at_is_not_current(
    installed: Api, namespace: str, tmp_path: Path
) -> None:
    done = upgrade(chart(tmp_path / "pool", namespace, replicas=0), namespace, 3)
    assert done.returncode != 0
    assert "InProgress" in done.stderr
    pool = installed.get("bkp", "ci", namespace)
    assert pool is not None
    assert pool["status"]["observedGeneration"] == -1


def test_a_pool_without_builders_is_current(
    operator: OperatorProcess, installed: Api, namespace: str, tmp_path: Path
) -> None:
    done = upgrade(chart(tmp_path / "pool", namespace, replicas=0), namespace, 60)
    assert done.returncode == 0, done.stderr
    for kind in ("Reconciling", "Stalled"):
        installed.must(
            "wait", "bkp/ci", "-n", namespace, f"--for=condition={kind}=False", at_most(10)
        )


def test_a_refused_spec_is_red_at_once_and_green_when_it_is_mended(
    operator: OperatorProcess, installed: Api, namespace: str, tmp_path: Path
) -> None:
    # A pool that is carried out, then one that is not: the old status must not count.
    for spec, code in (({}, 0), (INVALID, 1), ({}, 0)):
        done = upgrade(chart(tmp_path / "pool", namespace, replicas=0, **spec), namespace, 60)
        assert done.returncode == code, done.stderr
        if code:
            assert "status: Failed" in done.stderr
            assert "spec.builders.config" in done.stderr


def test_a_name_conflict_is_red_at_once(
    operator: OperatorProcess, installed: Api, namespace: str, tmp_path: Path
) -> None:
    installed.apply({**TAKEN, "metadata": {"name": "ci", "namespace": namespace}})
    done = upgrade(chart(tmp_path / "pool", namespace), namespace, 60)
    assert done.returncode != 0
    assert "status: Failed" in done.stderr
    assert "rename the pool" in done.stderr


def test_an_image_that_cannot_be_pulled_is_red_and_the_builders_that_start_are_waited_for(
    operator: OperatorProcess, installed: Api, namespace: str, tmp_path: Path
) -> None:
    folder = chart(tmp_path / "pool", namespace)
    done = upgrade(folder, namespace, 5)
    assert done.returncode != 0
    assert "InProgress" in done.stderr
    (pod,) = eventually(
        lambda: installed.list("pods", namespace), within=30, what="the builder has a pod"
    )
    name = pod["metadata"]["name"]
    # No node takes it: a cluster autoscaler might add one, so that is no failure yet.
    bind(installed, name, namespace)
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    state = {"name": "buildkitd", "image": "x", "imageID": "", "ready": False}
    state |= {"restartCount": 0, "state": {"waiting": waiting}}
    status = json.dumps({"status": {"phase": "Pending", "containerStatuses": [state]}})
    installed.must(
        "patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", status
    )
    done = upgrade(folder, namespace, 60)
    assert done.returncode != 0
    assert "status: Failed" in done.stderr


def test_what_the_pool_needs_of_the_installation_is_red_at_once(
    operator: OperatorProcess, namespace: str, tmp_path: Path
) -> None:
    spec = {"routing": "Gateway", "scaling": {"min": 0, "max": 2}}
    done = upgrade(chart(tmp_path / "pool", namespace, **spec), namespace, 60)
    assert done.returncode != 0
    assert "status: Failed" in done.stderr
    assert "gateway.enabled" in done.stderr
