"""What Envoy is answered about requests, message by message, without an Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from google.protobuf import struct_pb2

from buildpool.buildkit import protobuf
from buildpool.buildkit.history import METHOD as LISTEN
from buildpool.buildkit.history_requests import MAX_FILTERS
from buildpool.buildkit.methods import BRIDGE, CONTENT, CONTROL, TRACES
from buildpool.buildkit.solve_requests import (
    MAX_MESSAGE_BYTES,
    Solve,
    frame,
    read_solve,
    unframe,
)
from buildpool.core.api import Inject
from buildpool.core.api.brief import CacheBrief, ClientBrief
from buildpool.core.routing.sharing import Share
from buildpool.gateway.ext_proc.bodies import with_share, with_shared_imports
from buildpool.gateway.ext_proc.calls import read_call
from buildpool.gateway.ext_proc.processor import Processor
from buildpool.gateway.ext_proc.records import MAX_QUESTION_BYTES, MAX_QUESTIONS
from buildpool.gateway.ext_proc.traits import traits_of
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.cache_memory import CacheMemory
from buildpool.gateway.pools.messages import POOL_BYTES
from buildpool.gateway.pools.records import BuildRecords
from buildpool.gateway.pools.tickets import Tickets
from buildpool.gateway.reports.builds import BuildLog, BuildRecord
from buildpool.gateway.reports.traces import Traces
from buildpool.gateway.slots.refusals import Unreadable
from daemons import until
from samples import NOW
from unit.gateway.pools_lab import ANN, BOB, PoolsLab
from unit.gateway.requests import a_request
from unit.gateway.xds.configs import a_config

CACHE = CacheBrief(location="r.example/cache", architecture="amd64")
SESSION, SOLVE, STATUS = f"{CONTROL}Session", f"{CONTROL}Solve", f"{CONTROL}Status"
EVE = "buildpool://eve"
"""She may only import."""
PEER = {ANN: "127.0.0.1:1", BOB: "127.0.0.1:2", EVE: "127.0.0.1:3"}
MANAGED = CacheBrief(location="ci-cache.builds.svc:5000", architecture="amd64")


class Conversation:
    """What Envoy and the processor say about one request."""

    def __init__(self, processor: Processor, request: ext_proc.ProcessingRequest) -> None:
        self._messages: asyncio.Queue[ext_proc.ProcessingRequest] = asyncio.Queue()
        self._messages.put_nowait(request)
        self._answers = processor.Process(self._read(), None)

    async def _read(self) -> AsyncIterator[ext_proc.ProcessingRequest]:
        while True:
            yield await self._messages.get()

    async def answer(self) -> ext_proc.ProcessingResponse:
        """The next answer."""
        async with asyncio.timeout(5):
            return await anext(self._answers)

    async def answer_to(self, message: bytes) -> ext_proc.ProcessingResponse:
        """The answer to the message of the request."""
        body = ext_proc.HttpBody(body=frame(message), end_of_stream=True)
        self._messages.put_nowait(ext_proc.ProcessingRequest(request_body=body))
        return await self.answer()

    async def ends_well(self) -> None:
        """The builder answers."""
        headers = ext_proc.HttpTrailers()
        headers.trailers.headers.add(key="grpc-status", raw_value=b"0")
        self._messages.put_nowait(ext_proc.ProcessingRequest(response_trailers=headers))
        await self.answer()

    async def end(self) -> None:
        await self._answers.aclose()


async def nothing(_: BuildRecord) -> None:
    return


class ProcessorLab:
    """A processor, and a pool with two clients and a shared cache."""

    def __init__(self, cache: CacheBrief | None = CACHE) -> None:
        clients = tuple(
            ClientBrief(identity=identity, name=name, inject=inject, may_export=may_export)
            for identity, name, inject, may_export in (
                (ANN, "ann", Inject.FULL, True),
                (BOB, "bob", Inject.FULL, True),
                (EVE, "eve", Inject.IMPORT, False),
            )
        )
        self.cluster = PoolsLab(a_config(clients=clients, cache=cache, slots=9))
        self.cluster.has_builder = True
        metrics = GatewayMetrics()
        self.tickets = Tickets()
        self.processor = Processor(
            self.cluster.pools,
            BuildLog(metrics, complete=nothing),
            metrics,
            clock=lambda: NOW,
            tickets=self.tickets,
            traces=Traces(),
        )
        self._open: list[Conversation] = []

    @property
    def requests(self) -> tuple[int, int]:
        """How many wait, and how many go on."""
        (served,) = self.cluster.pools.each()
        return served.bounds.waiting, served.bounds.going_on

    def asks(self, identity: str, path: str, **how: Any) -> Conversation:
        """A request of a client, on its one connection."""
        number = list(PEER).index(identity) if identity in PEER else 7
        request = a_request(path, identity=identity, number=number, **how)
        self._open.append(Conversation(self.processor, request))
        return self._open[-1]

    async def builds(self, identity: str) -> None:
        """A client begins, as all do: it gets a slot."""
        await self.asks(identity, f"{CONTROL}ListWorkers").answer()

    async def opens(self, identity: str, session: str, context: str) -> Conversation:
        """A session of a client; begun, and so known."""
        headers = {"x-docker-expose-session-uuid": session} if session else {}
        conversation = self.asks(
            identity, SESSION, **headers, **{"x-docker-expose-session-sharedkey": context}
        )
        await conversation.answer()
        return conversation

    async def context_of(self, identity: str, session: str) -> str:
        """The context of a solve which says nothing of itself but its session."""
        (served,) = self.cluster.pools.each()
        call = read_call(a_request(SOLVE, identity=identity))
        solve = read_solve(protobuf.field(5, session.encode()))
        return (await traits_of(call, served, "", solve)).context

    async def added_to(self, identity: str, *parts: bytes) -> Solve:
        """A solve as it goes on, which has ended well."""
        solve = self.asks(identity, SOLVE)
        await solve.answer()
        message = b"".join((protobuf.field(1, identity.encode()), *parts))
        answer = await solve.answer_to(message)
        changed = answer.request_body.response.body_mutation.body
        await solve.ends_well()
        await solve.end()
        return read_solve(unframe(changed) if changed else message)

    @property
    def caches(self) -> CacheMemory:
        """What is remembered of the shared caches of the pool."""
        return self.cluster.pools.each()[0].caches

    async def stop(self) -> None:
        for conversation in self._open:
            await conversation.end()


@asynccontextmanager
async def a_processor(cache: CacheBrief | None = CACHE) -> AsyncIterator[ProcessorLab]:
    lab = ProcessorLab(cache)
    try:
        yield lab
    finally:
        await lab.stop()


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session waits for no solve."""
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.01)
    return


pytestmark = pytest.mark.usefixtures("_no_patience")


async def test_a_build_is_known_by_the_context_of_its_session() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        await lab.opens(ANN, "session", "app")
        assert await lab.context_of(ANN, "session") == "app"


async def test_a_session_may_open_a_moment_later_than_its_solve() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        solving = asyncio.create_task(lab.context_of(ANN, "session"))
        await asyncio.sleep(0)
        await lab.opens(ANN, "session", "app")
        assert await solving == "app"


async def test_a_session_without_an_id_is_of_no_build() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        await lab.builds(BOB)
        await lab.opens(BOB, "", "what bob chose")
        assert await lab.context_of(ANN, "") == ""


async def test_the_session_of_another_client_says_nothing_though_it_has_the_same_id() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        await lab.builds(BOB)
        await lab.opens(ANN, "session", "app")
        theirs = await lab.opens(BOB, "session", "what bob chose")
        assert await lab.context_of(ANN, "session") == "app"
        await theirs.end()
        assert lab.cluster.pools.each()[0].contexts.known(ANN, "session") == "app"


async def test_the_end_of_a_session_is_none_of_another_with_its_id() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        first = await lab.opens(ANN, "session", "app")
        await lab.opens(ANN, "session", "app")
        await first.end()
        assert await lab.context_of(ANN, "session") == "app"


@pytest.mark.parametrize("is_internal", [False, True])
async def test_the_question_that_buildx_asks_first_waits_for_no_session(
    is_internal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked before each build. A build that says nothing of itself waits for its session."""
    monkeypatch.setattr("buildpool.gateway.ext_proc.traits.CONTEXT_SECONDS", 60.0)
    async with a_processor() as lab:
        await lab.builds(ANN)
        solve = lab.asks(ANN, SOLVE)
        await solve.answer()
        internal = bytes((11 << 3, 1)) if is_internal else b""
        message = protobuf.field(1, b"ref") + protobuf.field(5, b"session") + internal
        answer = asyncio.create_task(solve.answer_to(message))
        if not is_internal:
            await asyncio.sleep(0.1)
            assert not answer.done()
            await lab.opens(ANN, "session", "app")
        assert (await answer).HasField("request_body")


@pytest.mark.parametrize("solves_first", [False, True])
async def test_a_large_solve_and_the_question_about_it_go_to_one_builder(
    solves_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.slots.locator.TOGETHER_SECONDS", 0.01)
    async with a_processor() as lab:
        await lab.builds(ANN)
        paths = (SOLVE, STATUS) if solves_first else (STATUS, SOLVE)
        asked = {path: lab.asks(ANN, path) for path in paths}
        for each in asked.values():
            await each.answer()
        told = asyncio.create_task(asked[STATUS].answer_to(protobuf.field(1, b"ref")))
        await asyncio.sleep(0.1)
        assert not told.done(), "its build has come, and has no builder yet"
        solved = await asked[SOLVE].answer_to(protobuf.field(1, b"ref"))
        assert (await told).dynamic_metadata == solved.dynamic_metadata != struct_pb2.Struct()


async def test_a_build_that_has_ended_is_told_of_on_a_connection_that_said_hello(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As ``docker buildx history logs`` asks; not even a solve that was refused is waited for."""
    monkeypatch.setattr("buildpool.gateway.slots.locator.TOGETHER_SECONDS", 0.01)
    async with a_processor() as lab:
        await lab.builds(ANN)
        refused = lab.asks(ANN, SOLVE)
        await refused.answer()
        await refused.answer_to(GARBAGE)
        status = lab.asks(ANN, STATUS)
        await status.answer()
        answer = await status.answer_to(protobuf.field(1, b"ended"))
        assert answer.dynamic_metadata != struct_pb2.Struct()


async def test_no_more_solves_are_read_at_once_than_there_is_room_for_and_all_get_their_turn() -> (
    None
):
    """Each client alone may read four: they would fill the memory of the router."""
    async with a_processor() as lab:
        solves = []
        for client in (ANN, BOB):
            await lab.builds(client)
            solves += [lab.asks(client, SOLVE) for _ in range(4)]
        asked = [asyncio.create_task(solve.answer()) for solve in solves]
        room = POOL_BYTES // MAX_MESSAGE_BYTES
        read = lambda: sum(task.done() for task in asked)  # noqa: E731
        await until(lambda: read() >= room, "what there is room for is read")
        await asyncio.sleep(0.1)
        assert read() == room
        left = list(range(len(solves)))
        while left:
            ready = next(number for number in left if asked[number].done())
            left.remove(ready)
            await solves[ready].answer_to(protobuf.field(1, f"ref-{ready}".encode()))
            await solves[ready].ends_well()
            if left:
                waiting = [asked[number] for number in left]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


async def test_a_request_goes_on_once_its_connection_has_a_slot_and_only_then() -> None:
    async with a_processor() as lab:
        await lab.asks(ANN, f"{CONTROL}DiskUsage").answer()
        assert lab.requests == (1, 0)
        solve = lab.asks(ANN, SOLVE)
        await solve.answer()
        assert lab.requests == (1, 1)
        await lab.asks(ANN, f"{CONTROL}DiskUsage").answer()
        assert lab.requests == (1, 2)


GARBAGE = b"\x0f"


@pytest.mark.parametrize(
    ("status", "path", "how", "message"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, SOLVE, {"identity": "buildpool://mallory"}, None),
        (grpc.StatusCode.UNAVAILABLE, SOLVE, {"pool": "builds/none"}, None),
        (grpc.StatusCode.INVALID_ARGUMENT, SOLVE, {}, GARBAGE),
        (grpc.StatusCode.INVALID_ARGUMENT, STATUS, {}, GARBAGE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, STATUS, {}, bytes(MAX_QUESTION_BYTES)),
    ],
)
async def test_what_is_refused_ends_with_the_status_of_its_refusal(
    status: grpc.StatusCode, path: str, how: dict[str, str], message: bytes | None
) -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        request = lab.asks(how.pop("identity", ANN), path, **how)
        answer = await request.answer()
        if message is not None:
            answer = await request.answer_to(message)
        assert answer.immediate_response.grpc_status.status == status.value[0]
        assert answer.immediate_response.body


async def test_a_frontend_that_is_no_text_is_refused_before_anything_begins() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        await lab.opens(ANN, "session", "app")
        solve = lab.asks(ANN, SOLVE)
        await solve.answer()
        message = protobuf.field(1, b"ref") + protobuf.field(2, b"x") + b"\x30\x01"
        answer = await solve.answer_to(message + protobuf.field(5, b"session"))
        status = answer.immediate_response.grpc_status.status
        assert status == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert lab.cluster.pools.each()[0].scheduler.connections.owner_of("ref") is None


def test_what_cannot_be_extended_is_refused() -> None:
    solve = replace(read_solve(b""), takes_imports_directly=True)
    with pytest.raises(Unreadable):
        with_share(GARBAGE, solve, Share(imports=("r.example/cache/app",)))
    with pytest.raises(Unreadable):
        with_shared_imports(GARBAGE, ["r.example/cache/app"])


async def test_garbage_about_a_part_of_a_build_is_refused() -> None:
    async with a_processor() as lab:
        await lab.builds(ANN)
        build = lab.asks(ANN, SOLVE)
        await build.answer()
        await build.answer_to(protobuf.field(1, b"ref"))
        about = {"buildkit-controlapi-buildid": "ref"}
        part = lab.asks(ANN, f"{BRIDGE}Solve", **about)
        await part.answer()
        answer = await part.answer_to(GARBAGE)
        status = answer.immediate_response.grpc_status.status
        assert status == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def a_build(**attributes: str) -> bytes:
    """What a solve of one project says of itself; it needs no frontend of the client."""
    told = {name.replace("__", ":"): value for name, value in attributes.items()}
    source = {"vcs:source": "https://github.com/acme/app.git"}
    return protobuf.field(6, b"dockerfile.v0") + protobuf.map_fields(7, source | told)


async def test_each_variant_of_a_bake_exports_a_cache_of_its_own_and_finds_it() -> None:
    cache = CACHE.model_copy(update={"export_interval": timedelta(minutes=1)})
    async with a_processor(cache) as lab:
        await lab.builds(ANN)
        builds = [a_build(**{"build-arg__V": version}) for version in "123"]
        builds.append(a_build(platform="linux/arm64"))
        builds.append(a_build())
        first = [await lab.added_to(ANN, build) for build in builds]
        exports = [[entry.ref for entry in each.exports] for each in first]
        own = [each[0] for each in exports]
        assert len(set(own)) == len(builds)
        assert [len(each) for each in exports] == [2, 1, 1, 1, 1], "one exports what all share"
        again = [await lab.added_to(ANN, build) for build in builds]
        assert [each.imports[0].ref for each in again] == own
        assert not any(each.exports for each in again), "each within its own interval"
        guest = [await lab.added_to(EVE, build) for build in builds]
        assert [each.imports[0].ref for each in guest] == own


async def test_a_build_that_fails_leaves_its_exports_to_the_next_one() -> None:
    cache = CACHE.model_copy(update={"export_interval": timedelta(minutes=1)})
    async with a_processor(cache) as lab:
        await lab.builds(ANN)
        solve = lab.asks(ANN, SOLVE)
        await solve.answer()
        message = protobuf.field(1, b"ref") + a_build(**{"build-arg__V": "1"})
        await solve.answer_to(message)
        assert len(lab.caches.exported) == 2
        await solve.end()
        assert not lab.caches.exported


@pytest.mark.parametrize(
    "exact",
    [
        protobuf.map_fields(7, {"attest:provenance": "mode=max"}),
        protobuf.field(
            13, protobuf.field(1, b"oci") + protobuf.map_fields(2, {"rewrite-timestamp": "true"})
        ),
    ],
    ids=["full provenance", "rewritten timestamps"],
)
async def test_a_build_whose_result_an_import_would_change_imports_only_what_it_names(
    exact: bytes,
) -> None:
    asked = json.dumps([{"Type": "registry", "Attrs": {"ref": "r.example/mine"}}])
    about = {"buildkit-controlapi-buildid": "ref"}
    async with a_processor() as lab:
        await lab.builds(ANN)
        usual = await lab.added_to(ANN, a_build())
        changed = await lab.added_to(ANN, a_build(), exact)
        assert usual.imports
        assert not changed.imports
        assert changed.exports
        own = await lab.added_to(ANN, a_build(**{"cache-imports": asked}), exact)
        assert [entry.ref for entry in own.imports] == ["r.example/mine"]
        build = lab.asks(ANN, SOLVE)
        await build.answer()
        await build.answer_to(protobuf.field(1, b"ref") + a_build() + exact)
        part = lab.asks(ANN, f"{BRIDGE}Solve", **about)
        await part.answer()
        answer = await part.answer_to(protobuf.field(2, b"dockerfile.v0"))
        assert not answer.request_body.response.body_mutation.body


async def test_a_build_that_only_its_context_names_gets_no_cache() -> None:
    """Each new machine gives its contexts another name, and would leave a cache behind."""
    async with a_processor() as lab:
        await lab.builds(ANN)
        await lab.opens(ANN, "session", "app:4f1kq2")
        added = await lab.added_to(ANN, protobuf.field(5, b"session"))
        assert not added.exports


def an_entry(kind: str, **attributes: str) -> bytes:
    """An exporter, or a cache that is exported."""
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return protobuf.field(1, kind.encode()) + protobuf.map_fields(2, named)


def writes(location: str) -> dict[str, bytes]:
    """The ways to write what others import, as solves, by what each is called."""
    reference = f"{location}/auto/victim:amd64"
    cache = an_entry("registry", ref=reference, mode="max")
    prefix = an_entry("image", push="true", dangling_name_prefix=reference)
    return {
        "Cache.Exports.Attrs ref": protobuf.field(8, protobuf.field(4, cache)),
        "Exporters.Attrs name": protobuf.field(13, an_entry("image", push="true", name=reference)),
        "Exporters.Attrs 'dangling-name-prefix'": protobuf.field(13, prefix),
        "EnableSessionExporter": bytes((14 << 3, 1)),
        "Entitlements 'security.insecure'": protobuf.field(9, b"security.insecure"),
        "field 99": protobuf.field(99, b"?"),
    }


@pytest.mark.parametrize("cache", [CACHE, MANAGED], ids=["external", "managed"])
@pytest.mark.parametrize("way", writes(""))
async def test_a_client_that_may_only_import_writes_nothing_that_others_import(
    cache: CacheBrief, way: str
) -> None:
    message = protobuf.field(1, b"ref") + writes(cache.location)[way]
    async with a_processor(cache) as lab:
        for identity in (EVE, ANN):
            await lab.builds(identity)
            solve = lab.asks(identity, SOLVE)
            await solve.answer()
            refused = (await solve.answer_to(message)).immediate_response
            if identity == EVE:
                assert refused.grpc_status.status == grpc.StatusCode.PERMISSION_DENIED.value[0]
                assert way in refused.body.decode()
                assert "inject: Full" in refused.body.decode()
            else:
                assert not refused.body
            await solve.end()


async def test_questions_about_records_hold_up_no_question_about_a_build_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A daemon that hangs is asked for seconds."""
    is_found = asyncio.Event()

    async def hangs(*_: object) -> str:
        await is_found.wait()
        return ""

    monkeypatch.setattr(BuildRecords, "holder_of", hangs)
    async with a_processor() as lab:
        reads = [lab.asks(ANN, f"{CONTENT}Read") for _ in range(MAX_QUESTIONS)]
        for each in reads:
            await each.answer()
        answers = [
            asyncio.create_task(each.answer_to(protobuf.field(1, b"sha256:"))) for each in reads
        ]
        await asyncio.sleep(0)
        assert not (await lab.asks(ANN, STATUS).answer()).immediate_response.body
        is_found.set()
        await asyncio.gather(*answers)


async def test_a_ticket_whose_request_cannot_be_read_is_kept_no_longer() -> None:
    async with a_processor() as lab:
        for message in (bytes(3), protobuf.field(4, b"ab") * (MAX_FILTERS + 1)):
            asked = lab.asks(ANN, LISTEN)
            await asked.answer()
            assert len(lab.tickets) == 1
            assert (await asked.answer_to(message)).immediate_response.body
            assert len(lab.tickets) == 0
        left = lab.asks(ANN, LISTEN)
        await left.answer()
        await left.end()
        assert len(lab.tickets) == 0


@pytest.mark.parametrize("cache", [None, MANAGED], ids=["no cache", "managed"])
async def test_a_client_that_may_only_import_changes_nothing_that_builders_keep(
    cache: CacheBrief | None,
) -> None:
    reads = {f"{CONTROL}DiskUsage", f"{CONTROL}ListenBuildHistory", f"{TRACES}Export"}
    reads |= {f"{CONTENT}{name}" for name in ("Info", "List", "ListStatuses", "Read", "Status")}
    changes = {f"{CONTROL}{name}" for name in ("Prune", "UpdateBuildHistory", "New")}
    changes |= {f"{CONTENT}{name}" for name in ("Abort", "Delete", "Update", "Write", "New")}
    async with a_processor(cache) as lab:
        for path in reads | changes:
            answer = await lab.asks(EVE, path).answer()
            status = answer.immediate_response.grpc_status.status
            denied = grpc.StatusCode.PERMISSION_DENIED.value[0]
            assert status == (denied if path in changes else 0), path
            assert not (await lab.asks(ANN, path).answer()).immediate_response.body
