"""What values of the chart do to its objects. Nothing is installed: Helm renders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from integration.charts import CHART, Object, default_routing, helm, rendered, the

OPERATOR, GATEWAY = "buildpool", "buildpool-gateway"
BOTH = pytest.mark.parametrize(("name", "at"), [(OPERATOR, ""), (GATEWAY, "gateway.")])


def pod(name: str, *settings: str) -> Object:
    """What a Deployment makes pods of."""
    template: Object = the("Deployment", name, rendered(*settings))["spec"]["template"]
    return template


def container(name: str, *settings: str) -> Object:
    """The first container of a Deployment that is no sidecar."""
    first: Object = pod(name, *settings)["spec"]["containers"][0]
    return first


@BOTH
def test_of_several_pods_evictions_take_one_after_the_other(name: str, at: str) -> None:
    assert "PodDisruptionBudget" not in [o["kind"] for o in rendered()]
    objects = rendered(f"{at}replicas=2")
    budget = the("PodDisruptionBudget", name, objects)["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == the("Deployment", name, objects)["spec"]["selector"]


@BOTH
def test_pods_of_a_kind_prefer_nodes_of_their_own(name: str, at: str) -> None:
    deployment = the("Deployment", name, rendered())["spec"]
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == deployment["selector"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    # A cluster of one node runs them all the same.
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    own = f"{at}topologySpreadConstraints[0].topologyKey=topology.kubernetes.io/zone"
    (spread,) = pod(name, own)["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"


# Dots within a key are escaped.
DEFAULT_CONTAINER = r"podAnnotations.kubectl\.kubernetes\.io/default-container"
COMPONENT = r"app\.kubernetes\.io/component"


@BOTH
def test_a_user_may_set_an_annotation_that_the_chart_sets(name: str, at: str) -> None:
    annotations = pod(name, f"{at}{DEFAULT_CONTAINER}=own")["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "own"


@BOTH
def test_labels_by_which_pods_are_found_stay(name: str, at: str) -> None:
    objects = rendered(f"{at}podLabels.{COMPONENT}=own", f"{at}podLabels.team=a")
    deployment = the("Deployment", name, objects)["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels["team"] == "a"
    assert deployment["selector"]["matchLabels"].items() <= labels.items()


def test_networks_that_are_denied_get_there() -> None:
    networks = ("100.64.0.0/10", "fd00:ec2::254")
    args = container(OPERATOR, *(f"denyNetworks[{n}]={net}" for n, net in enumerate(networks)))
    assert [f"--deny-network={network}" for network in networks] == [
        arg for arg in args["args"] if arg.startswith("--deny-network")
    ]
    with pytest.raises(AssertionError, match="denyNetworks"):
        rendered("denyNetworks[0]=example.com")


def test_no_label_of_a_service_monitor_is_there_twice() -> None:
    own = rf"metrics.serviceMonitor.labels.{COMPONENT}=own"
    monitor = the("ServiceMonitor", OPERATOR, rendered("metrics.serviceMonitor.enabled=true", own))
    assert monitor["metadata"]["labels"]["app.kubernetes.io/component"] == "own"


@BOTH
def test_security_is_restricted_unless_the_user_says_otherwise(name: str, at: str) -> None:
    assert pod(name)["spec"]["securityContext"]["runAsNonRoot"] is True
    given = pod(name, f"{at}podSecurityContext.fsGroup=7", f"{at}podSecurityContext.runAsUser=null")
    context = given["spec"]["securityContext"]
    assert context["fsGroup"] == 7
    assert context["runAsNonRoot"] is True
    assert context.get("runAsUser") is None
    made = container(name, f"{at}securityContext.runAsUser=7")["securityContext"]
    assert made["runAsUser"] == 7
    assert made["readOnlyRootFilesystem"] is True


@BOTH
def test_more_variables_get_there(name: str, at: str) -> None:
    made = container(name, f"{at}extraEnv[0].name=HTTPS_PROXY", f"{at}extraEnv[0].value=p")
    assert {"name": "HTTPS_PROXY", "value": "p"} in made["env"]


def test_more_flags_come_last_and_so_count() -> None:
    assert container(OPERATOR, "extraArgs={--log-level=debug}")["args"][-1] == "--log-level=debug"


def test_the_domain_of_the_cluster_is_found_out_unless_the_user_says_it() -> None:
    assert "--cluster-domain" not in str(container(OPERATOR)["args"])
    assert "--cluster-domain=k8s.test" in container(OPERATOR, "clusterDomain=k8s.test")["args"]


@pytest.mark.parametrize("domain", ["K8s.test", ".", "k8s.test.", "a b", "-a", "a" * 64, "a." * 61])
def test_what_is_no_domain_is_refused(domain: str) -> None:
    done = helm("template", "buildpool", str(CHART), "--set-string", f"clusterDomain={domain}")
    assert done.returncode != 0
    assert "clusterDomain" in done.stderr


def test_more_volumes_get_there() -> None:
    settings = ("extraVolumes[0].name=ca", "extraVolumes[0].configMap.name=ca")
    settings += ("extraVolumeMounts[0].name=ca", "extraVolumeMounts[0].mountPath=/ca")
    made = pod(OPERATOR, *settings)["spec"]
    assert {"name": "ca", "configMap": {"name": "ca"}} in made["volumes"]
    assert {"name": "ca", "mountPath": "/ca"} in made["containers"][0]["volumeMounts"]


def test_the_gateways_service_is_as_the_user_wants_it() -> None:
    def service(*settings: str) -> Any:
        return the("Service", GATEWAY, rendered(*settings))["spec"]

    of_the_cluster = {"externalTrafficPolicy", "ipFamilyPolicy", "ipFamilies"}
    assert of_the_cluster & service().keys() == set()
    assert "nodePort" not in service()["ports"][0]
    given = service(
        "gateway.service.type=LoadBalancer",
        "gateway.service.externalTrafficPolicy=Local",
        "gateway.service.nodePort=31234",
        "gateway.service.ipFamilyPolicy=PreferDualStack",
        "gateway.service.ipFamilies={IPv6,IPv4}",
    )
    assert given["externalTrafficPolicy"] == "Local"
    assert given["ports"][0]["nodePort"] == 31234
    assert given["ipFamilyPolicy"] == "PreferDualStack"
    assert given["ipFamilies"] == ["IPv6", "IPv4"]


def test_every_object_says_which_chart_made_it_and_what_it_is_part_of() -> None:
    for each in rendered("metrics.serviceMonitor.enabled=true", "replicas=2"):
        if each["kind"] == "CustomResourceDefinition":
            continue
        labels = each["metadata"]["labels"]
        assert labels["helm.sh/chart"] == "buildpool-0.1.0", each["kind"]
        assert labels["app.kubernetes.io/part-of"] == "buildpool", each["kind"]


@BOTH
def test_another_version_of_the_chart_alone_replaces_no_pod(name: str, at: str) -> None:
    """The gateway's drain for hours."""
    assert "helm.sh/chart" not in pod(name)["metadata"]["labels"]


def test_another_name_does_not_hide_the_parts_from_each_other() -> None:
    """The operator and the NetworkPolicies of pools know the gateway by its labels."""
    for settings in (("nameOverride=x",), ("fullnameOverride=x",)):
        pods = [o["spec"]["template"] for o in rendered(*settings) if o["kind"] == "Deployment"]
        found = [each["metadata"]["labels"]["app.kubernetes.io/name"] for each in pods]
        assert found == ["buildpool", "buildpool"]


@pytest.fixture
def page() -> Iterator[str]:
    """A server of metrics: of an operator at /metrics, of something else elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            operator = b"# TYPE buildpool_leader gauge\nbuildpool_leader 0.0\n"
            self.wfile.write(operator if self.path == "/metrics" else b"another 1.0\n")

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_helm_test_asks_the_operator_through_its_service(page: str) -> None:
    objects = rendered("metrics.port=9090", "fullnameOverride=other")
    judge = the("Pod", "other-test", objects)
    assert judge["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (made,) = judge["spec"]["containers"]
    code, url = made["args"]
    service = the("Service", "other-metrics", objects)
    assert url == f"http://other-metrics.{service['metadata']['namespace']}.svc:9090/metrics"
    # Nothing selects it: it is no pod of the operator.
    selected = service["spec"]["selector"].items()
    assert not selected <= judge["metadata"]["labels"].items()

    def judged(address: str) -> int:
        command = [sys.executable, *made["command"][1:], code, address]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert judged(f"{page}/metrics") == 0
    assert judged(f"{page}/") == 1
    assert judged("http://127.0.0.1:1/metrics") == 1


@pytest.mark.parametrize(
    ("settings", "routing"),
    [
        ((), "Gateway"),
        (("gateway.enabled=false",), "Direct"),
        (("defaultRouting=Direct",), "Direct"),
        (("defaultRouting=Gateway", "gateway.enabled=false"), "Gateway"),
    ],
)
def test_pools_of_a_new_cluster_are_behind_the_gateway_where_there_is_one(
    settings: tuple[str, ...], routing: str
) -> None:
    assert default_routing(rendered(*settings)) == routing
