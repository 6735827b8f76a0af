"""Where a builder cannot serve, the pool says why and what helps; and what helps, helps.

All cases are made wrong at the same time, and later put right at the same time: a kubelet takes its
time to try again.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster import PROJECT, Api, a_pool, eventually
from e2e.clients import BASE, SHORT, client_of, context
from e2e.pools import change, deploy, pods_of, settle


@dataclass(frozen=True, slots=True)
class Case:
    """A pool that cannot work, and what it takes to make it work."""

    wrong: dict[str, Any]
    """The spec."""
    reason: str
    says: tuple[str, ...]
    """What the message has to hold: the object, the cause, the remedy."""
    right: dict[str, Any] = field(default_factory=dict)
    """The spec that helps; empty: it stays, since something else was missing."""


def a_variable(kind: str, name: str, key: str) -> dict[str, Any]:
    return {"env": [{"name": "V", "valueFrom": {kind: {"name": name, "key": key}}}]}


CASES = {
    "no-such-image": Case(
        {"builders": {"image": "docker.io/moby/buildkit:v0.0.1-rootless"}},
        "ImagePullFailed",
        ("docker.io/moby/buildkit:v0.0.1-rootless", "correct builders.image", "imagePullSecrets"),
        {"builders": {"image": None}},
    ),
    "another-program": Case(
        {"builders": {"image": f"docker.io/library/{BASE}"}},
        "BuilderCrashing",
        ("StartError", '"--config": executable file not found', "kubectl logs --previous"),
        {"builders": {"image": None}},
    ),
    "a-daemon-that-dies": Case(
        {"builders": {"config": '[worker.oci]\nsnapshotter = "none"\n'}},
        "BuilderCrashing",
        ("exit code 1", "buildkitd: ", "kubectl logs --previous"),
        {"builders": {"config": None}},
    ),
    "no-node-large-enough": Case(
        {"builders": {"resources": {"requests": {"cpu": "1000"}}}},
        "Unschedulable",
        ("Insufficient cpu", "lower builders.resources"),
        {"builders": {"resources": None}},
    ),
    "no-such-storage-class": Case(
        {"builders": {"storage": {"volumeClaim": {"storageClassName": "none", "size": "1Gi"}}}},
        "Unschedulable",
        ("correct builders.storage.volumeClaim or the StorageClass",),
        {"builders": {"storage": {"volumeClaim": None, "ephemeral": {}}}},
    ),
    "no-secret-for-a-ca": Case(
        {
            "registries": [
                {
                    "host": "registry.example",
                    "caBundle": {"secret": {"name": "late-ca", "key": "ca.crt"}},
                }
            ]
        },
        "SecretNotFound",
        ("late-ca", "create it, and the builders start"),
    ),
    "no-secret-for-a-variable": Case(
        {"builders": a_variable("secretKeyRef", "late-variable", "proxy")},
        "SecretNotFound",
        ("late-variable", "create it, and the builders start"),
    ),
    "no-secret-for-a-collector": Case(
        {
            "builders": {
                "tracing": {
                    "endpoint": "http://collector.example:4317",
                    "headersFrom": {"name": "late-headers", "key": "headers"},
                }
            }
        },
        "SecretNotFound",
        ("late-headers", "create it, and the builders start"),
    ),
    "no-key-for-a-variable": Case(
        {"builders": a_variable("configMapKeyRef", "kube-root-ca.crt", "proxy")},
        "ConfigMapNotFound",
        ("key proxy", "correct builders.env"),
        {"builders": a_variable("configMapKeyRef", "kube-root-ca.crt", "ca.crt")},
    ),
}
LATE = {"late-ca": "ca.crt", "late-variable": "proxy", "late-headers": "headers"}


@pytest.fixture(scope="module")
def wrong(api: Api, shared_namespace: str) -> str:
    """The namespace of one pool for each case, by its name."""
    load = [sys.executable, "-m", "devcluster", "load", "busybox"]
    subprocess.run(load, cwd=PROJECT, check=True, capture_output=True, timeout=120)
    api.apply(*(a_pool(name, shared_namespace, **case.wrong) for name, case in CASES.items()))
    return shared_namespace


@pytest.fixture(scope="module")
def right(api: Api, wrong: str) -> str:
    """The namespace with all of it put right."""
    for name, case in CASES.items():
        if case.right:
            change(api, name, wrong, **case.right)
    for name, key in LATE.items():
        api.must("create", "secret", "generic", name, "-n", wrong, f"--from-literal={key}=x")
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_a_pool_that_cannot_work_says_why_and_what_helps(api: Api, wrong: str, name: str) -> None:
    case = CASES[name]

    def is_told() -> bool:
        ready = api.condition(name, wrong, "Ready")
        return (ready.get("reason"), ready.get("status")) == (case.reason, "False") and all(
            part in ready["message"] for part in case.says
        )

    def shown() -> str:
        """What describe shows, once that is both the condition and the Event."""
        text = api.must("describe", "bkp", name, "-n", wrong)
        status, _, events = text.partition("\nEvents:")
        is_in_full = " ".join(case.says[-1].split()) in " ".join(status.split())
        return text if is_in_full and case.reason in status and case.reason in events else ""

    def row() -> list[str]:
        return api.must("get", "bkp", name, "-n", wrong, "--no-headers").split()[1:5]

    # A pod that is tried again and again has moments in which nothing is wrong with it.
    eventually(is_told, within=60, what=f"{case.reason}: {case.says}", every=0.5)
    events = eventually(shown, within=60, what="describe shows it").partition("\nEvents:")[2]
    told = [line.split() for line in events.splitlines() if case.reason in line]
    assert {line[0] for line in told} == {"Warning"}
    assert len(told) <= 2, "one Event for each condition that says it, and no more"
    expected = ["0/1", "0/0", "0", case.reason]
    eventually(lambda: row() == expected, within=30, what=f"get shows {expected}")


@pytest.mark.parametrize("name", CASES)
def test_a_pool_that_was_put_right_gets_ready(api: Api, right: str, name: str) -> None:
    settle(api, name, right, within=150)
    eventually(
        lambda: len(pods_of(api, name, right)) == 1, within=60, what="the pod that failed is gone"
    )


def test_a_namespace_that_refuses_builders_is_named_with_the_label_that_helps(
    api: Api, restricted_namespace: str
) -> None:
    namespace, label = restricted_namespace, "pod-security.kubernetes.io/enforce=privileged"
    api.apply(a_pool("ci", namespace))
    eventually(
        lambda: api.condition("ci", namespace, "Ready").get("reason") == "PodRefused",
        within=30,
        what="the pool says that its pods are refused",
    )
    message = api.condition("ci", namespace, "Ready")["message"]
    assert "violates PodSecurity" in message
    assert f"label the namespace {label}" in message
    eventually(
        lambda: "PodRefused" in api.reasons("ci", namespace), within=30, what="an Event says so"
    )
    api.must("label", "namespace", namespace, "--overwrite", label)
    settle(api, "ci", namespace, within=90)


def test_a_pool_that_serves_goes_on_when_its_new_image_is_wrong(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "ci", namespace)
    client = client_of(api, "ci", namespace, tmp_path)
    (before,) = pods_of(api, "ci", namespace)
    change(api, "ci", namespace, builders={"image": "docker.io/moby/buildkit:v0.0.1-rootless"})
    eventually(
        lambda: api.condition("ci", namespace, "Progressing").get("reason") == "ImagePullFailed",
        within=60,
        what="the pool says why it does not get on",
        every=0.5,
    )
    message = api.condition("ci", namespace, "Progressing")["message"]
    assert message.startswith("ci-builder-1: image docker.io/moby/buildkit:v0.0.1-rootless")
    assert "correct builders.image" in message
    eventually(
        lambda: "ImagePullFailed" in api.reasons("ci", namespace), within=30, what="an Event"
    )
    assert api.condition("ci", namespace, "Ready")["status"] == "True"
    client.build(context(tmp_path / "context", SHORT))
    change(api, "ci", namespace, builders={"image": None})
    settle(api, "ci", namespace)
    eventually(lambda: len(pods_of(api, "ci", namespace)) == 1, within=60, what="one pod is left")
    (after,) = pods_of(api, "ci", namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "it served all the time"
