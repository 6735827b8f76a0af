"""A cluster that knows nothing but what its pods take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from buildpool.core.objects.refs import Object


@dataclass
class Measured:
    """Stands for a cluster: has metrics of pods, answers with an error, or takes its time."""

    pods: list[Any] = field(default_factory=list)
    error: Exception | None = None
    takes: float = 0.0
    selected: list[tuple[float, str, dict[str, str]]] = field(default_factory=list)

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Any]:
        assert kind == "PodMetrics"
        self.selected.append((asyncio.get_running_loop().time(), namespace, labels))
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.pods


def measured(pod: str, *usages: str) -> Object:
    """What the metrics API says of a pod's containers."""
    containers = [{"name": f"c{n}", "usage": {"memory": usage}} for n, usage in enumerate(usages)]
    return {"metadata": {"name": pod}, "containers": containers}
