"""The gateway's pods as the chart makes them: who starts, sees and outlives what."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from buildpool.cli.app import app
from buildpool.cli.gateway import drain_gateway
from buildpool.core import naming
from cluster import OPERATOR_NAMESPACE, PROJECT, Api, eventually
from integration.charts import Object, rendered, the

GATEWAY = "buildpool-gateway"
PROGRAM = (sys.executable, "-m", "buildpool.cli")
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
ENVIRONMENT = {"ENVOY_MEMORY": str(512 << 20), "POD_NAMESPACE": OPERATOR_NAMESPACE}
"""What the kubelet would know of the pods."""


def pod_of(deployment: str, *settings: str) -> Object:
    """What a Deployment of the chart makes pods of."""
    template: Object = the("Deployment", deployment, rendered(*settings))["spec"]["template"]
    return template


def containers(template: Object) -> dict[str, Object]:
    """All containers of a pod, by name, in the order of their start."""
    spec = template["spec"]
    return {each["name"]: each for each in (*spec.get("initContainers", ()), *spec["containers"])}


def arguments(container: Object) -> list[str]:
    """What the container's program is told, with the variables expanded as the kubelet does."""

    def expanded(arg: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda variable: ENVIRONMENT[variable[1]], arg)

    return [expanded(arg) for arg in container["args"]]


def test_without_a_gateway_nothing_is_left_of_it() -> None:
    text = yaml.safe_dump([o for o in rendered("gateway.enabled=false") if is_installation(o)])
    assert "gateway" not in text


def is_installation(obj: Object) -> bool:
    """Not the definition of pools, which speaks of gateways with or without one."""
    return bool(obj["kind"] != "CustomResourceDefinition")


@pytest.mark.parametrize("settings", [(), ("fullnameOverride=other",), ("nameOverride=other",)])
def test_the_operator_leads_pools_to_the_service_behind_which_envoy_listens(
    settings: tuple[str, ...],
) -> None:
    objects = rendered(*settings)
    names = {(): "buildpool", ("fullnameOverride=other",): "other"}
    name = names.get(settings, "buildpool-other")
    operator = the("Deployment", name, objects)["spec"]["template"]["spec"]["containers"][0]
    variables = {each["name"]: each.get("value") for each in operator["env"]}
    assert variables["BUILDPOOL_GATEWAY_SERVICE"] == f"{name}-gateway"
    service = the("Service", f"{name}-gateway", objects)["spec"]
    template = the("Deployment", f"{name}-gateway", objects)["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    (port,) = service["ports"]
    listening = {p["name"]: p["containerPort"] for p in containers(template)["envoy"]["ports"]}
    assert port["port"] == listening[port["targetPort"]] == naming.PORT


def test_the_operator_finds_the_pods_of_the_gateway_by_their_label() -> None:
    labels = pod_of(GATEWAY)["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == naming.COMPONENT_GATEWAY


def test_envoy_which_faces_the_network_sees_no_token(namespace: str, installed: Api) -> None:
    objects = rendered()
    assert the("ServiceAccount", GATEWAY, objects)["automountServiceAccountToken"] is False
    assert pod_of(GATEWAY)["spec"]["automountServiceAccountToken"] is False
    # As the API server has it, which adds a token where it is not told otherwise.
    pod = accepted(installed, pod_of(GATEWAY), namespace)
    with_token = [
        name
        for name, container in containers(pod).items()
        for mount in container["volumeMounts"]
        if mount["mountPath"] == TOKEN
    ]
    assert with_token == ["router"]
    (token,) = (v["projected"] for v in pod["spec"]["volumes"] if "projected" in v)
    assert sorted(next(iter(source)) for source in token["sources"]) == [
        "configMap",
        "downwardAPI",
        "serviceAccountToken",
    ]


@pytest.mark.parametrize("pod", ["buildpool", GATEWAY, "buildpool-test"])
def test_pods_keep_to_what_pod_security_calls_restricted(
    installed: Api, namespace: str, pod: str
) -> None:
    enforce = "pod-security.kubernetes.io/enforce=restricted"
    installed.must("label", "namespace", namespace, enforce)
    template = the("Pod", pod, rendered()) if pod == "buildpool-test" else pod_of(pod)
    assert accepted(installed, template, namespace)


def accepted(api: Api, template: Object, namespace: str) -> Object:
    """A pod of this template after admission; nothing is created."""
    eventually(
        lambda: api.get("serviceaccount", "default", namespace),
        within=20,
        what="the namespace has its account",
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "judged", "namespace": namespace},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }
    create = ("create", "--dry-run=server", "--output=yaml", "-f", "-")
    answer: Object = yaml.safe_load(api.must(*create, stdin=yaml.safe_dump(pod)))
    return answer


LIMITED = {
    f"{kind}.{resource}" for kind in ("requests", "limits") for resource in ("cpu", "memory")
}
"""What a quota on a namespace can demand of every container."""


@pytest.mark.parametrize(
    "said", [LIMITED - {"limits.cpu"}, LIMITED], ids=["by default", "with a quota"]
)
def test_every_container_of_the_chart_says_what_it_takes_as_the_values_do(said: set[str]) -> None:
    sections = ("resources", "gateway.resources.envoy", "gateway.resources.router")
    values = [f"{section}.{each}=1" for section in sections for each in said]
    told = {
        f"{obj['metadata']['name']}, {name}": {
            f"{kind}.{resource}"
            for kind, amounts in each.get("resources", {}).items()
            for resource in amounts
        }
        for obj in rendered(*(values if said == LIMITED else ()))
        for template in templates(obj)
        for name, each in containers(template).items()
    }
    assert {"buildpool, operator", f"{GATEWAY}, bootstrap", "buildpool-test, test"} <= told.keys()
    assert {where: each for where, each in told.items() if each != said} == {}


def templates(obj: Any) -> Iterator[Object]:
    """The pods that an object is, or makes, whatever its kind: hooks and tests included."""
    if isinstance(obj, dict):
        if isinstance(obj.get("spec"), dict) and "containers" in obj["spec"]:
            yield obj
        for part in obj.values():
            yield from templates(part)


def test_every_root_file_system_is_read_only() -> None:
    made = containers(pod_of(GATEWAY)).values()
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in made)


def test_envoy_ends_after_the_router_which_ends_after_the_builds() -> None:
    template = pod_of(GATEWAY, "gateway.drainSeconds=700")
    started = containers(template)
    assert list(started) == ["bootstrap", "envoy", "router"]
    # A sidecar among the init containers: told to end when the others have ended.
    assert started["envoy"]["restartPolicy"] == "Always"
    # It would hold up the router, without which Envoy has nothing to listen to.
    assert "startupProbe" not in started["envoy"]
    program, *args = started["router"]["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, args) == (
        "buildpool",
        [
            "drain-gateway",
            "--patience-seconds=700",
            "--goaway-file=/bootstrap/goaway",
        ],
    )
    # The hook does nothing but wait for as long as it is not told otherwise here.
    settles = inspect.signature(drain_gateway).parameters["settle_seconds"].default
    assert template["spec"]["terminationGracePeriodSeconds"] > 700 + settles


def test_no_probe_has_envoy_drained() -> None:
    """The kubelet runs ``preStop`` before every restart of its own, too."""
    for each in containers(pod_of(GATEWAY)).values():
        if "lifecycle" in each:
            assert not {"livenessProbe", "startupProbe"} & each.keys()


def test_everybody_is_told_the_same_time_to_drain() -> None:
    started = containers(pod_of(GATEWAY, "gateway.drainSeconds=700"))
    flags = started["envoy"]["args"]
    assert flags[flags.index("--drain-time-s") + 1] == "700"
    assert "--drain-seconds=700" in started["router"]["args"]


def test_the_new_gateway_serves_before_the_old_one_ends() -> None:
    strategy = the("Deployment", GATEWAY, rendered())["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert containers(pod_of(GATEWAY))["router"]["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("settings", [(), ("watchNamespaces={builds,more}", "logFormat=text")])
def test_the_program_understands_what_the_chart_tells_it(
    settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed, not run."""
    monkeypatch.setenv("POD_NAME", "a-pod")
    gateway = containers(pod_of(GATEWAY, *settings))
    operator = containers(pod_of("buildpool", *settings))["operator"]
    hook = gateway["router"]["lifecycle"]["preStop"]["exec"]["command"][1:]
    # A shell that starts the router again and again, with all that follows the shell's own name.
    script, _, *flags = arguments(gateway["router"])
    assert 'buildpool gateway "$@"' in script
    told = [arguments(operator), arguments(gateway["bootstrap"]), ["gateway", *flags], hook]
    for each in operator["env"]:
        if "value" in each:
            monkeypatch.setenv(each["name"], each["value"])
    commands: Any = typer.main.get_command(app)
    parsed = [
        commands.commands[command].make_context(command, list(args)).params
        for command, *args in told
    ]
    assert parsed[0]["image"] == operator["image"]
    assert parsed[0]["gateway_service"] == GATEWAY


def test_envoy_understands_what_the_chart_and_the_program_tell_it(tmp_path: Path) -> None:
    started = containers(pod_of(GATEWAY))

    def here(container: Object) -> list[str]:
        return [arg.replace("/bootstrap/", f"{tmp_path}/") for arg in arguments(container)]

    subprocess.run([*PROGRAM, *here(started["bootstrap"])], check=True, cwd=PROJECT, timeout=60)
    envoy = [*started["envoy"]["command"], *here(started["envoy"]), "--mode", "validate"]
    done = subprocess.run(envoy, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
