"""What wakes a pool, and that no object of anybody's is a reason to fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.controller.wakeups import Wakeups
from buildpool.core import naming
from buildpool.core.naming import PoolKey
from buildpool.manager.handlers import child_changed, kopf_settings, pool_changed
from samples import any_json

CI = PoolKey("builds", "ci")
a_kind = st.sampled_from(["ADDED", "MODIFIED", "DELETED", None])


def a_memo() -> Any:
    started: list[PoolKey] = []
    swept: list[PoolKey] = []
    return SimpleNamespace(
        wakeups=Wakeups(),
        asked={},
        orphan_sweeper=SimpleNamespace(ask=swept.append, asks=swept),
        loop=SimpleNamespace(start=started.append, started=started),
    )


async def child(labels: Any, kind: str | None = "MODIFIED") -> bool:
    """Whether the pool CI is woken by a change of an object with these labels."""
    memo = a_memo()
    flag = memo.wakeups.open(CI)
    event: Any = {"type": kind, "object": {}}
    await child_changed(event=event, namespace="builds", labels=labels, memo=memo)
    return flag.is_set()


async def test_an_object_wakes_its_pool_but_not_when_it_is_only_listed() -> None:
    assert await child({naming.LABEL_POOL: "ci"})
    assert await child({naming.LABEL_POOL: "ci"}, "DELETED")
    assert not await child({naming.LABEL_POOL: "ci"}, None)


@pytest.mark.parametrize("labels", [{}, {naming.LABEL_POOL: None}, {naming.LABEL_POOL: ["ci"]}])
async def test_an_object_that_does_not_say_whose_it_is_wakes_nobody(labels: Any) -> None:
    assert not await child(labels)


@given(st.dictionaries(st.just(naming.LABEL_POOL) | st.text(), any_json), a_kind)
async def test_no_label_is_a_reason_to_fail(labels: dict[str, Any], kind: str | None) -> None:
    await child(labels, kind)


@given(
    st.dictionaries(st.sampled_from(["generation", "x"]), any_json),
    st.dictionaries(st.sampled_from(["gateways", "conditions"]), any_json),
    a_kind,
)
async def test_no_pool_is_a_reason_to_fail(
    metadata: dict[str, Any], status: dict[str, Any], kind: str | None
) -> None:
    await changed(a_memo(), kind, metadata, status)


async def changed(
    memo: Any, kind: str | None, metadata: dict[str, Any], status: dict[str, Any] | None = None
) -> None:
    """An event of the pool CI."""
    body = kopf.Body({"metadata": metadata, "status": status or {}})  # type: ignore[typeddict-item]
    await pool_changed(
        event={"type": kind, "object": {}},  # type: ignore[typeddict-item]
        namespace="builds",
        name="ci",
        uid="1",
        meta=body.meta,
        status=body.status,
        memo=memo,
    )


LEAVING = {"generation": 2, "deletionTimestamp": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize("metadata", [{"generation": 1}, LEAVING], ids=["living", "leaving"])
@pytest.mark.parametrize("kind", [None, "ADDED", "MODIFIED"])
async def test_a_pool_is_tended_from_when_it_is_seen_one_that_is_deleted_too(
    kind: str | None, metadata: dict[str, Any]
) -> None:
    memo = a_memo()
    await changed(memo, kind, metadata)
    assert memo.loop.started == [CI]


async def test_a_deletion_wakes_and_the_end_is_looked_at_and_starts_nothing() -> None:
    memo = a_memo()
    flag = memo.wakeups.open(CI)
    await changed(memo, "ADDED", {"generation": 1})
    for kind in ("MODIFIED", "DELETED"):
        flag.clear()
        await changed(memo, kind, LEAVING)
        assert flag.is_set(), kind
    assert memo.loop.started == [CI, CI]
    assert memo.orphan_sweeper.asks == [CI]


def test_kopf_does_not_take_our_finalizer_for_its_own() -> None:
    assert kopf_settings().persistence.finalizer != naming.FINALIZER
