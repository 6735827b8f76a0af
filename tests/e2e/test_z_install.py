"""The installation: two operators of which one acts, its metrics, its removal and its return.

The last file of the tier, because it takes the operator away; it leaves the installation as it was.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import OPERATOR_NAMESPACE, PROJECT, Api, at_rest, eventually
from e2e.clients import SHORT, client_of, context, run, running_build
from e2e.operators import leader, operators
from e2e.pools import deploy, pods_of, settle

CHART = PROJECT / "manifests" / "helm" / "buildpool"
METRICS = PROJECT / "docs" / "reference" / "metrics.md"
RELEASE = ("buildpool", "--namespace", OPERATOR_NAMESPACE)


def helm(*args: str) -> str:
    """Runs helm, which has to succeed; what it printed."""
    done = run("helm", *args, within=150)
    assert done.returncode == 0, f"helm {' '.join(args)}: {done.stderr}"
    return done.stdout


def upgrade(values: Path, *settings: str) -> None:
    """Installs or upgrades the chart and waits until it serves."""
    wait = ("--wait", "--timeout", "120s")
    helm("upgrade", "--install", *RELEASE, str(CHART), "-f", str(values), *wait, *settings)


@pytest.fixture(scope="module")
def values(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The values of the installation as it was found, and is left."""
    path = tmp_path_factory.mktemp("helm") / "values.yaml"
    path.write_text(helm("get", "values", *RELEASE, "--output", "yaml"))
    yield path
    upgrade(path)


@pytest.fixture
def two_operators(api: Api, values: Path) -> list[dict[str, Any]]:
    """The pods of two operators, both Ready."""
    upgrade(values, "--set", "replicas=2")
    found = operators(api)
    assert len(found) == 2
    return found


def metrics(pod: dict[str, Any]) -> str:
    """What an operator tells Prometheus."""
    with urllib.request.urlopen(
        f"http://{pod['status']['podIP']}:8080/metrics", timeout=10
    ) as page:
        text: str = page.read().decode()
        return text


def test_one_of_two_operators_leads_and_says_so(
    api: Api, two_operators: list[dict[str, Any]], namespace: str
) -> None:
    names = [pod["metadata"]["name"] for pod in two_operators]
    eventually(lambda: leader(api) in names, within=30, what="one of them leads")
    deploy(api, "ci", namespace)
    leading = leader(api)
    for pod in two_operators:
        expected = f"buildpool_leader {float(pod['metadata']['name'] == leading)}"
        assert expected in metrics(pod).splitlines()


def test_the_metrics_are_the_documented_ones(
    api: Api, two_operators: list[dict[str, Any]], namespace: str
) -> None:
    deploy(api, "ci", namespace)
    (pod,) = [pod for pod in two_operators if pod["metadata"]["name"] == leader(api)]
    ready = f'buildpool_builders_ready{{namespace="{namespace}",pool="ci"}} 1.0'
    page = eventually(
        lambda: (text := metrics(pod)) and ready in text and text,
        within=30,
        what="the builder that is ready is counted",
    )
    served = re.findall(r"^# TYPE (buildpool_\w+)", page, re.MULTILINE)
    operators, _, gateways = METRICS.read_text().partition("## The gateway")
    documented = re.findall(r"`(buildpool_\w+)`", operators + gateways.partition("## Both")[2])
    # For each counter the Prometheus library adds when it was made.
    assert sorted(name for name in served if not name.endswith("_created")) == sorted(documented)


def test_when_the_leader_goes_the_other_repairs(
    api: Api, two_operators: list[dict[str, Any]], namespace: str
) -> None:
    deploy(api, "ci", namespace)
    leading = leader(api)
    api.must("delete", "pod", leading, "-n", OPERATOR_NAMESPACE, "--wait=false")
    api.must("delete", "deployment", "ci-builder-0", "-n", namespace, "--cascade=orphan")
    eventually(
        lambda: api.get("deployment", "ci-builder-0", namespace),
        within=60,
        what="the deleted Deployment is back",
    )
    eventually(lambda: leader(api) not in ("", leading), within=60, what="the other leads")
    settle(api, "ci", namespace)


def test_without_the_operator_pools_serve_and_its_return_changes_nothing(
    api: Api, values: Path, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "ci", namespace)
    client = client_of(api, "ci", namespace, tmp_path)
    (pod,) = pods_of(api, "ci", namespace)
    # The Deployment's own controller has its say a moment after the pod is Ready.
    before = at_rest(lambda: versions(api, namespace))
    with running_build(client, tmp_path / "long") as build:
        helm("uninstall", *RELEASE, "--wait", "--timeout", "60s")
        eventually(lambda: not operators(api), within=60, what="the operator is gone")
        assert api.get("bkp", "ci", namespace) is not None, "the CRD is kept, and its pools"
        client.build(context(tmp_path / "short", SHORT))
        upgrade(values)
        eventually(
            lambda: leader(api) in [pod["metadata"]["name"] for pod in operators(api)],
            within=60,
            what="the operator leads again",
        )
        api.must("delete", "service", "ci", "-n", namespace)
        eventually(lambda: api.get("service", "ci", namespace), within=60, what="it acts again")
        build.end(pod["status"]["podIP"])
    assert versions(api, namespace) == before
    later = client_of(api, "ci", namespace, tmp_path / "later")
    eventually(later.can_connect, within=30, what="the new Service leads to builders", every=0.5)


def versions(api: Api, namespace: str) -> dict[str, str]:
    """Every object of the pool that nobody has to touch, in its version."""
    found = api.list("configmaps,deployments,secrets", namespace, "buildpool.dev/pool=ci")
    return {
        f"{obj['kind']}/{obj['metadata']['name']}": obj["metadata"]["resourceVersion"]
        for obj in found
    }
