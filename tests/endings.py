"""Pods that have ended, with what is to be said of them, and pods in which anything may stand."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.objects.refs import JSON, Object
from samples import a_pod

TAINT = "Taint manager: deleting due to NoExecute taint"
OOM = {"exitCode": 137, "reason": "OOMKilled"}


def a_reachable_pod(**overrides: Any) -> Object:
    """The pod of a builder of the pool ``ci``, with an address and all its labels."""
    pod = a_pod(**overrides)
    pod["metadata"]["labels"] |= naming.pool_labels(naming.PoolKey("builds", "ci"))
    pod["metadata"]["resourceVersion"] = "1"
    pod["status"]["podIP"] = "10.0.0.7"
    return pod


def failed(reason: str = "", message: str = "", **overrides: Any) -> Object:
    """A pod that nothing runs in any more."""
    pod = a_reachable_pod(**{"phase": "Failed", "running": False, **overrides})
    said = {"reason": reason, "message": message}
    pod["status"] |= {key: value for key, value in said.items() if value}
    return pod


def disrupted(
    pod: Object, reason: str, message: str = TAINT, *, status: str = "True", silent: bool = True
) -> Object:
    """The pod with the condition by which Kubernetes says why it deletes one.

    Where its node is ``silent``, the cluster takes ``Ready`` from it as well.
    """
    condition = {"type": "DisruptionTarget", "status": status, "reason": reason}
    for other in pod["status"]["conditions"]:
        if silent and other["type"] == "Ready":
            other["status"] = "False"
    pod["status"]["conditions"].append(condition | {"message": message})
    return pod


def restarted(code: int, said: str = "", reason: str = "Error") -> Object:
    """A pod whose daemon has ended so, and was started again."""
    ended = {"exitCode": code, "reason": reason, "message": said}
    return a_reachable_pod(ended=ended, restarts=1, ready=True)


ENDINGS: dict[str, tuple[Object, str]] = {
    "evicted for the size of its volume": (
        failed("Evicted", 'Usage of EmptyDir volume "state" exceeds the limit "20Gi". '),
        (
            'its pod was evicted: Usage of EmptyDir volume "state" exceeds the limit "20Gi"; '
            "raise builders.storage"
        ),
    ),
    "evicted for memory": (
        failed("Evicted", "The node was low on resource: memory.\nThreshold quantity: 100Mi"),
        (
            "its pod was evicted: The node was low on resource: memory. Threshold quantity: 100Mi; "
            "raise memory in builders.resources.requests"
        ),
    ),
    "evicted for the disk of the node": (
        failed("Evicted", "The node was low on resource: ephemeral-storage."),
        (
            "its pod was evicted: The node was low on resource: ephemeral-storage; "
            "raise ephemeral-storage in builders.resources"
        ),
    ),
    "evicted without a word": (failed("Evicted"), "its pod was evicted: nobody says why"),
    "evicted, and then its node is lost": (
        disrupted(failed("Evicted", "Too many pods"), "DeletionByTaintManager"),
        "its pod was evicted: Too many pods",
    ),
    "its node does not answer": (
        disrupted(a_reachable_pod(terminating=True), "DeletionByTaintManager"),
        f"its node is lost: {TAINT}",
    ),
    "its node is gone": (
        disrupted(failed(running=True), "DeletionByPodGC", "PodGC: node no longer exists"),
        "its node is lost: PodGC: node no longer exists",
    ),
    "its node is lost, as older clusters say it": (
        failed("NodeLost", "Node n1 which was running pod p is unresponsive"),
        "its node is lost: Node n1 which was running pod p is unresponsive",
    ),
    "its node is shut down": (
        failed("Terminated", "Pod was terminated in response to imminent node shutdown."),
        "its pod has failed: Pod was terminated in response to imminent node shutdown",
    ),
    "it failed with a reason alone": (failed("OutOfcpu"), "its pod has failed: OutOfcpu"),
    "it failed without a word": (failed(), "its pod has failed: nobody says why"),
    "out of memory": (
        restarted(137, reason="OOMKilled"),
        "its daemon ran out of memory (OOMKilled); raise builders.resources.limits.memory",
    ),
    "crashed": (
        restarted(2),
        "its daemon ended with exit code 2 (Error); read its log with kubectl logs --previous",
    ),
    "crashed with words that lead to the remedy": (
        restarted(1, "buildkitd: write history.db: no space left on device"),
        "its daemon ended with exit code 1 (Error); the volume is full: raise builders.storage",
    ),
    "crashed, and is not started again yet": (
        a_reachable_pod(
            ended={"exitCode": 1, "reason": "Error"},
            restarts=1,
            waiting=("CrashLoopBackOff", "back-off 10s"),
        ),
        "its daemon ended with exit code 1 (Error); read its log with kubectl logs --previous",
    ),
    "crashed, and the kubelet has forgotten how": (
        a_reachable_pod(restarts=1),
        (
            "its daemon was started again, and nobody says why; "
            "read its log with kubectl logs --previous"
        ),
    ),
}
"""Pods of which builds are lost that ran on them, and why, where no restart was seen before."""

_WORDS = st.sampled_from(
    [
        *("True", "False", "Ready", "PodScheduled", "ReplicaFailure", "DisruptionTarget"),
        *("Failed", "Evicted", "NodeLost", "DeletionByTaintManager", "OOMKilled"),
        *("CrashLoopBackOff", "ErrImagePull", "buildkitd"),
    ]
)
_KEYS = st.sampled_from(
    [
        *("phase", "conditions", "containerStatuses", "podIP", "type", "status", "reason"),
        *("message", "name", "restartCount", "state", "lastState", "running", "waiting"),
        *("terminated", "exitCode"),
    ]
)
anything: st.SearchStrategy[JSON] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _WORDS, st.text()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(_KEYS, st.text()), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Any JSON, often with words that mean something in a pod."""


def _places(value: JSON) -> Iterator[tuple[Any, Any]]:
    """Each mapping or list in a value, with each of its keys."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def hostile_pods(draw: st.DrawFn) -> Object:
    """A pod with up to three things in it replaced by anything, or left out.

    Only its name, namespace and uid stay: the API server itself sees to these.
    """
    pod = deepcopy(draw(st.sampled_from([pod for pod, _ in ENDINGS.values()])))
    for _ in range(draw(st.integers(0, 3))):
        places = [*_places({"status": pod.get("status")}), *_places({"labels": pod["metadata"]})]
        places = [(place, key) for place, key in places if key not in ("name", "namespace", "uid")]
        place, key = draw(st.sampled_from(places))
        if isinstance(place, dict) and draw(st.booleans()):
            place.pop(key)
        else:
            place[key] = draw(anything)
    return pod
