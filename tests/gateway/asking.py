"""What clients of a pool ask for, as buildx and buildctl do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import grpc.aio
import pytest

from buildpool.buildkit import protobuf
from buildpool.core import naming
from buildpool.core.api import Inject
from buildpool.core.api.brief import CacheBrief, ClientBrief
from daemons import until
from gateway.builders import CONTROL, FakeBuilder
from gateway.lab import call
from gateway.pools import PoolLab

HELLO, SOLVE = f"{CONTROL}ListWorkers", f"{CONTROL}Solve"
CACHE = CacheBrief(location="r.example/cache", architecture="amd64")


def a_solve(ref: str = "ref", session: str = "session", source: str = "") -> bytes:
    """A request to build."""
    attributes = {"vcs:source": source} if source else {}
    return b"".join(
        (
            protobuf.field(1, ref.encode()),
            protobuf.field(5, session.encode()),
            protobuf.map_fields(7, attributes),
        )
    )


def a_probe(ref: str, source: str = "") -> bytes:
    """The internal build by which buildx asks what a builder can, before each of its builds."""
    return a_solve(ref, source=source) + bytes((11 << 3, 1))


def about(ref: str) -> dict[str, str]:
    """The headers of a request about a build that runs."""
    return {"buildkit-controlapi-buildid": ref}


def begun(channel: grpc.aio.Channel, method: str, request: bytes = b"") -> asyncio.Task[bytes]:
    """A request that goes on beside the test."""
    return asyncio.create_task(call(channel, method, request))


def times_asked(builder: FakeBuilder, method: str) -> int:
    """How often a builder was asked this."""
    return [name for name, _ in builder.asked].count(method)


async def asked(builder: FakeBuilder, method: str, times: int = 1) -> None:
    """Waits until a builder was asked this."""
    await until(lambda: times_asked(builder, method) >= times, f"{builder.name} is asked {method}")


async def refusal(work: asyncio.Task[bytes]) -> tuple[grpc.StatusCode, str]:
    """How a request failed."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await work
    return error.value.code(), error.value.details() or ""


def a_full_client(name: str = "ann", **changes: object) -> ClientBrief:
    """A client whose builds get the shared cache, to import and to export."""
    identity = naming.client_identity(PoolLab().key, name)
    return ClientBrief(identity=identity, name=name, inject=Inject.FULL).model_copy(update=changes)


async def home_of(builders: Sequence[FakeBuilder], solves: int = 1) -> FakeBuilder:
    """The builder that has begun so many solves, once it has; no other has begun any."""
    begun_on = lambda: [b for b in builders if times_asked(b, SOLVE)]  # noqa: E731
    await until(
        lambda: any(times_asked(b, SOLVE) >= solves for b in begun_on()), f"{solves} solves begin"
    )
    (home,) = begun_on()
    return home
