"""How kstatus judges a custom resource, in Python: what Flux and ``helm --wait`` go by.

It mirrors ``Compute`` of https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus/status
as far as it is about kinds that kstatus has no own rules for.
"""

from __future__ import annotations

from typing import Any


def compute(obj: dict[str, Any]) -> str:
    """InProgress, Current, Failed or Terminating."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if (condition["type"], condition["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            return "Failed"
    ready = [condition["status"] for condition in conditions if condition["type"] == "Ready"]
    return "Current" if not ready or ready[0] == "True" else "InProgress"
