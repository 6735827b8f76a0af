"""A mirror of the objects of one kind: listed once, and kept up to date by a watch.

For whoever has to answer at once and cannot ask the API server first. Not for the operator's
passes, which act on the truth: a mirror is behind by some milliseconds, and while the API server is
away it shows what was. Knows no Kopf.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final

from buildpool.core.errors import KubernetesError, RefusedError, UnavailableError
from buildpool.core.objects.refs import JSON, Object
from buildpool.kube.cluster import Cluster

SERVER_TIMEOUT: Final = 25
"""Seconds after which the API server ends a watch, which then goes on where it was. A connection
that says nothing for longer is dead (see ``handlers.registry``)."""
INACTIVITY: Final = 30.0
PAUSES: Final = (0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries; the last one for ever."""
log: Final = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""


class Informer:
    """The objects of one kind with some labels, in one namespace or in all. For one event loop."""

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        namespace: str,
        labels: Mapping[str, str],
        on_change: Callable[[Object], None],
    ) -> None:
        """``namespace``: empty for all. ``on_change`` gets each object that came, changed or went.

        It is called after ``objects`` has changed.
        """
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        """Whether all there is has been seen once."""
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._labels = dict(labels)
        self._on_change = on_change
        self._version: str | None = None
        """The state that ``objects`` shows; None where it has to be listed."""

    def covers(self, namespace: str) -> bool:
        """Whether objects of this namespace are among those that are mirrored."""
        return self._namespace in ("", namespace)

    async def run(self) -> None:
        """Goes on for ever."""
        failures = 0
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._follow()
                failures = 0
            except KubernetesError as error:
                if failures == 0:  # one line for an outage, not one for each try
                    log.warning("The watch of %ss is interrupted: %s", self._kind, error)
                if isinstance(error, RefusedError):
                    self._version = None
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    async def _list(self) -> None:
        version, items = await self._cluster.listed(self._kind, self._namespace, self._labels)
        self._replace(items)
        self._version = version
        self.synced.set()

    def _replace(self, items: Iterable[Object]) -> None:
        found = {_key(item): item for item in items}
        gone = [obj for key, obj in self.objects.items() if key not in found]
        new = [obj for key, obj in found.items() if self.objects.get(key) != obj]
        self.objects = found
        for obj in (*gone, *new):
            self._on_change(obj)

    async def _follow(self) -> None:
        """One watch, until the API server ends it."""
        lines = self._cluster.watched(
            self._kind,
            self._namespace,
            self._labels,
            version=self._version or "",
            duration=SERVER_TIMEOUT,
            inactivity=INACTIVITY,
        )
        async for event in _events(lines):
            self._take(event["type"], event["object"])
            if self._version is None:
                return

    def _take(self, kind: str, obj: Object) -> None:
        if kind == "ERROR":
            # 410: what we knew last is too old to go on from. Anything else: list again, too.
            self._version = None
            if obj.get("code") != 410:
                raise UnavailableError(f"a watch failed: {obj.get('message')}")
            return
        self._version = obj["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self.objects.pop(_key(obj), None)
        else:
            self.objects[_key(obj)] = obj
        self._on_change(obj)


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[JSON]:
    """One event a line, of any length."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield json.loads(line)


def _key(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata["namespace"], metadata["name"]
