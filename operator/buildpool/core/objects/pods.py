"""What a pod says: whose it is, whether it serves, and what its daemon does.

The one reader of pods, for the operator and for the gateway.
"""

from __future__ import annotations

from typing import Final

from buildpool.core import naming
from buildpool.core.objects.refs import Object, is_terminating

CONTAINER: Final = "buildkitd"
"""The daemon's container in a builder's pod."""
SERVES: Final = "true"
"""Value of the label of pods that stand in their pool's Service."""


def name_of_builder(pod: Object) -> str:
    """Which builder a pod belongs to; empty where it does not say."""
    return str((pod["metadata"].get("labels") or {}).get(naming.LABEL_BUILDER, ""))


def serves(pod: Object) -> bool:
    """Whether a pod stands in its pool's Service."""
    return (pod["metadata"].get("labels") or {}).get(naming.LABEL_SERVING) == SERVES


def daemon_of(pod: Object) -> Object:
    """The state of the daemon's container, as the kubelet reports it; empty before it does."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == CONTAINER), {})


def has_daemon(pod: Object) -> bool:
    """Whether a daemon runs in a pod."""
    return "running" in (daemon_of(pod).get("state") or {})


def is_ready(pod: Object) -> bool:
    """Whether a pod takes connections and is to stay."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not is_terminating(pod)


def has_ended(pod: Object) -> bool:
    """Whether nothing of a pod runs any more: an evicted one stays so for a long time."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
