"""What users install: the chart, the plain manifests made from it, and the samples."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster import (
    OPERATOR_NAMESPACE,
    PROJECT,
    Api,
    OperatorProcess,
    a_pool,
    at_most,
    eventually,
    operator_process,
)
from integration.charts import (
    CHART,
    SECOND,
    credentials_of,
    flags_of,
    helm,
    must_helm,
    refused_in,
    rendered,
    second_release,
    the,
)

PLAIN = PROJECT / "manifests" / "kustomize"
SAMPLES = PROJECT / "manifests" / "samples"

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
        "extraArgs={--health-port=8082}",
        "extraEnv[0].name=TZ",
        "extraEnv[0].value=UTC",
        "extraVolumes[0].name=more",
        "extraVolumes[0].emptyDir.sizeLimit=1Mi",
        "extraVolumeMounts[0].name=more",
        "extraVolumeMounts[0].mountPath=/more",
        "podSecurityContext.runAsUser=1000",
        "securityContext.runAsUser=1000",
        "topologySpreadConstraints[0].maxSkew=1",
        "topologySpreadConstraints[0].topologyKey=topology.kubernetes.io/zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
        "nameOverride=other",
    ),
    "no gateway": ("gateway.enabled=false",),
    "dashboards": ("metrics.dashboards.enabled=true", "metrics.dashboards.annotations.note=a"),
    "everything for the gateway": (
        "gateway.replicas=3",
        "gateway.image.digest=sha256:" + "a" * 64,
        "gateway.service.type=LoadBalancer",
        "gateway.service.loadBalancerClass=example.com/internal",
        "gateway.service.loadBalancerSourceRanges={10.0.0.0/8}",
        "gateway.service.annotations.note=a",
        "gateway.service.externalTrafficPolicy=Local",
        "gateway.service.nodePort=31234",
        "gateway.service.ipFamilyPolicy=SingleStack",
        "gateway.service.ipFamilies={IPv4}",
        "gateway.podSecurityContext.runAsUser=null",
        "gateway.securityContext.runAsGroup=1000",
        "gateway.extraEnv[0].name=TZ",
        "gateway.extraEnv[0].value=UTC",
        "gateway.nodeSelector.disk=ssd",
        "gateway.tolerations[0].operator=Exists",
        "gateway.topologySpreadConstraints[0].maxSkew=1",
        "gateway.topologySpreadConstraints[0].topologyKey=topology.kubernetes.io/zone",
        "gateway.topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
        "gateway.priorityClassName=system-cluster-critical",
        "gateway.podLabels.team=a",
        "gateway.podAnnotations.note=b",
    ),
}


@pytest.mark.parametrize("settings", VALUES.values(), ids=VALUES)
def test_the_chart_is_without_reproach(installed: Api, settings: tuple[str, ...]) -> None:
    must_helm("lint", "--strict", str(CHART), *flags_of(*settings))
    # The namespaces that are watched have to exist, and here they do not.
    here = (None, OPERATOR_NAMESPACE)
    objects = [o for o in rendered(*settings) if o["metadata"].get("namespace") in here]
    # Strict: a field that the API server does not know is a mistake.
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    installed.must(*apply, "-f", "-", stdin=yaml.safe_dump_all(objects))


@pytest.mark.parametrize("name", ["buildpool", "buildpool-gateway"])
def test_a_service_monitor_is_there_for_those_who_want_it(name: str) -> None:
    labels = "metrics.serviceMonitor.labels.release=prometheus"
    objects = rendered("metrics.serviceMonitor.enabled=true", labels)
    monitor = the("ServiceMonitor", name, objects)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    # The label namespace of a metric is the pool's, not that of the pod which serves it.
    assert endpoint["honorLabels"] is True
    port = endpoint["port"]
    scraped = [
        o["metadata"]["name"]
        for o in objects
        if o["kind"] == "Service"
        and selected <= o["metadata"]["labels"].items()
        and port in [each["name"] for each in o["spec"]["ports"]]
    ]
    assert scraped == [f"{name}-metrics"]


def test_the_crd_survives_the_chart() -> None:
    definition = the("CustomResourceDefinition", "buildkitpools.buildpool.dev", rendered())
    assert definition["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    file = PROJECT / "crds" / "buildkitpools.buildpool.dev.yaml"
    assert definition == yaml.safe_load(file.read_text())


def test_the_plain_manifests_are_what_the_chart_renders(tmp_path: Path) -> None:
    script = PROJECT / "manifests" / "render.sh"
    subprocess.run([script, tmp_path], check=True, env={**os.environ, "HELM": "helm"})
    fresh = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert set(fresh) == {"crd.yaml", "deployment.yaml", "rbac.yaml"}
    assert {name: (PLAIN / name).read_text() for name in fresh} == fresh, "run `make generate`"


LONGEST = "a" * 47
REFUSED_NAMES = {
    "a release that is too long": ("b" * 48, ()),
    "a release with a dot": ("ci.build", ()),
    "a release that begins with a digit": ("2nd", ()),
    "an addition that makes it too long": (LONGEST, ("nameOverride=b",)),
}


@pytest.mark.parametrize(("release", "settings"), REFUSED_NAMES.values(), ids=REFUSED_NAMES)
def test_a_release_whose_objects_could_not_be_named_is_refused(
    release: str, settings: tuple[str, ...]
) -> None:
    done = helm("template", release, str(CHART), *flags_of(*settings))
    assert done.returncode != 0
    assert "set fullnameOverride to at most 47" in done.stderr
    must_helm("template", release, str(CHART), *flags_of(*settings, "fullnameOverride=short"))


@pytest.mark.parametrize("settings", [(), (f"fullnameOverride={LONGEST}",)])
def test_the_longest_name_does_for_all_objects(settings: tuple[str, ...]) -> None:
    release = "r.2" if settings else LONGEST
    objects = rendered(*settings, "metrics.serviceMonitor.enabled=true", release=release)
    names = [o["metadata"]["name"] for o in objects if o["kind"] == "Service"]
    assert max(len(name) for name in names) == 63


def test_the_plain_manifests_are_accepted_as_one(installed: Api) -> None:
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server")
    answer = installed.must(*apply, "--kustomize", str(PLAIN))
    assert "deployment.apps/buildpool " in answer
    assert "deployment.apps/buildpool-gateway " in answer
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
    namespaces: dict[str, list[str]] = {}
    for role in (o["metadata"] for o in objects if o["kind"] == "Role"):
        namespaces.setdefault(role["name"], []).append(role["namespace"])
    assert namespaces == {
        "buildpool": [OPERATOR_NAMESPACE],
        "buildpool-pools": ["builds", "more"],
        "buildpool-gateway": [OPERATOR_NAMESPACE],
        "buildpool-gateway-pools": ["builds", "more"],
    }
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
    "a name that is too long": (f"fullnameOverride={'a' * 48}", "fullnameOverride"),
    "a name with a dot": ("fullnameOverride=a.b", "fullnameOverride"),
    "a part of a name that no label may have": ("nameOverride=A", "nameOverride"),
    "an argument that is none": ("extraArgs={run}", "extraArgs"),
    "a variable that is set already": ("extraEnv[0].name=POD_NAME", "extraEnv"),
    "a volume without a name": ("extraVolumes[0].emptyDir.medium=Memory", "extraVolumes"),
    "an interval without a unit": ("metrics.serviceMonitor.interval=30", "interval"),
    "a page of runbooks that is none": ("metrics.rules.runbooks=alerts", "runbooks"),
    "a value of the gateway that does not exist": ("gateway.replica=2", "replica"),
    "a gateway that waits for no build": ("gateway.drainSeconds=0", "drainSeconds"),
    "an Envoy without threads": ("gateway.concurrency=0", "concurrency"),
    "no image of Envoy": ("gateway.image.repository=", "repository"),
    "an Envoy of no version": ("gateway.image.tag=", "tag"),
    "a port of nodes without any": ("gateway.service.nodePort=31234", "nodePort"),
    "a way from outside that is closed": (
        "gateway.service.externalTrafficPolicy=Local",
        "externalTrafficPolicy",
    ),
    "a family of addresses that is none": ("gateway.service.ipFamilies={IPv5}", "ipFamilies"),
    "a Service that leads elsewhere": ("gateway.service.type=ExternalName", "type"),
}


@pytest.mark.parametrize(("setting", "named"), REFUSED.values(), ids=REFUSED)
def test_the_chart_refuses(setting: str, named: str) -> None:
    done = helm("template", "buildpool", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert "specifications of the schema" in done.stderr
    assert named in done.stderr


@pytest.fixture
def release(installed: Api, namespace: str) -> Iterator[str]:
    """The home of a second installation, for one watched namespace."""
    with second_release(installed, namespace) as home:
        yield home


def test_roles_are_enough_for_watched_namespaces(
    installed: Api, kubeconfig: Path, namespace: str, release: str, tmp_path: Path
) -> None:
    credentials = credentials_of(
        installed, SECOND, release, like=kubeconfig, file=tmp_path / "kubeconfig"
    )
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
        installed.must("delete", "bkp", "ci", "-n", namespace, at_most(30))
        assert installed.get("secret", f"authority.{namespace}.ci", release) is None
    assert not refused_in(process.log)


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
