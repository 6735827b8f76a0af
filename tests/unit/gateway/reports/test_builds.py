"""The build log, and what is counted of builds."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Target
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.reports.builds import BuildLog, BuildRecord, log_build
from samples import NOW

POOL, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


def a_build(pool: PoolKey = POOL, **changes: Any) -> BuildRecord:
    known = {
        "ref": "ref",
        "pool": pool,
        "client": "ann",
        "builder": Target("ci-builder-0", "uid", "10.0.0.1:1234"),
        "started": NOW,
        "waited": timedelta(seconds=2.5),
        "imports": (),
        "exports": (),
        "is_internal": False,
    }
    return BuildRecord(**known | changes)  # type: ignore[arg-type]


async def nothing(_: BuildRecord) -> None:
    return


def test_two_pools_can_have_builds_of_one_name() -> None:
    build_log = BuildLog(GatewayMetrics(), complete=nothing)
    ours, theirs = a_build(), a_build(OTHER)
    build_log.open(ours)
    build_log.open(theirs)
    assert build_log.find(POOL, "ref") is ours
    assert build_log.find(OTHER, "ref") is theirs


async def test_the_end_of_a_build_is_none_of_another_with_its_name() -> None:
    build_log = BuildLog(GatewayMetrics(), complete=nothing)
    first, second = a_build(), a_build()
    build_log.open(first)
    build_log.open(second)
    build_log.close(first, now=NOW)
    assert build_log.find(POOL, "ref") is second
    build_log.close(second, now=NOW)
    assert build_log.find(POOL, "ref") is None


def test_a_build_is_one_line_and_the_same_in_fields(caplog: pytest.LogCaptureFixture) -> None:
    build = a_build(status="0", steps=(3, 4), ended=NOW + timedelta(seconds=10))
    with caplog.at_level(logging.INFO):
        log_build(build)
    (record,) = caplog.records
    assert record.__dict__["buildRecord"] == {
        "pool": "builds/ci",
        "build": "ref",
        "client": "ann",
        "builder": "ci-builder-0",
        "waited": 2.5,
        "duration": 10,
        "result": "succeeded",
        "status": "OK",
        "cachedSteps": 3,
        "steps": 4,
    }
    assert "result=succeeded status=OK cachedSteps=3 steps=4" in record.getMessage()


def test_the_caches_of_a_build_stand_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_build(a_build(imports=("r/a:1", "r/a:2"), exports=("r/a:1",)))
    (record,) = caplog.records
    assert "imports=r/a:1,r/a:2 exports=r/a:1" in record.getMessage()


def test_a_client_that_was_removed_waits_no_more() -> None:
    metrics = GatewayMetrics()
    metrics.waiting(POOL, {"ann": 1, "bob": 2})
    metrics.waiting(POOL, {"bob": 1})
    waiting = {
        sample.labels["client"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "buildpool_gateway_waiting"
    }
    assert waiting == {"bob": 1}


def test_of_a_pool_that_is_gone_no_number_is_left() -> None:
    metrics = GatewayMetrics()
    for pool in (POOL, OTHER):
        metrics.waiting(pool, {"ann": 1})
        metrics.waited(pool, "ann", timedelta(seconds=1))
        metrics.built(pool, "ann", "succeeded")
        metrics.placed(pool, True)
        metrics.refused(pool, "UNAVAILABLE", client="ann")
    metrics.forget(POOL)
    found = {
        sample.labels["pool"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "pool" in sample.labels
    }
    assert found == {"other"}
