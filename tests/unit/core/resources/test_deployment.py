from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Bundle, KeyPair
from buildpool.core.resources import (
    builder_config,
    builder_revision,
    daemon_toml,
)
from buildpool.core.resources.cache import cache_deployment, managed_registry
from buildpool.core.resources.deployment import revision_of
from samples import CERTIFICATE, OWN_IMAGE, a_builder_deployment, a_pool

PERSISTENT = {"storage": {"volumeClaim": {"size": "10Gi"}}}


def deployment(index: int = 0, certificate: Bundle = CERTIFICATE, **overrides: Any) -> Object:
    return a_builder_deployment(a_pool(**overrides), index, certificate=certificate)


def pod(**builders: Any) -> Object:
    found: Object = deployment(builders=builders)["spec"]["template"]["spec"]
    return found


def first_containers(spec: Object) -> list[str]:
    return [container["name"] for container in spec["initContainers"]]


# --- the revision --------------------------------------------------------------------------------

NEW_POD: dict[str, dict[str, Any]] = {
    "another image": {"builders": {"image": "r.example/buildkit:v1"}},
    "another file": {"builders": {"maxParallelism": 3}},
    "another registry": {"registries": [{"host": "r.example", "http": True}]},
    "another certificate": {"certificate": Bundle(KeyPair(b"another", b"a key"), b"an authority")},
    "one more authority to trust": {"certificate": Bundle(CERTIFICATE.pair, b"two authorities")},
    "another label of the pod": {"builders": {"podLabels": {"team": "a"}}},
    "another annotation of the pod": {"builders": {"podAnnotations": {"note": "x"}}},
    "another service account": {"builders": {"serviceAccountName": "builder"}},
    "another kind of storage": {"builders": PERSISTENT},
}


@pytest.mark.parametrize("change", NEW_POD.values(), ids=NEW_POD)
def test_it_is_another_revision_with(change: dict[str, Any]) -> None:
    assert revision_of(deployment(**change)) != revision_of(deployment())


SAME_POD: dict[str, dict[str, Any]] = {
    "more builders": {"replicas": 9},
    "another client": {"access": {"clients": [{"name": "ana"}]}},
    "another generation": {"generation": 7},
}


@pytest.mark.parametrize("change", SAME_POD.values(), ids=SAME_POD)
def test_it_is_the_same_deployment_with(change: dict[str, Any]) -> None:
    assert deployment(**change) == deployment()


@pytest.mark.parametrize("builders", [{}, PERSISTENT], ids=["ephemeral", "persistent"])
def test_all_builders_of_a_pool_have_one_revision(builders: dict[str, Any]) -> None:
    assert revision_of(deployment(0, builders=builders)) == revision_of(
        deployment(7, builders=builders)
    )


def test_what_a_deployment_says_of_its_revision_is_what_is_asked_for() -> None:
    revision = builder_revision(a_pool(), image=OWN_IMAGE, certificate=CERTIFICATE)
    assert revision_of(deployment(5)) == revision


@pytest.mark.parametrize("cache", [{}, {"registry": {"managed": {}}}], ids=["without", "with"])
def test_another_operator_is_another_revision_only_where_its_image_guards_a_cache(
    cache: dict[str, Any],
) -> None:
    pool = a_pool(cache=cache)
    revisions = {
        builder_revision(pool, image=image, certificate=CERTIFICATE)
        for image in (OWN_IMAGE, "r.example/buildpool:v2")
    }
    assert len(revisions) == (2 if cache else 1)


def test_a_deployment_of_others_has_no_revision() -> None:
    assert revision_of({"spec": {"template": {"metadata": {}}}}) == ""


# --- the pod -------------------------------------------------------------------------------------


def test_a_builder_has_its_longest_build_and_a_margin_to_go() -> None:
    assert pod(maxBuildDuration="45m")["terminationGracePeriodSeconds"] == 46 * 60


def test_no_builder_can_talk_to_the_api_server() -> None:
    for builders in ({}, {"serviceAccountName": "builder"}, {"security": "UserNamespace"}):
        assert pod(**builders)["automountServiceAccountToken"] is False


def test_a_rootless_builder_is_never_privileged() -> None:
    context = pod()["containers"][0]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 1000
    assert "privileged" not in context


def test_a_privileged_builder_is_always_in_a_user_namespace() -> None:
    nested = pod(security="UserNamespace")
    assert nested["containers"][0]["securityContext"] == {"privileged": True}
    assert nested["hostUsers"] is False


def test_no_builder_is_killed_for_being_slow() -> None:
    for builders in ({}, PERSISTENT, {"security": "UserNamespace"}):
        assert "livenessProbe" not in pod(**builders)["containers"][0]


def test_what_steps_leave_behind_is_looked_for_where_the_kernel_does_not_end_it() -> None:
    """A rootless step has no process namespace of its own; and rootlesskit reaps nobody."""
    rootless, nested = pod(), pod(security="UserNamespace")
    assert rootless["shareProcessNamespace"] is True
    assert "shareProcessNamespace" not in nested
    (daemon,), (other,) = rootless["containers"], nested["containers"]
    assert daemon["readinessProbe"]["exec"]["command"][:2] == ["sh", "-c"]
    asks = daemon["startupProbe"]["exec"]["command"]
    assert daemon["readinessProbe"]["exec"]["command"][2].endswith(f"\nexec {' '.join(asks)}\n")
    assert other["readinessProbe"]["exec"]["command"][0] == "buildctl"


def test_two_pods_never_share_a_volume() -> None:
    spec = deployment(3, builders=PERSISTENT)["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    assert spec["template"]["spec"]["volumes"][0] == {
        "name": "state",
        "persistentVolumeClaim": {"claimName": "ci-builder-3"},
    }


def test_a_new_pod_comes_before_the_old_one_goes() -> None:
    assert deployment()["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }


def test_only_a_rootless_builder_has_to_be_given_its_volume() -> None:
    _, owner, _ = pod(**PERSISTENT)["initContainers"]
    assert owner["command"] == ["chown", "1000:1000", "/home/user/.local/share/buildkit"]
    assert owner["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    nested = pod(security="UserNamespace", **PERSISTENT)
    assert first_containers(nested) == ["inputs", "volume-free"]
    assert first_containers(pod()) == ["inputs"]


@pytest.mark.parametrize("security", ["Rootless", "UserNamespace"])
def test_a_builder_waits_for_the_lock_of_its_volume_with_its_own_rights(security: str) -> None:
    builder = pod(security=security, **PERSISTENT)
    *_, free = builder["initContainers"]
    (daemon,) = builder["containers"]
    assert free["securityContext"] == daemon["securityContext"]
    (state, *_) = daemon["volumeMounts"]
    assert free["volumeMounts"] == [state]
    assert f"flock {state['mountPath']}/buildkitd.lock" in free["command"][-1]


@pytest.mark.parametrize("stale", [None, "buildkitd.toml", "ca.pem", "cert.pem"])
def test_a_builder_waits_until_it_sees_the_files_it_is_made_of(
    tmp_path: Path, stale: str | None
) -> None:
    pool = a_pool()
    (container,) = deployment()["spec"]["template"]["spec"]["initContainers"]
    script = container["command"][-1]
    contents = {
        "buildkitd.toml": daemon_toml(pool).encode(),
        "ca.pem": CERTIFICATE.trust,
        "cert.pem": CERTIFICATE.pair.certificate,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(b"an older state" if name == stale else content)
    for mount in container["volumeMounts"]:
        script = script.replace(mount["mountPath"], str(tmp_path))
    assert "/etc" not in script, "the files are those that are mounted"

    # What waits prints that it does and ends, in the place of sleeping.
    script = script.replace("sleep 0.2", "echo waits; exit")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ("" if stale is None else "waits\n")


@pytest.mark.parametrize(
    ("outside", "goes_on"), [("0 4294967295", False), ("65536 65536", True)], ids=["node", "nobody"]
)
def test_no_daemon_starts_whose_root_would_be_root_of_its_node(
    tmp_path: Path, outside: str, goes_on: bool
) -> None:
    """An API server may forget the user namespace of each pod, and a node may not know it."""
    first, *_ = pod(security="UserNamespace")["initContainers"]
    script = first["command"][-1].partition("trap")[0] + "echo goes on"
    table = tmp_path / "uid_map"
    table.write_text(f"         0 {outside:>20}\n")
    script = script.replace("/proc/self/uid_map", str(table))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is goes_on
    assert (done.stdout == "goes on\n") is goes_on
    assert ("enable the feature gate UserNamespacesSupport" in done.stderr) is not goes_on
    assert first["terminationMessagePolicy"] == "FallbackToLogsOnError"
    (rootless, *_) = pod()["initContainers"]
    assert "uid_map" not in rootless["command"][-1]


@pytest.mark.parametrize("number", [0, 2], ids=["for its inputs", "for its volume"])
def test_what_waits_in_vain_goes_when_it_is_told_to(tmp_path: Path, number: int) -> None:
    """As process 1 of a container it would not be ended by the signal itself."""
    containers = deployment(builders=PERSISTENT)["spec"]["template"]["spec"]["initContainers"]
    script = containers[number]["command"][-1]
    for mount in containers[number]["volumeMounts"]:
        script = script.replace(mount["mountPath"], str(tmp_path))
    lock = tmp_path / "buildkitd.lock"
    lock.touch()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(timeout=1)
            waiting.terminate()
            assert waiting.wait(timeout=5) == 1, "its own answer, not the signal's doing"


def test_the_users_own_labels_never_replace_ours() -> None:
    metadata = deployment(builders={"podLabels": {"team": "a"}})["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "a"
    assert metadata["labels"][naming.LABEL_SERVING] == "true"
    selector = deployment()["spec"]["selector"]["matchLabels"]
    assert selector.items() <= metadata["labels"].items()
    assert selector == {
        **naming.builder_selector(a_pool().key),
        naming.LABEL_BUILDER: "ci-builder-0",
    }


def test_every_mount_has_its_volume_and_every_volume_its_mount() -> None:
    registries = [
        {"host": f"r{number}.example", "caBundle": {"secret": {"name": "ca"}}}
        for number in range(3)
    ]
    spec = deployment(builders=PERSISTENT, registries=registries)["spec"]["template"]["spec"]
    mounts = spec["containers"][0]["volumeMounts"]
    assert [m["name"] for m in mounts] == [v["name"] for v in spec["volumes"]]
    assert len({m["mountPath"] for m in mounts}) == len(mounts) == 6


def test_the_daemon_reads_the_file_that_is_mounted() -> None:
    pool = a_pool()
    container = pod()["containers"][0]
    path = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "config")
    (file,) = builder_config(pool)["data"]
    assert container["args"] == ["--config", f"{path}/{file}"]
    for key in ("ca", "cert", "key"):
        assert f"/etc/buildpool/certificates/{key}.pem" in daemon_toml(pool)


def test_a_pool_spreads_over_its_own_builders() -> None:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    (found,) = pod(topologySpreadConstraints=[constraint])["topologySpreadConstraints"]
    assert found == {
        **constraint,
        "labelSelector": {"matchLabels": naming.builder_selector(a_pool().key)},
    }


# --- where quotas and tracing are ----------------------------------------------------------------

COMPUTE = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}


def containers_of(template: Object) -> list[Object]:
    pod = template["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("security", ["Rootless", "UserNamespace"])
@pytest.mark.parametrize("storage", [{}, {"storage": {"volumeClaim": {"size": "1Gi"}}}])
def test_every_container_says_what_it_takes_as_a_quota_demands(
    security: str, storage: dict[str, Any]
) -> None:
    pool = a_pool(
        builders={"resources": COMPUTE, "security": security, **storage},
        cache={"registry": {"managed": {"resources": COMPUTE}}},
    )
    managed = managed_registry(pool)
    assert managed is not None
    cache = cache_deployment(pool, managed, image=OWN_IMAGE, certificate=CERTIFICATE, is_awake=True)
    builder = a_builder_deployment(pool)
    for deployment in (builder, cache):
        for container in containers_of(deployment["spec"]["template"]):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), container["name"]


@pytest.mark.parametrize("policy", ["Always", "Never", None])
@pytest.mark.parametrize("storage", [{}, {"storage": {"volumeClaim": {"size": "1Gi"}}}])
def test_images_of_all_containers_are_pulled_as_the_pool_says(
    storage: dict[str, Any], policy: str | None
) -> None:
    written = {"imagePullPolicy": policy} if policy else {}
    pool = a_pool(builders={**storage, **written}, cache={"registry": {"managed": {}}})
    managed = managed_registry(pool)
    assert managed is not None
    cache = cache_deployment(pool, managed, image=OWN_IMAGE, certificate=CERTIFICATE, is_awake=True)
    builder = a_builder_deployment(pool)
    for deployment in (builder, cache):
        for container in containers_of(deployment["spec"]["template"]):
            assert container.get("imagePullPolicy") == policy, container["name"]


@pytest.mark.parametrize(
    ("written", "flag"),
    [({}, "--scrub=24h"), ({"scrub": "7d"}, "--scrub=7d"), ({"scrub": "0s"}, "--scrub=0s")],
)
def test_a_pool_says_how_often_its_cache_is_read_again(written: dict[str, Any], flag: str) -> None:
    pool = a_pool(cache={"registry": {"managed": written}})
    managed = managed_registry(pool)
    assert managed is not None
    cache = cache_deployment(pool, managed, image=OWN_IMAGE, certificate=CERTIFICATE, is_awake=True)
    _, keeper = cache["spec"]["template"]["spec"]["containers"]
    assert flag in keeper["args"]


def test_only_the_daemon_sends_traces() -> None:
    env = [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"},
        {"name": "OTEL_SERVICE_NAME", "value": "buildkitd"},
        {"name": "OTEL_odd.name-here", "value": "x"},
        {"name": "HTTP_PROXY", "value": "http://proxy"},
    ]
    found = pod(env=env)["containers"][0]
    assert [entry["name"] for entry in found["env"]] == [entry["name"] for entry in env]
    without = ["env", "-u", "OTEL_EXPORTER_OTLP_ENDPOINT", "-u", "OTEL_SERVICE_NAME"]
    for probe, program in (("startupProbe", "buildctl"), ("readinessProbe", "sh")):
        assert found[probe]["exec"]["command"][:6] == [*without, program]
    drain = found["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert drain.startswith("unset OTEL_EXPORTER_OTLP_ENDPOINT OTEL_SERVICE_NAME\n")


TRACING = {"endpoint": "http://collector.tracing.svc:4317"}


def test_a_daemon_sends_its_spans_to_the_collector_and_nothing_else_does() -> None:
    spec = pod(tracing={**TRACING, "headersFrom": {"name": "token", "key": "headers"}})
    (daemon,) = (each for each in spec["containers"] if each["name"] == "buildkitd")
    env = {each["name"]: each for each in daemon["env"]}
    assert env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]["value"] == TRACING["endpoint"]
    assert env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]["value"] == "grpc"
    headers = env["OTEL_EXPORTER_OTLP_TRACES_HEADERS"]["valueFrom"]["secretKeyRef"]
    assert (headers["name"], headers["key"]) == ("token", "headers")
    assert "buildpool.pool=ci" in env["OTEL_RESOURCE_ATTRIBUTES"]["value"]
    assert list(env).index("BUILDPOOL_POD") < list(env).index("OTEL_RESOURCE_ATTRIBUTES")
    # Its metrics are Prometheus's, who asks for them.
    assert not {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_METRICS_EXPORTER"} & env.keys()
    spans = [name for name in env if name.startswith("OTEL_")]
    for probe in ("startupProbe", "readinessProbe"):
        command = daemon[probe]["exec"]["command"]
        assert all(f"-u {name}" in " ".join(command) for name in spans)


def test_all_builders_of_a_pool_that_is_traced_have_one_revision() -> None:
    builders = {"tracing": TRACING}
    assert revision_of(deployment(0, builders=builders)) == revision_of(
        deployment(7, builders=builders)
    )
    assert revision_of(deployment(0, builders=builders)) != revision_of(deployment(0))
