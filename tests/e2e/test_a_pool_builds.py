"""A pool as its user finds it: how it shows itself, how fast it is, what a bad build does to it.

What it is for, scenario by scenario, is in test_the_article.py.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cluster import Api, at_rest
from e2e.clients import BASE, SHORT, Client, client_of, context
from e2e.pools import deploy, pods_of


@pytest.fixture(scope="module")
def pool(api: Api, shared_namespace: str) -> str:
    """The namespace of a pool named ci, of two builders, Ready."""
    deploy(api, "ci", shared_namespace, scaling={"min": 2})
    return shared_namespace


@pytest.fixture
def client(api: Api, pool: str, tmp_path: Path) -> Client:
    """The pool's client, through its Service."""
    return client_of(api, "ci", pool, tmp_path)


def test_the_pool_shows_itself_in_a_table(api: Api, pool: str) -> None:
    header, row = api.must("get", "bkp", "-n", pool).splitlines()
    assert header.split() == ["NAME", "READY", "BUSY", "WAITING", "STATUS", "ENDPOINT", "AGE"]
    assert row.split()[:-1] == ["ci", "2/2", "0/4", "0", "Ready", f"tcp://ci.{pool}.svc:1234"]


def test_a_builder_is_ready_within_three_seconds_of_its_start(api: Api, pool: str) -> None:
    pods = pods_of(api, "ci", pool)
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["status"]["containerStatuses"]
        started = datetime.fromisoformat(container["state"]["running"]["startedAt"])
        (ready,) = (c for c in pod["status"]["conditions"] if c["type"] == "Ready")
        took = datetime.fromisoformat(ready["lastTransitionTime"]) - started
        print(
            f"{pod['metadata']['name']}: ready after {took.total_seconds():g} s, in whole seconds"
        )
        assert took <= timedelta(seconds=10)


def test_builders_listen_in_both_families_of_addresses(api: Api, pool: str) -> None:
    inside = ("exec", "-n", pool, "deploy/ci-builder-0", "-c", "buildkitd", "--")
    if not api.kubectl(*inside, "cat", "/proc/net/if_inet6").stdout:
        pytest.skip("the pods of this cluster have no addresses of version 6, not even their own")
    for address in ("127.0.0.1", "::1"):
        # It says nothing, and the daemon hangs up.
        api.must(*inside, "nc", "-w", "5", address, "1234")


def test_a_failing_build_fails_and_hurts_nobody(
    api: Api, client: Client, pool: str, tmp_path: Path
) -> None:
    folder = context(tmp_path / "context", f"FROM {BASE}\nRUN echo broken; exit 3\n")
    with pytest.raises(AssertionError, match="exit code: 3"):
        client.build(folder)
    client.build(context(tmp_path / "next", SHORT))

    def restarts() -> list[int]:
        """The kubelet tells of a container that died a second or two later."""
        pods = pods_of(api, "ci", pool)
        return [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods]

    assert at_rest(restarts) == [0, 0]


def test_a_cache_that_cannot_be_reached_fails_no_build(
    client: Client, pool: str, tmp_path: Path
) -> None:
    folder = context(tmp_path / "context", SHORT)
    ref = f"type=registry,ref=nowhere.{pool}.svc:5000/caches/short:main"
    client.build(
        *(folder, "--import-cache", ref),
        *("--export-cache", f"{ref},mode=max,ignore-error=true"),
    )
