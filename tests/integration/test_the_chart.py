"""What users install: the chart, the plain manifests made from it, and the samples."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import (
    OPERATOR_NAMESPACE,
    PROJECT,
    Api,
    OperatorProcess,
    a_pool,
    eventually,
    operator_process,
)

CHART = PROJECT / "manifests" / "helm" / "buildpool"
PLAIN = PROJECT / "manifests" / "kustomize"
SAMPLES = PROJECT / "manifests" / "samples"
Object = dict[str, Any]


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *args], capture_output=True, text=True, timeout=120, check=False)


def must_helm(*args: str) -> str:
    done = helm(*args)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def rendered(*settings: str) -> list[Object]:
    """The objects of the chart, with these values set."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    text = must_helm("template", "buildpool", str(CHART), "-n", OPERATOR_NAMESPACE, *flags)
    return [document for document in yaml.safe_load_all(text) if document]


VALUES = {
    "as they are": (),
    "some namespaces": ("watchNamespaces={builds,more}",),
    "no rights for users, no CRD": ("rbac.aggregateToUsers=false", "crds.install=false"),
    "an account of somebody else": ("serviceAccount.create=false", "serviceAccount.name=own"),
    "everything for the pod": (
        "replicas=2",
        "image.digest=sha256:" + "a" * 64,
        "imagePullSecrets[0].name=pull",
        "nodeSelector.disk=ssd",
        "tolerations[0].operator=Exists",
        "priorityClassName=system-cluster-critical",
        "podLabels.team=a",
        "podAnnotations.note=b",
        "extraEnv[0].name=TZ",
        "extraEnv[0].value=UTC",
    ),
}


@pytest.mark.parametrize("settings", VALUES.values(), ids=VALUES)
def test_the_chart_is_without_reproach(installed: Api, settings: tuple[str, ...]) -> None:
    flags = [flag for setting in settings for flag in ("--set", setting)]
    must_helm("lint", "--strict", str(CHART), *flags)
    # The namespaces that are watched have to exist, and here they do not.
    here = (None, OPERATOR_NAMESPACE)
    objects = [o for o in rendered(*settings) if o["metadata"].get("namespace") in here]
    # Strict: a field that the API server does not know is a mistake.
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    installed.must(*apply, "-f", "-", stdin=yaml.safe_dump_all(objects))


def test_a_service_monitor_is_there_for_those_who_want_it() -> None:
    labels = "metrics.serviceMonitor.labels.release=prometheus"
    objects = rendered("metrics.serviceMonitor.enabled=true", labels)
    monitor = next(o for o in objects if o["kind"] == "ServiceMonitor")
    service = next(o for o in objects if o["kind"] == "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [
        p["name"] for p in service["spec"]["ports"]
    ]


def test_the_crd_survives_the_chart() -> None:
    definition = next(o for o in rendered() if o["kind"] == "CustomResourceDefinition")
    assert definition["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    file = PROJECT / "crds" / "buildkitpools.buildpool.dev.yaml"
    assert definition == yaml.safe_load(file.read_text())


def test_the_plain_manifests_are_what_the_chart_renders(tmp_path: Path) -> None:
    script = PROJECT / "manifests" / "render.sh"
    subprocess.run([script, tmp_path], check=True, env={**os.environ, "HELM": "helm"})
    fresh = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert set(fresh) == {"crd.yaml", "deployment.yaml", "rbac.yaml"}
    assert {name: (PLAIN / name).read_text() for name in fresh} == fresh, "run `make generate`"


def test_the_plain_manifests_are_accepted_as_one(installed: Api) -> None:
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server")
    answer = installed.must(*apply, "--kustomize", str(PLAIN))
    assert "deployment.apps/buildpool" in answer
    assert "customresourcedefinition.apiextensions.k8s.io/buildkitpools" in answer


def test_with_watched_namespaces_hardly_anything_is_cluster_wide() -> None:
    objects = rendered("watchNamespaces={builds,more}")
    wide = {(o["kind"], o["metadata"]["name"]) for o in objects if "namespace" not in o["metadata"]}
    # A CRD cannot be otherwise; the roles of users hold nothing until somebody binds them.
    assert wide == {
        ("CustomResourceDefinition", "buildkitpools.buildpool.dev"),
        ("ClusterRole", "buildpool-view"),
        ("ClusterRole", "buildpool-edit"),
    }
    roles = [o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"]
    assert sorted(roles) == [OPERATOR_NAMESPACE, "builds", "more"]
    nothing = rendered(
        "watchNamespaces={builds}", "crds.install=false", "rbac.aggregateToUsers=false"
    )
    assert [o["kind"] for o in nothing if "namespace" not in o["metadata"]] == []


REFUSED = {
    "a value that does not exist": ("replica=2", "replica"),
    "a value that does not exist, deeper": ("image.name=x", "name"),
    "one namespace instead of a list": ("watchNamespaces=builds", "watchNamespaces"),
    "a namespace that cannot be one": ("watchNamespaces={Builds}", "watchNamespaces"),
    "a digest that is none": ("image.digest=sha256:1", "digest"),
    "no image": ("image.repository=", "repository"),
    "the port of the probes": ("metrics.port=8081", "port"),
    "a port for root only": ("metrics.port=80", "port"),
    "an unknown level": ("logLevel=verbose", "logLevel"),
    "a negative number of operators": ("replicas=-1", "replicas"),
    "a name that is too long": (f"fullnameOverride={'a' * 51}", "fullnameOverride"),
    "an interval without a unit": ("metrics.serviceMonitor.interval=30", "interval"),
}


@pytest.mark.parametrize(("setting", "named"), REFUSED.values(), ids=REFUSED)
def test_the_chart_refuses(setting: str, named: str) -> None:
    done = helm("template", "buildpool", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert "specifications of the schema" in done.stderr
    assert named in done.stderr


@pytest.fixture
def release(installed: Api, namespace: str) -> Iterator[str]:
    """A second installation, by Helm, in a namespace of its own, for one watched namespace."""
    home = f"{namespace}-operator"
    values = ["crds.install=false", f"watchNamespaces={{{namespace}}}"]
    flags = [flag for value in values for flag in ("--set", value)]
    must_helm("install", "second", str(CHART), "-n", home, "--create-namespace", *flags)
    yield home
    must_helm("upgrade", "second", str(CHART), "-n", home, "--reuse-values", "--set", "replicas=2")
    must_helm("uninstall", "second", "-n", home)
    assert installed.list("roles", namespace) == []
    installed.must("delete", "namespace", home, "--wait=false")


def test_roles_are_enough_for_watched_namespaces(
    installed: Api, kubeconfig: Path, namespace: str, release: str, tmp_path: Path
) -> None:
    own = yaml.safe_load(kubeconfig.read_text())
    own["users"][0]["user"]["token"] = installed.must("create", "token", "second", "-n", release)
    credentials = tmp_path / "kubeconfig"
    credentials.write_text(yaml.safe_dump(own))
    # The later of two flags wins.
    flags = ("--namespace", release, "--watch-namespace", namespace)
    process = OperatorProcess(credentials, tmp_path / "operator.log", "second", flags)
    with operator_process(process):
        installed.apply(a_pool("ci", namespace))
        eventually(
            lambda: (
                installed.condition("ci", namespace, "CertificatesReady").get("status") == "True"
            ),
            within=30,
            what="the pool is carried out",
        )
        assert installed.get("secret", f"authority.{namespace}.ci", release) is not None
        installed.must("delete", "bkp", "ci", "-n", namespace, "--timeout=30s")
        assert installed.get("secret", f"authority.{namespace}.ci", release) is None
    assert "forbidden" not in process.log.read_text()


@pytest.fixture
def first_sample(installed: Api) -> Iterator[None]:
    """As the others ask for: it brings their namespace."""
    installed.must("apply", "-f", str(SAMPLES / "pool.yaml"))
    yield
    installed.must("delete", "-f", str(SAMPLES / "pool.yaml"), "--wait=false")


def test_the_samples_are_accepted(installed: Api, first_sample: None) -> None:
    files = sorted(SAMPLES.glob("*.yaml"))
    assert len(files) >= 5
    for file in files:
        installed.must("apply", "--dry-run=server", "--validate=strict", "-f", str(file))
