"""Kubernetes Events on pools: what ``kubectl describe`` shows below the object.

The same thing said again raises a count instead of making a new object. To record must never fail a
pass: errors are logged and dropped.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from buildpool.core import naming
from buildpool.core.api import EventReason, Reason
from buildpool.core.api.events import Event, EventType
from buildpool.core.api.status import MAX_MESSAGE_CHARACTERS, format_time
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Ref
from buildpool.kube.cluster import Cluster

MAX_REMEMBERED_EVENTS: Final = 2048
"""Events whose repetition is recognised; the oldest are forgotten first."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Told:
    ref: Ref
    count: int


class EventRecorder:
    """Posts Events in the name of one operator process."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity
        self._told: OrderedDict[str, _Told] = OrderedDict()

    async def record(
        self, pool: PoolKey, uid: str, events: Iterable[Event], *, now: datetime
    ) -> None:
        """Posts one Event for each reason, or counts it where it was posted before."""
        for event in together(events):
            await self._tell(pool, uid, event, now)

    async def _tell(self, pool: PoolKey, uid: str, event: Event, now: datetime) -> None:
        level = logging.INFO if event.type == "Normal" else logging.WARNING
        extra = {"pool": str(pool), "reason": str(event.reason)}
        log.log(level, "%s: %s: %s", pool, event.reason, event.message, extra=extra)
        key = hashlib.sha256(
            f"{uid}/{event.type}/{event.reason}/{event.message}".encode()
        ).hexdigest()
        try:
            told = self._told.get(key)
            if told is None or not await self._count(told, now):
                await self._post(pool, uid, event, key, now)
        except KubernetesError as error:
            log.warning("%s: the Event %s was lost: %s", pool, event.reason, error, extra=extra)

    async def _count(self, told: _Told, now: datetime) -> bool:
        told.count += 1
        try:
            await self._cluster.patch(
                told.ref, {"count": told.count, "lastTimestamp": format_time(now)}
            )
        except KubernetesError:
            return False  # Events live an hour; this one is gone
        return True

    async def _post(self, pool: PoolKey, uid: str, event: Event, key: str, now: datetime) -> None:
        name = f"{pool.name}.{now.strftime('%Y%m%d%H%M%S%f')}.{key[:8]}"
        ref = Ref("Event", pool.namespace, name)
        await self._cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": pool.namespace},
                "involvedObject": {
                    "apiVersion": naming.API_VERSION,
                    "kind": naming.KIND,
                    "namespace": pool.namespace,
                    "name": pool.name,
                    "uid": uid,
                },
                "type": str(event.type),
                "reason": str(event.reason),
                "message": event.message[:MAX_MESSAGE_CHARACTERS],
                "source": {"component": naming.FIELD_MANAGER},
                "reportingComponent": f"{naming.GROUP}/operator",
                "reportingInstance": self._identity,
                "firstTimestamp": format_time(now),
                "lastTimestamp": format_time(now),
                "count": 1,
            }
        )
        self._told[key] = _Told(ref, 1)
        while len(self._told) > MAX_REMEMBERED_EVENTS:
            self._told.popitem(last=False)


def together(events: Iterable[Event]) -> tuple[Event, ...]:
    """One Event for each reason: the builders of a large pool are no hundred Events."""
    messages: dict[tuple[EventType, Reason | EventReason], list[str]] = {}
    for event in events:
        messages.setdefault((event.type, event.reason), []).append(event.message)
    return tuple(Event(*what, " ".join(said)) for what, said in messages.items())
