"""Notices when the gateway begins or ceases to serve: its pods are watched, which no pool's are."""

from __future__ import annotations

from buildpool.controller.wakeups import Wakeups
from buildpool.core import naming
from buildpool.core.objects.pods import is_ready
from buildpool.core.objects.refs import Object
from buildpool.kube.cluster import Cluster
from buildpool.kube.informer import Informer


class GatewayWatch:
    """Has all pools looked at when the gateway's first pod is ready, or its last one is no more."""

    def __init__(self, cluster: Cluster, wakeups: Wakeups, *, home: str) -> None:
        """``home`` is the namespace of the operator and the gateway."""
        labels = naming.installation_selector(naming.COMPONENT_GATEWAY)
        self._pods = Informer(cluster, "Pod", home, labels, self._changed)
        self._wakeups = wakeups
        self._is_ready = False

    async def run(self) -> None:
        """Goes on for ever."""
        await self._pods.run()

    def _changed(self, _: Object) -> None:
        now_ready = any(map(_serves, self._pods.objects.values()))
        if now_ready != self._is_ready:
            self._is_ready = now_ready
            self._wakeups.wake_all()


def _serves(pod: Object) -> bool:
    try:
        return is_ready(pod)
    except (AttributeError, KeyError, TypeError):
        return False  # whatever it is, it is no router
