"""A pool's finalizer, in a cluster that has changed meanwhile, or not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from buildpool.controller.pool_writes import put_finalizer, remove_finalizer
from buildpool.core import naming
from buildpool.core.errors import ConflictError, NotFoundError
from buildpool.core.objects.refs import JSON, Object, Ref
from buildpool.kube.cluster import Cluster

FOREIGN = "foregroundDeletion"


class Patched:
    """A cluster that notes what is patched, or answers with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.changes: list[Any] = []

    async def patch(self, ref: Ref, change: JSON) -> None:
        assert ref == Ref(naming.KIND, "builds", "ci")
        self.changes.append(change["metadata"])
        if self.error is not None:
            raise self.error

    @property
    def api(self) -> Cluster:
        return cast("Cluster", self)


def a_raw(*finalizers: str) -> Object:
    metadata: Object = {"namespace": "builds", "name": "ci", "resourceVersion": "7"}
    return {"metadata": metadata | ({"finalizers": list(finalizers)} if finalizers else {})}


@pytest.mark.parametrize("others", [(), (FOREIGN,)])
async def test_the_finalizer_is_put_on_beside_those_of_others(others: tuple[str, ...]) -> None:
    cluster = Patched()
    assert await put_finalizer(cluster.api, a_raw(*others))
    assert cluster.changes == [
        {"finalizers": [*others, naming.FINALIZER], "resourceVersion": "7"},
    ]


async def test_a_pool_that_has_it_costs_no_write() -> None:
    cluster = Patched()
    assert await put_finalizer(cluster.api, a_raw(FOREIGN, naming.FINALIZER))
    assert cluster.changes == []


@pytest.mark.parametrize("error", [ConflictError("changed"), NotFoundError("gone")])
async def test_nothing_is_made_of_a_pool_that_has_changed_before_it_was_held(
    error: Exception,
) -> None:
    assert not await put_finalizer(Patched(error).api, a_raw())


async def test_only_our_finalizer_is_taken_off_and_only_where_it_is() -> None:
    cluster = Patched()
    await remove_finalizer(cluster.api, a_raw(FOREIGN))
    assert cluster.changes == []
    await remove_finalizer(cluster.api, a_raw(FOREIGN, naming.FINALIZER))
    assert cluster.changes == [{"finalizers": [FOREIGN], "resourceVersion": "7"}]
