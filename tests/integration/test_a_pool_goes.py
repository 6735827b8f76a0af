"""Deletion leaves nothing, with and without an operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster import Api, OperatorProcess, a_pool, eventually, operator_process
from integration.test_a_pool_converges import KINDS, created


def leftovers(api: Api, namespace: str) -> list[str]:
    """What is left of pool ci in its namespace."""
    found = api.list(f"{KINDS},bkp,pods,persistentvolumeclaims", namespace)
    return [
        f"{obj['kind']}/{obj['metadata']['name']}"
        for obj in found
        if obj["metadata"]["name"] != "kube-root-ca.crt"
    ]


def test_a_deleted_pool_leaves_nothing(
    installed: Api, operator: OperatorProcess, namespace: str, authority_of: Any
) -> None:
    claim = {"volumeClaim": {"size": "1Gi"}}
    created(installed, namespace, scaling={"min": 2}, builders={"storage": claim})
    installed.must("delete", "bkp", "ci", "-n", namespace, "--timeout=20s")
    assert authority_of("ci", namespace) is None
    eventually(lambda: not leftovers(installed, namespace), within=5, what="nothing is left")


def test_a_pool_with_a_broken_spec_can_be_deleted(
    installed: Api, operator: OperatorProcess, namespace: str, authority_of: Any
) -> None:
    created(installed, namespace, access={"clients": [{"name": "a"}, {"name": "b"}]})
    installed.apply(a_pool("ci", namespace, builders={"config": "no toml"}))
    installed.must("delete", "bkp", "ci", "-n", namespace, "--timeout=20s")
    assert authority_of("ci", namespace) is None
    eventually(lambda: not leftovers(installed, namespace), within=5, what="nothing is left")


def test_without_an_operator_the_finalizer_can_be_taken_off_by_hand(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    """docs/how-to/uninstall.md says so; the next operator sweeps what lies in its own namespace."""
    first = OperatorProcess(kubeconfig, tmp_path / "first.log", "first")
    with operator_process(first):
        created(installed, namespace)
    installed.must("delete", "bkp", "ci", "-n", namespace, "--wait=false")
    patch = '{"metadata":{"finalizers":null}}'
    installed.must("patch", "bkp", "ci", "-n", namespace, "--type=merge", "-p", patch)
    eventually(
        lambda: not leftovers(installed, namespace),
        within=20,
        what="the garbage collector has removed what the pool owned",
    )
    assert authority_of("ci", namespace) is not None
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "second.log", "second")):
        eventually(
            lambda: authority_of("ci", namespace) is None, within=30, what="the authority is swept"
        )


def test_a_pool_deleted_while_no_operator_ran_goes_when_one_comes(
    installed: Api, kubeconfig: Path, namespace: str, tmp_path: Path, authority_of: Any
) -> None:
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "first.log", "first")):
        created(installed, namespace)
    installed.must("delete", "bkp", "ci", "-n", namespace, "--wait=false")
    with operator_process(OperatorProcess(kubeconfig, tmp_path / "second.log", "second")):
        eventually(
            lambda: not leftovers(installed, namespace) and authority_of("ci", namespace) is None,
            within=40,
            what="everything is gone",
        )
