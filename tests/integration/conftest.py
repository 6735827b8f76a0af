"""A real API server, the operator's rights as installed, and operators as processes.

No kubelet: nothing runs a pod, so builders are created and never ready. What needs that is in
tests/e2e.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import (
    OPERATOR_NAMESPACE,
    PROJECT,
    Api,
    OperatorProcess,
    account_kubeconfig,
    at_most,
    eventually,
    operator_process,
)

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``test_rbac`` judges what operators did in all the others: it comes last."""
    items.sort(key=lambda item: item.path.name == "test_rbac.py")


@pytest.fixture(scope="session")
def api() -> Api:
    """The cluster that KUBECONFIG names."""
    assert "KUBECONFIG" in os.environ, "there is no cluster: run `make integration`"
    return Api()


@pytest.fixture(scope="session")
def installed(api: Api) -> Api:
    """The CRD and the operator's rights, from the very manifests that users apply."""
    folder = PROJECT / "manifests" / "kustomize"
    for file in ("namespace.yaml", "crd.yaml", "rbac.yaml"):
        api.must("apply", "--server-side", "-f", str(folder / file))
    crd = "crd/buildkitpools.buildpool.dev"
    api.must("wait", "--for=condition=Established", crd, at_most(20))
    return api


@pytest.fixture(scope="session")
def kubeconfig(installed: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's own credentials."""
    return account_kubeconfig(installed, tmp_path_factory.mktemp("operator") / "kubeconfig")


@pytest.fixture
def operator(kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One operator, leading, for the length of a test."""
    number = next(_numbers)
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log", f"operator-{number}")
    with operator_process(process):
        eventually(
            lambda: "leads." in process.log.read_text(), within=30, what="the operator leads"
        )
        yield process
        assert "Traceback" not in process.log.read_text(), process.log.read_text()[-4000:]


@pytest.fixture
def namespace(installed: Api) -> Iterator[str]:
    """A namespace of the test's own, gone afterwards with all that was in it."""
    name = f"builds-{os.getpid()}-{next(_numbers)}"
    installed.must("create", "namespace", name)
    yield name
    for pool in installed.list("bkp", name):
        installed.must("delete", "bkp", pool["metadata"]["name"], "-n", name, "--wait=false")
    installed.must("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def devcluster() -> list[str]:
    """How to drive the devcluster the tests run in."""
    if "DEVCLUSTER_NAME" not in os.environ:
        pytest.skip("a cluster that is not ours is not tampered with")
    return [sys.executable, "-m", "devcluster"]


@pytest.fixture
def authority_of(installed: Api):  # type: ignore[no-untyped-def]
    """The Secret with a pool's authority, or None."""
    return lambda pool, namespace: installed.get(
        "secret", f"authority.{namespace}.{pool}", OPERATOR_NAMESPACE
    )
