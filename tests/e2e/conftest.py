"""A whole cluster with the operator installed as users install it; see tests/in_cluster.py.

Every namespace of a test is its own, and has to be gone at the end: a pool that cannot be removed
fails the run.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e.stories import Story

_numbers = itertools.count(1)
LABEL = "buildpool.dev/end-to-end-test"


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The cluster that KUBECONFIG names, with the operator in it."""
    assert "KUBECONFIG" in os.environ, "there is no cluster: run `make e2e`"
    api = Api()
    api.must("wait", "-n", OPERATOR_NAMESPACE, "deploy/buildpool", "--for=condition=Available")
    yield api
    eventually(
        lambda: not api.must("get", "namespaces", "-l", LABEL, "-o", "name"),
        within=180,
        what="all namespaces of the tests are gone",
        every=1,
    )


@contextmanager
def _a_namespace(api: Api, security: str) -> Iterator[str]:
    name = f"builds-{next(_numbers)}"
    labels = {LABEL: "true", "pod-security.kubernetes.io/enforce": security}
    metadata = {"name": name, "labels": labels}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield name
    threading.Thread(target=_remove, args=(api, name)).start()


def _remove(api: Api, namespace: str) -> None:
    """First the pools: a namespace that meets pods with an hour's grace looks again much later."""
    api.must("delete", "bkp", "-n", namespace, "--all", "--wait=false")
    ours = ("-l", "!buildpool.dev/pool")  # such as registries of the tests
    api.must("delete", "deployments", "-n", namespace, *ours, "--wait=false")
    with suppress(AssertionError):
        eventually(lambda: not api.list("pods", namespace), within=120, what="no pod", every=1)
    api.must("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own that allows what builders need."""
    with _a_namespace(api, "privileged") as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(api: Api) -> Iterator[str]:
    """A namespace for all tests of a story."""
    with _a_namespace(api, "privileged") as name:
        yield name


@pytest.fixture(scope="module")
def quota_namespace(api: Api) -> Iterator[str]:
    """Another one for all tests of a module, to which it gives a quota."""
    with _a_namespace(api, "privileged") as name:
        yield name


@pytest.fixture
def restricted_namespace(api: Api) -> Iterator[str]:
    """A namespace that refuses what builders need."""
    with _a_namespace(api, "restricted") as name:
        yield name


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest,
    api: Api,
    shared_namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[Story, Future[None]]]:
    """All stories of a module, its ``STORIES``, going on."""
    stories: tuple[Story, ...] = request.module.STORIES
    folder = tmp_path_factory.mktemp("stories")
    with ThreadPoolExecutor(len(stories)) as threads:
        yield {
            story: threads.submit(story, api, shared_namespace, folder / story.__name__)
            for story in stories
        }
