"""A cluster of the user's is left alone unless it was named for this, and has no buildpool yet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from cluster import PROJECT, Api, a_pool
from demo.lab import CLUSTER, Lab, LabError


@dataclass
class Foreign:
    """An API server that belongs to somebody else: it writes down what it is asked for."""

    environment: dict[str, str]
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Foreign]:
    """The environment of a user who has a cluster at hand, in every way there is."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _write_down(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _write_down  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        kubeconfig = tmp_path / "home" / ".kube" / "config"
        kubeconfig.parent.mkdir(parents=True)
        context = {"name": "production", "context": {"cluster": "production", "user": "me"}}
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "production",
                    "contexts": [context],
                    "clusters": [{"name": "production", "cluster": {"server": url}}],
                    "users": [{"name": "me", "user": {}}],
                }
            )
        )
        kept = {n: v for n, v in os.environ.items() if n not in (CLUSTER, "DEVCLUSTER_NAME")}
        environment = {
            **kept,
            "HOME": str(tmp_path / "home"),
            "KUBECONFIG": str(kubeconfig),
            "HELM_KUBEAPISERVER": url,
            "BUILDPOOL_IMAGE": "registry.example.com/buildpool:0.1.0",
            # The devcluster refuses to lie there: none is started for this test.
            "XDG_STATE_HOME": "/var/lib/nowhere",
        }
        yield Foreign(environment, asked)
        server.shutdown()
        thread.join()


def run(
    environment: dict[str, str], *command: str, program: tuple[str, ...] = (sys.executable, "-m")
) -> subprocess.CompletedProcess[str]:
    """Runs an entry point as a user does."""
    return subprocess.run(
        [*program, *command],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_foreign_server_is_one_that_programs_find(foreign: Foreign) -> None:
    run(foreign.environment, "get", "nodes", program=("kubectl",))
    assert any("nodes" in each or "api" in each for each in foreign.asked)
    foreign.asked.clear()
    run(foreign.environment, "list", program=("helm",))
    assert foreign.asked


ENTRIES = {
    "make demo": ("demo",),
    "make e2e": ("tests.in_cluster", "tests/e2e"),
    "make integration": ("tests.in_cluster", "--control-plane", "tests/integration"),
    "the operator of a devcluster": ("demo.install", "nowhere"),
    "the devcluster's kubectl": ("devcluster", "kubectl", "get", "nodes"),
    "the devcluster's helm": ("devcluster", "exec", "--", "helm", "list"),
    "pytest itself": ("pytest", "-q", "-p", "no:cacheprovider", "tests/integration/test_rbac.py"),
    "pytest itself, a whole node": ("pytest", "-q", "-p", "no:cacheprovider", "tests/e2e"),
    "pytest itself, chaos": ("pytest", "-q", "-p", "no:cacheprovider", "tests/chaos"),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_cluster_that_was_not_named_is_asked_for_nothing(
    foreign: Foreign, entry: tuple[str, ...]
) -> None:
    done = run(foreign.environment, *entry)
    assert done.returncode != 0, done.stdout
    assert foreign.asked == []


@pytest.mark.parametrize("program", [("kubectl", "get", "nodes"), ("helm", "list")])
def test_programs_of_a_devcluster_ask_no_other(
    foreign: Foreign, devcluster: list[str], program: tuple[str, ...]
) -> None:
    ours = ("DEVCLUSTER_NAME", "HOME", "XDG_STATE_HOME")
    environment = {name: v for name, v in foreign.environment.items() if name not in ours}
    environment |= {name: os.environ[name] for name in ours if name in os.environ}
    done = run(environment, "exec", "--", *program, program=(*devcluster,))
    assert done.returncode == 0, done.stderr
    assert foreign.asked == []


def test_another_word_than_the_two_is_refused(foreign: Foreign) -> None:
    for entry in (("demo",), ("tests.in_cluster", "tests/e2e")):
        done = run({**foreign.environment, CLUSTER: "production"}, *entry)
        assert done.returncode == 1
        assert f"{CLUSTER} is 'production'" in done.stdout + done.stderr
    assert foreign.asked == []


@pytest.fixture
def taken(installed: Api, namespace: str) -> str:
    """A namespace with a pool in it: this cluster is somebody's."""
    installed.apply(a_pool("ci", namespace))
    return namespace


@pytest.mark.parametrize(
    "entry", [("demo",), ("tests.in_cluster", "--control-plane", "tests/unit/test_generated.py")]
)
def test_a_cluster_with_pools_is_named_and_refused(
    installed: Api, taken: str, entry: tuple[str, ...]
) -> None:
    named = {**os.environ, CLUSTER: "kubeconfig", "BUILDPOOL_IMAGE": "buildpool:0.1.0"}
    done = run(named, *entry)
    assert done.returncode == 1
    context = installed.must("config", "current-context").strip()
    assert done.stdout.startswith(f"context {context}, server https://"), done.stdout
    said = " ".join((done.stdout + done.stderr).split())
    assert "has buildpool already" in said
    assert "nothing was changed" in said
    assert installed.get("namespace", "buildpool-demo", "default") is None
    assert installed.get("namespace", "buildpool-demo-builds", "default") is None


def test_what_the_demo_made_is_not_in_its_way(installed: Api, taken: str) -> None:
    with pytest.raises(LabError, match="has buildpool already"):
        Lab(None).meet()
    everything = installed.must("get", "namespaces", "-o", "name").split()
    Lab(None).meet(own=[name.removeprefix("namespace/") for name in everything])
