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
from buildpool.manager.handlers import child_changed, pool_changed
from samples import any_json

CI = PoolKey("builds", "ci")
a_kind = st.sampled_from(["ADDED", "MODIFIED", "DELETED", None])


def a_memo() -> Any:
    asks: list[None] = []
    sweeper = SimpleNamespace(ask=lambda: asks.append(None), asks=asks)
    return SimpleNamespace(wakeups=Wakeups(), asked={}, orphan_sweeper=sweeper)


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
    body = kopf.Body({"metadata": metadata, "status": status})  # type: ignore[typeddict-item]
    await pool_changed(
        event={"type": kind, "object": {}},  # type: ignore[typeddict-item]
        namespace="builds",
        name="ci",
        uid="1",
        meta=body.meta,
        status=body.status,
        memo=a_memo(),
    )
