"""The build log: each build that ends is one line, with all that is known of it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from buildpool.cli.flags import LogFormat, LogLevel, set_up_logging
from buildpool.gateway.reports import details
from daemons import until
from gateway.asking import (
    CACHE,
    HELLO,
    SOLVE,
    a_full_client,
    a_probe,
    a_solve,
    asked,
    begun,
    refusal,
)
from gateway.lab import CONTROL, Lab, PoolLab, call

Record = dict[str, Any]


@pytest.fixture
def records() -> Iterator[Callable[[], list[Record]]]:
    """The builds in the log, as the router's process writes it."""
    loggers = [logging.getLogger(name) for name in ("", "asyncio", "kopf")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    set_up_logging(LogFormat.JSON, LogLevel.INFO)
    (handler,) = set(loggers[0].handlers) - set(before[0][0])
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    handler.setStream(written)
    yield lambda: [
        line["buildRecord"]
        for line in map(json.loads, written.getvalue().splitlines())
        if "buildRecord" in line
    ]
    for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


async def the_record(lab: Lab, records: Callable[[], list[Record]]) -> Record:
    """The one line that the build log gets, without its times."""
    await lab.build_log(1)
    (record,) = records()
    assert 0 <= record.pop("waited") <= 60
    assert 0 <= record.pop("duration") <= 60
    return record


async def test_a_build_that_ended_is_one_line_with_what_its_daemon_says(
    lab: Lab, records: Callable[[], list[Record]]
) -> None:
    pool = PoolLab(cache=CACHE, clients=(a_full_client(),))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    builder.steps = {"another ref": (0, 1), "the ref": (3, 4)}
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        await call(channel, SOLVE, a_solve("the ref", source="github.com/acme/app"))
    record = await the_record(lab, records)
    # In particular no history by its ref: BuildKit would keep that record for ever.
    assert {name for name, _ in builder.asked} == {HELLO, SOLVE}
    reference = record["imports"]
    assert reference.startswith("r.example/cache/auto/github-com-acme-app-")
    assert record == {
        "pool": "builds/ci",
        "build": "the ref",
        "client": "ann",
        "builder": "ci-builder-0",
        "result": "succeeded",
        "status": "OK",
        "cachedSteps": 3,
        "steps": 4,
        "imports": reference,
        "exports": reference,
    }


async def test_the_line_says_how_long_a_build_waited_and_how_long_it_took(
    lab: Lab, records: Callable[[], list[Record]]
) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        began = time.monotonic()
        waiting = begun(channel, HELLO)
        await lab.queued(pool, 1)
        await asyncio.sleep(0.3)
        (builder,) = await lab.add_pool(pool, "ci-builder-0")
        builder.steps = {"ref": (0, 1)}
        await waiting
        waited = time.monotonic() - began
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        await asyncio.sleep(0.2)
        builder.release.set()
        await running
        # A build has ended for the router a moment after it has for its client.
        await lab.build_log(1)
        took = time.monotonic() - began - waited
    (record,) = records()
    assert 0.3 <= record["waited"] <= waited
    assert 0.2 <= record["duration"] <= took


async def test_of_what_a_daemon_does_not_say_there_is_nothing_in_the_line(
    lab: Lab, records: Callable[[], list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details, "STEPS_SECONDS", 0.3)
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.failure = "process did not complete: exit code 1"
    builder.release.set()
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        _, why = await refusal(begun(channel, SOLVE, a_solve()))
    assert why == builder.failure
    assert await the_record(lab, records) == {
        "pool": "builds/ci",
        "build": "ref",
        "client": "ann",
        "builder": "ci-builder-0",
        "result": "failed",
        "status": "UNKNOWN",
    }


async def test_a_build_that_its_client_left_has_no_status(
    lab: Lab, records: Callable[[], list[Record]]
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.steps = {"ref": (0, 1)}
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        running.cancel()
        record = await the_record(lab, records)
    assert record["result"] == "abandoned"
    assert "status" not in record


async def test_the_line_of_a_lost_build_has_what_the_cluster_says_later(
    lab: Lab, records: Callable[[], list[Record]]
) -> None:
    """Its client gets an answer at once; the line waits for the reason."""
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        builder.vanish()
        _, why = await refusal(running)
    assert why == (
        "builder ci-builder-0 of pool builds/ci has lost the connection, and nobody says why yet; "
        "build again"
    )
    await until(lambda: lab.metric("builds_total", result="lost") == 1, "it has ended")
    assert not lab.build_lines.written
    reason = "evicted: the node was low on memory"
    lab.source.troubles[f"127.0.0.1:{builder.port}"] = ("ci-builder-0", reason)
    lab.source.changed(pool.key)
    record = await the_record(lab, records)
    assert (record["result"], record["status"]) == ("lost", "UNAVAILABLE")
    assert record["trouble"] == reason


@pytest.mark.parametrize("length", [48_000, 200_000, 1_000_000, 4_000_000])
async def test_how_a_build_failed_comes_word_for_word_however_long_it_is(
    lab: Lab, records: Callable[[], list[Record]], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """BuildKit sends the whole Dockerfile; and what else is on the connection goes on."""
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.1)
    pool = PoolLab(slots=2)
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.steps = {"ref": (0, 1), "another": (0, 1)}
    builder.failure, builder.details = "exit code: 7", random.Random(length).randbytes(length)
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        session = channel.stream_stream(f"{CONTROL}Session")()
        assert await session.initial_metadata()
        failing = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        builder.release.set()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await failing
        assert (failed.value.code(), failed.value.details()) == (
            grpc.StatusCode.UNKNOWN,
            builder.failure,
        )
        assert dict(failed.value.trailing_metadata())["grpc-status-details-bin"] == builder.details
        builder.failure = ""
        assert await call(channel, SOLVE, a_solve("another"))
        assert not session.done()
        session.cancel()
    await lab.build_log(2)
    results = {record["build"]: record["result"] for record in records()}
    assert results == {"ref": "failed", "another": "succeeded"}


async def test_a_builder_that_answers_what_nobody_can_take_is_not_said_to_be_gone(
    lab: Lab, records: Callable[[], list[Record]]
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.steps = {"ref": (0, 1)}
    builder.failure, builder.details = "exit code: 7", bytes(9 << 20)
    builder.release.set()
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        _, why = await refusal(begun(channel, SOLVE, a_solve()))
    assert "is gone" not in why
    assert (await the_record(lab, records))["result"] == "failed"


async def test_the_question_that_buildx_asks_first_is_no_build(
    lab: Lab, records: Callable[[], list[Record]]
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    # Were it a build, its line would wait for nothing.
    builder.steps = {"probe": (0, 1), "the ref": (0, 1)}
    builder.release.set()
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        await call(channel, SOLVE, a_probe("probe"))
        await call(channel, HELLO)
        await call(channel, SOLVE, a_solve("the ref"))
    assert (await the_record(lab, records))["build"] == "the ref"
    assert lab.metric("builds_total") == lab.metric("placements_total") == 1
