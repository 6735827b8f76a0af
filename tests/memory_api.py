"""The API server over a cluster in memory: what the controller asks of ``kube.cluster.Cluster``.

So that the controller's own reading and writing is run, and what it forgets to read is missed. It
never has to wait. More than an API server does, it fails where a plan removes or marks what is not
there: the plan was made from what was seen just now.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from buildpool.core.errors import ConflictError
from buildpool.core.objects.refs import JSON, Object, Ref, ref_of

if TYPE_CHECKING:
    from memory_cluster import MemoryCluster

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs what never has to wait; beside an event loop, too."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class MemoryApi:
    """Reads copies, and writes to the cluster."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster

    def _all(self) -> Iterable[Object]:
        return (*self._cluster.objects.values(), *self._cluster.pods.values())

    def _find(self, ref: Ref) -> Object | None:
        pods = self._cluster.pods.values()
        if ref.kind == "Pod":
            return next((pod for pod in pods if ref_of(pod) == ref), None)
        return self._cluster.objects.get(ref)

    def _metadata_of(self, ref: Ref, uid: str) -> Object:
        obj = self._find(ref)
        assert obj is not None, f"{ref} is not there"
        metadata: Object = obj["metadata"]
        assert metadata["uid"] == uid, f"{ref} is another one of the same name"
        return metadata

    async def get(self, ref: Ref) -> Object | None:
        """The object, or None."""
        return copy.deepcopy(self._find(ref))

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        """The objects of a kind with these labels."""
        return [
            copy.deepcopy(obj)
            for obj in self._all()
            if ref_of(obj)[:2] == (kind, namespace)
            and labels.items() <= obj["metadata"].get("labels", {}).items()
        ]

    async def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Stores it, merged with what is there; or says only what would be stored."""
        store = self._cluster.tried if dry_run else self._cluster.store
        return copy.deepcopy(store(obj))

    async def patch(self, ref: Ref, change: JSON) -> None:
        """Merges metadata, as marks do."""
        entries = dict(change["metadata"])
        metadata = self._metadata_of(ref, entries.pop("uid"))
        for kind, changed in entries.items():
            merged = {**metadata.get(kind, {}), **changed}
            metadata[kind] = {key: value for key, value in merged.items() if value is not None}
        metadata["resourceVersion"] = self._cluster.next_version()

    async def delete(self, ref: Ref, *, uid: str, version: str | None = None) -> None:
        """Removes it, if it is in this state."""
        metadata = self._metadata_of(ref, uid)
        if version not in (None, metadata["resourceVersion"]):
            raise ConflictError("it has changed")
        self._cluster.remove(ref)
