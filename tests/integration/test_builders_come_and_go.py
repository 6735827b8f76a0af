"""Builders are added, retired, replaced and removed, as spec, scale and their own state ask for.

Their pods stay pending: where one has to take builds, the test says so in the kubelet's place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from buildpool.core import naming
from cluster import PROJECT, Api, OperatorProcess, eventually
from integration.test_a_pool_converges import created

WARM = naming.ANNOTATION_WARM
OTHER_IMAGE = "registry.example/buildkit:v9-rootless"


def names(api: Api, namespace: str, kind: str = "deployments") -> set[str]:
    """Of the objects of a kind: each builder's Deployment and claim are called as it is."""
    return {obj["metadata"]["name"] for obj in api.list(kind, namespace)}


def builders(*numbers: int) -> set[str]:
    """Names of the builders of pool ci."""
    return {f"ci-builder-{number}" for number in numbers}


def come_to_be(api: Api, namespace: str, *numbers: int, within: float = 12) -> None:
    """Waits until the pool has exactly these builders; one that goes takes three seconds."""
    wanted = builders(*numbers)
    seen: list[set[str]] = []

    def have_come() -> bool:
        seen.append(names(api, namespace))
        return seen[-1] == wanted

    try:
        eventually(have_come, within=within, what=f"builders {wanted}")
    except AssertionError as error:
        error.add_note(f"there are {seen[-1]}")
        raise


def change(api: Api, namespace: str, **spec: Any) -> None:
    """Changes the spec of pool ci; None removes a field."""
    patch = json.dumps({"spec": spec})
    api.must("patch", "bkp", "ci", "-n", namespace, "--type=merge", "-p", patch)


def uids(api: Api, namespace: str, kind: str = "deployments") -> dict[str, str]:
    return {o["metadata"]["name"]: o["metadata"]["uid"] for o in api.list(kind, namespace)}


def status(api: Api, namespace: str) -> dict[str, Any]:
    pool = api.get("bkp", "ci", namespace)
    assert pool is not None
    found: dict[str, Any] = pool["status"]
    return found


def told(api: Api, namespace: str, reason: str) -> list[str]:
    """The messages of all Events on pool ci with this reason."""
    events = api.list("events", namespace)
    return [e["message"] for e in events if e["reason"] == reason]


def pod_of(api: Api, namespace: str, number: int) -> dict[str, Any]:
    """The pod of a builder, as soon as there is one."""
    label = f"buildpool.dev/builder=ci-builder-{number}"
    found = eventually(
        lambda: api.list("pods", namespace, label), within=10, what=f"a pod of builder {number}"
    )
    pod: dict[str, Any] = found[0]
    return pod


def takes_builds(api: Api, namespace: str, number: int, **daemon: Any) -> None:
    """Says in the kubelet's place that the pod of a builder is ready; more, of its container."""
    name = pod_of(api, namespace, number)["metadata"]["name"]
    ready: dict[str, Any] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    if daemon:
        container = {"name": "buildkitd", "image": "", "imageID": "", "restartCount": 0}
        ready["containerStatuses"] = [{**container, "ready": True, **daemon}]
    to = ("pod", name, "-n", namespace, "--subresource=status", "--type=merge")
    api.must("patch", *to, "-p", json.dumps({"status": ready}))


def test_replicas_decide_how_many_builders_there_are(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    change(installed, namespace, replicas=3)
    come_to_be(installed, namespace, 0, 1, 2)
    first = uids(installed, namespace)
    scaling = eventually(
        lambda: (s := status(installed, namespace)["scaling"])["size"] == 3 and s,
        within=5,
        what="the status says so",
    )
    assert scaling["reason"] == "ReplicasSet"
    change(installed, namespace, replicas=1)
    come_to_be(installed, namespace, 0)
    assert uids(installed, namespace)["ci-builder-0"] == first["ci-builder-0"]
    change(installed, namespace, replicas=None)
    eventually(
        lambda: status(installed, namespace)["scaling"]["reason"] == "AtMinimum",
        within=5,
        what="spec.scaling decides",
    )
    reasons = installed.reasons("ci", namespace)
    assert {"ScaledUp", "ScaledDown", "RetiredBuilder", "RemovedBuilder"} <= set(reasons)
    assert all("(Surplus)" in message for message in told(installed, namespace, "RetiredBuilder"))


def test_a_pool_is_kept_warm_until_the_moment_that_was_asked_for(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, scaling={"max": 8})

    def warm(*flags: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "buildpool.cli", "warm", "ci", "-n", namespace, *flags],
            env={**os.environ, "PYTHONPATH": str(PROJECT / "operator")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout or done.stderr

    def sized(size: int, reason: str, within: float = 10) -> None:
        def is_so() -> bool:
            scaling = status(installed, namespace)["scaling"]
            return (scaling["size"], scaling["reason"]) == (size, reason)

        eventually(is_so, within=within, what=f"{size}, for {reason}")

    assert "may have 8 builders; ask for no more" in warm("--builders=9")
    assert "give a time of up to 24h" in warm("--for=25h")
    assert "has 3 builders or more until" in warm("--builders=3", "--for=1h")
    come_to_be(installed, namespace, 0, 1, 2)
    sized(3, "KeptWarm")
    assert "as many builders as builds need" in warm("--off")
    sized(3, "CoolingDown")
    warm("--builders=3", "--for=8s")
    sized(3, "KeptWarm")
    # By time alone: nothing else changes then.
    sized(3, "CoolingDown", within=20)
    installed.must("annotate", "bkp", "ci", "-n", namespace, "--overwrite", f"{WARM}=plenty")
    eventually(
        lambda: told(installed, namespace, "UnknownWarmth"), within=10, what="it says what helps"
    )
    (message,) = told(installed, namespace, "UnknownWarmth")
    assert message.startswith(f"{WARM}=plenty says nothing; write it like 3 until ")


def test_kubectl_scale_adds_and_removes_builders(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    installed.must("scale", "bkp", "ci", "-n", namespace, "--replicas=2")
    come_to_be(installed, namespace, 0, 1)
    scale = ("get", "bkp", "ci", "-n", namespace, "--subresource=scale", "-o", "json")
    seen = eventually(
        lambda: (s := json.loads(installed.must(*scale))["status"])["replicas"] == 2 and s,
        within=5,
        what="an autoscaler sees two",
    )

    def selected() -> set[str]:
        pods = installed.list("pods", namespace, seen["selector"])
        return {pod["metadata"]["labels"]["buildpool.dev/builder"] for pod in pods}

    eventually(lambda: selected() == builders(0, 1), within=10, what="it finds their pods")
    installed.must("scale", "bkp", "ci", "-n", namespace, "--replicas=0")
    come_to_be(installed, namespace)
    eventually(
        lambda: installed.condition("ci", namespace, "Ready")["reason"] == "ScaledToZero",
        within=5,
        what="the pool says why it is not ready",
    )


def test_kubectl_get_tells_how_many_are_ready_and_how_many_builds_run(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, scaling={"min": 2})

    def columns() -> dict[str, str]:
        head, row = installed.must("get", "bkp", "ci", "-n", namespace).splitlines()
        return dict(zip(head.split(), row.split(), strict=True))

    shown = columns()
    assert list(shown) == ["NAME", "READY", "BUSY", "WAITING", "STATUS", "ENDPOINT", "AGE"]
    assert (shown["READY"], shown["BUSY"]) == ("0/2", "0/0")
    takes_builds(installed, namespace, 1)
    eventually(
        lambda: (columns()["READY"], columns()["BUSY"]) == ("1/2", "0/2"),
        within=5,
        what="one builder of two slots is ready",
    )


def test_another_image_makes_another_builder_before_the_old_one_goes(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    takes_builds(installed, namespace, 0)
    ready = lambda: status(installed, namespace)["ready"] == "1/1"  # noqa: E731
    eventually(ready, within=5, what="the builder is seen to be ready")
    old = installed.get("deployment", "ci-builder-0", namespace)
    assert old is not None
    change(installed, namespace, builders={"image": OTHER_IMAGE})
    come_to_be(installed, namespace, 0, 1)
    new = installed.get("deployment", "ci-builder-1", namespace)
    assert new is not None
    assert new["spec"]["template"]["spec"]["containers"][0]["image"] == OTHER_IMAGE
    eventually(
        lambda: (
            "1 builder of the previous revision keeps serving"
            in installed.condition("ci", namespace, "Progressing")["message"]
        ),
        within=5,
        what="the pool says that no node takes the new one, and who serves",
    )
    kept = installed.get("deployment", "ci-builder-0", namespace)
    assert kept is not None
    assert kept["metadata"]["generation"] == old["metadata"]["generation"], "it was written again"
    assert "buildpool.dev/retired" not in kept["metadata"]["annotations"]
    takes_builds(installed, namespace, 1)
    come_to_be(installed, namespace, 1)
    (message,) = told(installed, namespace, "RetiredBuilder")
    assert message.startswith(f"Retired Deployment {namespace}/ci-builder-0 (Outdated)")


def test_a_builder_that_never_took_builds_is_replaced_at_once(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, scaling={"min": 2})
    change(installed, namespace, builders={"image": OTHER_IMAGE})
    come_to_be(installed, namespace, 2, 3)
    change(installed, namespace, builders={"image": None})
    come_to_be(installed, namespace, 0, 1)


def test_a_retired_builder_that_is_wanted_takes_builds_again(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    before = uids(installed, namespace)
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    builder = ("deployment", "ci-builder-0", "-n", namespace)
    installed.must("annotate", *builder, f"buildpool.dev/retired={moment}")

    def is_retired() -> bool:
        found = installed.get("deployment", "ci-builder-0", namespace)
        assert found is not None
        return "buildpool.dev/retired" in found["metadata"]["annotations"]

    eventually(lambda: not is_retired(), within=5, what="the mark is gone")
    assert uids(installed, namespace) == before
    restored = lambda: told(installed, namespace, "RestoredBuilder")  # noqa: E731
    eventually(restored, within=5, what="an Event")


def test_labels_that_lead_builds_to_a_pod_are_put_right(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    name = pod_of(installed, namespace, 0)["metadata"]["name"]
    wrong = ("buildpool.dev/serving=false", "buildpool.dev/busy=true")
    installed.must("label", "pod", name, "-n", namespace, "--overwrite", *wrong)

    def labels() -> dict[str, str]:
        found: dict[str, str] = pod_of(installed, namespace, 0)["metadata"]["labels"]
        return found

    eventually(
        lambda: (
            (found := labels())["buildpool.dev/serving"] == "true"
            and "buildpool.dev/busy" not in found
        ),
        within=5,
        what="it serves, and is not busy",
    )


def test_a_busy_builder_is_not_evicted_and_an_idle_one_is(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    # A daemon runs, as it seems, and does not answer: then its mark stays as it is.
    takes_builds(installed, namespace, 0, state={"running": {}})
    pod = pod_of(installed, namespace, 0)["metadata"]["name"]
    installed.must("label", "pod", pod, "-n", namespace, "buildpool.dev/busy=true")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"

    def refusal() -> str:
        return installed.kubectl(
            "create", "--raw", path, "-f", "-", stdin=json.dumps(eviction)
        ).stderr

    eventually(
        lambda: (b := installed.get("pdb", "ci-busy", namespace)) and b["status"]["expectedPods"],
        within=10,
        what="Kubernetes counts the busy ones",
    )
    assert "would violate the pod's disruption budget" in refusal()
    installed.must("label", "pod", pod, "-n", namespace, "buildpool.dev/busy-")
    eventually(lambda: not refusal(), within=10, what="it is evicted")
