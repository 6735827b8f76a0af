"""The build log, and what is counted of builds."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Sample

from buildpool.cli.docs import described
from buildpool.core.naming import PoolKey
from buildpool.core.routing.sharing import Share
from buildpool.core.routing.values import Target
from buildpool.gateway.metrics import MAX_STEPS, GatewayMetrics
from buildpool.gateway.reports.builds import BuildLog, BuildRecord, log_build
from daemons import until
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
        metrics.built(pool, "ann", "succeeded", timedelta(seconds=1))
        metrics.stepped(pool, "ann", cached=1, steps=2)
        metrics.placed(pool, True)
        metrics.shared(pool, Share(imports=("a",), exports=("b",)))
        metrics.refused(pool, "UNAVAILABLE", client="ann")
    everything = {name for name, _, labels, _ in described(metrics) if "pool" in labels}
    shown = {s.name.removesuffix("_count") for s in samples_of(metrics) if "pool" in s.labels}
    assert everything <= shown
    metrics.forget(POOL)
    found = {
        sample.labels["pool"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "pool" in sample.labels
    }
    assert found == {"other"}


def samples_of(metrics: GatewayMetrics) -> list[Sample]:
    return [sample for family in metrics.registry.collect() for sample in family.samples]


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float | None:
    where = {"namespace": "builds", "pool": "ci", "client": "ann", **labels}
    return metrics.registry.get_sample_value(f"buildpool_gateway_{name}", where)


async def test_how_long_a_build_ran_is_counted_at_its_end_and_its_steps_once_they_are_known() -> (
    None
):
    metrics, known = GatewayMetrics(), asyncio.Event()

    async def complete(build: BuildRecord) -> None:
        await known.wait()
        build.steps = (3, 4)

    build_log = BuildLog(metrics, complete=complete)
    build = a_build(status="0")
    build_log.open(build)
    build_log.close(build, now=NOW + timedelta(seconds=40))
    assert value(metrics, "build_seconds_sum", result="succeeded") == 40
    assert value(metrics, "build_seconds_bucket", result="succeeded", le="30.0") == 0
    assert value(metrics, "build_seconds_bucket", result="succeeded", le="60.0") == 1
    assert value(metrics, "steps_total", what="run") is None
    known.set()
    await until(lambda: value(metrics, "steps_total", what="run") == 1, "its steps are counted")
    assert value(metrics, "steps_total", what="cached") == 3


async def test_the_builds_that_clients_make_for_themselves_are_not_counted() -> None:
    metrics = GatewayMetrics()
    build_log = BuildLog(metrics, complete=nothing)
    build_log.close(a_build(is_internal=True, status="0"), now=NOW)
    assert [sample for sample in samples_of(metrics) if "client" in sample.labels] == []


def test_a_clock_that_was_set_back_makes_no_build_take_less_than_no_time() -> None:
    metrics = GatewayMetrics()
    metrics.built(POOL, "ann", "failed", timedelta(seconds=-5))
    assert value(metrics, "build_seconds_sum", result="failed") == 0


def test_steps_that_become_known_after_their_pool_is_gone_show_nothing_of_it() -> None:
    metrics = GatewayMetrics()
    metrics.built(POOL, "ann", "succeeded", timedelta(0))
    metrics.forget(POOL)
    metrics.stepped(POOL, "ann", cached=1, steps=2)
    assert value(metrics, "steps_total", what="run") is None


@given(cached=st.integers(0, 2**64 - 1), steps=st.integers(0, 2**64 - 1))
def test_a_daemon_may_say_any_numbers_of_steps(cached: int, steps: int) -> None:
    metrics = GatewayMetrics()
    metrics.built(POOL, "ann", "succeeded", timedelta(0))
    metrics.stepped(POOL, "ann", cached=cached, steps=steps)
    counted = [value(metrics, "steps_total", what=what) or 0 for what in ("cached", "run")]
    assert sum(counted) == min(steps, MAX_STEPS)
    assert min(counted) >= 0
