"""How a build ends at the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Target
from buildpool.gateway.ext_proc.running import to_its_end
from buildpool.gateway.reports.builds import BuildRecord
from samples import NOW


def a_build() -> BuildRecord:
    return BuildRecord(
        ref="one",
        pool=PoolKey("builds", "ci"),
        client="anna",
        builder=Target(name="ci-builder-0", uid="uid", address="10.0.0.1:1234", is_serving=True),
        started=NOW,
        waited=timedelta(0),
        imports=(),
        exports=(),
        is_internal=False,
    )


def trailers(status: str) -> ext_proc.ProcessingRequest:
    message = ext_proc.ProcessingRequest()
    header = message.response_trailers.trailers.headers.add()
    header.key, header.raw_value = "grpc-status", status.encode()
    return message


async def forever(
    *messages: ext_proc.ProcessingRequest,
) -> AsyncIterator[ext_proc.ProcessingRequest]:
    """What Envoy says, which then keeps the conversation open."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def test_a_build_that_has_ended_is_not_cancelled_any_more() -> None:
    build, cancelled = a_build(), asyncio.Event()
    answers = to_its_end(build, forever(trailers("0")), cancelled, known=lambda _: "")
    assert (await anext(answers)).HasField("response_trailers")
    cancelled.set()
    assert [answer async for answer in answers] == []
    assert build.result == "succeeded"


async def test_a_build_that_runs_is_cancelled() -> None:
    build, cancelled = a_build(), asyncio.Event()
    cancelled.set()
    answers = [a async for a in to_its_end(build, forever(), cancelled, known=lambda _: "")]
    assert [answer.HasField("immediate_response") for answer in answers] == [True]
    assert build.result == "cancelled"
