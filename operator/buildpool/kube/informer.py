"""A mirror of the objects of one kind: listed once, and kept up to date by a watch.

For whoever has to answer at once and cannot ask the API server first. Not for the operator's
passes, which act on the truth: a mirror is behind by some milliseconds, and while the API server is
away it shows what was. Knows no Kopf.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final

from buildpool.core import pauses
from buildpool.core.errors import KubernetesError, RefusedError, UnavailableError
from buildpool.core.objects.refs import JSON, Object
from buildpool.kube.cluster import Cluster

SERVER_TIMEOUT_SECONDS: Final = 25
"""Seconds after which the API server ends a watch, which then goes on where it was. A connection
that says nothing for longer is dead (see ``handlers.registry``)."""
INACTIVITY_SECONDS: Final = 30.0
FIRST_RETRY_SECONDS: Final = 0.5
"""Seconds from a failure to the next try; doubled while it fails."""
LAST_RETRY_SECONDS: Final = 5.0
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
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``namespace``: empty for all. ``on_change`` gets each object that came, changed or went.

        It is called after ``objects`` has changed. Should it fail, it is called with the next one.
        ``chance`` gives numbers from 0 up to 1, by which pauses are spread.
        """
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        """Whether all there is has been seen once."""
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._labels = dict(labels)
        self._on_change = on_change
        self._chance = chance
        self._version: str | None = None
        """The state that ``objects`` shows; None where it has to be listed."""

    def covers(self, namespace: str) -> bool:
        """Whether objects of this namespace are among those that are mirrored."""
        return self._namespace in ("", namespace)

    async def run(self) -> None:
        """Goes on for ever."""
        failures, clock = 0, asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                if self._version is None:
                    await self._list()
                await self._follow()
                failures = 0
                if clock() < started + FIRST_RETRY_SECONDS:
                    await self._pause(FIRST_RETRY_SECONDS)
            except Exception as error:
                is_known = isinstance(error, KubernetesError)
                if failures == 0:  # one line for an outage, not one for each try
                    told = f"The watch of {self._kind}s is interrupted: {error or type(error)}"
                    log.warning(told, exc_info=None if is_known else error)
                if isinstance(error, RefusedError) or not is_known:
                    self._version = None
                failures += 1
                await self._pause(
                    pauses.growing(failures, first=FIRST_RETRY_SECONDS, last=LAST_RETRY_SECONDS)
                )

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(pauses.spread(seconds, chance=self._chance()))

    async def _list(self) -> None:
        version, items = await self._cluster.listed(self._kind, self._namespace, self._labels)
        self._replace(items)
        self._version = version
        self.synced.set()

    def _replace(self, items: Iterable[Object]) -> None:
        found = {key: item for item in items if (key := _key(item)) is not None}
        gone = [obj for key, obj in self.objects.items() if key not in found]
        new = [obj for key, obj in found.items() if self.objects.get(key) != obj]
        self.objects = found
        for obj in (*gone, *new):
            self._tell(obj)

    def _tell(self, obj: Object) -> None:
        try:
            self._on_change(obj)
        except Exception:
            log.exception("A %s could not be taken note of; the others are.", self._kind)

    async def _follow(self) -> None:
        """One watch, until the API server ends it."""
        lines = self._cluster.watched(
            self._kind,
            self._namespace,
            self._labels,
            version=self._version or "",
            duration=SERVER_TIMEOUT_SECONDS,
            inactivity=INACTIVITY_SECONDS,
        )
        async for event in _events(lines):
            match event:
                case {"type": str(kind), "object": dict(obj)}:
                    self._take(kind, obj)
                case _:
                    self._take("ERROR", {"message": "it says what is no event"})
            if self._version is None:
                return

    def _take(self, kind: str, obj: Object) -> None:
        if kind == "ERROR":
            # 410: what we knew last is too old to go on from. Anything else: list again, too.
            self._version = None
            if obj.get("code") != 410:
                raise UnavailableError(f"a watch failed: {obj.get('message')}")
            return
        match obj.get("metadata"):
            case {"resourceVersion": str(version)}:
                self._version = version
        key = _key(obj)
        if kind == "BOOKMARK" or key is None:
            return
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        self._tell(obj)


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[JSON]:
    """One event a line, of any length."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield _read(line)


def _read(line: bytes) -> JSON:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _key(obj: JSON) -> Key | None:
    match obj:
        case {"metadata": {"namespace": str(namespace), "name": str(name)}}:
            return namespace, name
    return None
