"""The installed operator as others see it: its pods, and the Lease by which one of them leads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from cluster import OPERATOR_NAMESPACE, Api, eventually

OPERATORS: Final = "app.kubernetes.io/name=buildpool,app.kubernetes.io/component=operator"
"""The labels of its pods."""
LEASE: Final = ("lease", "buildpool-operator", OPERATOR_NAMESPACE)
THIEF: Final = "somebody-else"
RETURN: Final = 120.0
"""Seconds an operator may take to lead again: a kubelet lets one that dies often wait, and the
Lease of a dead one has to run out."""


def operators(api: Api) -> list[dict[str, Any]]:
    """The pods of the operator that stay."""
    pods = api.list("pods", OPERATOR_NAMESPACE, OPERATORS)
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def lease(api: Api) -> dict[str, Any]:
    """The Lease as it is written: its ``spec``, empty where there is none."""
    spec: dict[str, Any] = (api.get(*LEASE) or {}).get("spec") or {}
    return spec


def leader(api: Api) -> str:
    """Who holds the Lease; empty: nobody."""
    return str(lease(api).get("holderIdentity") or "")


def take_lease(api: Api, *, seconds: int) -> None:
    """Somebody else takes the Lease, and is silent from then on.

    For so many ``seconds`` the operators have to respect that. The leader notices at its next
    renewal.
    """
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec = {"holderIdentity": THIEF, "leaseDurationSeconds": seconds, "renewTime": now}
    kind, name, namespace = LEASE
    patch = json.dumps({"spec": spec})
    api.must("patch", kind, name, "-n", namespace, "--type=merge", "-p", patch)


def has_led(api: Api, since: dict[str, Any]) -> bool:
    """Whether an operator that is there now has written the Lease since it was like this."""
    now = lease(api)
    names = [pod["metadata"]["name"] for pod in operators(api)]
    return now.get("holderIdentity") in names and now["renewTime"] != since.get("renewTime")


def must_lead(api: Api, since: dict[str, Any]) -> None:
    """Waits until ``has_led``."""
    eventually(
        lambda: has_led(api, since), within=RETURN, what="an operator leads again", every=0.5
    )
