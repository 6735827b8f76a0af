"""Requests through a real Envoy: where they go, and what they wait for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from buildpool import naming
from buildpool.api import Inject
from buildpool.buildkit import protobuf
from buildpool.buildkit.solving import MAX_MESSAGE, read_bridge_solve, read_solve
from buildpool.routing.values import CacheBrief, ClientBrief
from gateway.lab import BRIDGE, CONTROL, FakeBuilder, Lab, PoolLab, call

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


def a_full_client(name: str = "ann", **changes: object) -> ClientBrief:
    identity = naming.client_identity(PoolLab().key, name)
    return ClientBrief(identity=identity, name=name, inject=Inject.FULL).model_copy(update=changes)


def begun(channel: grpc.aio.Channel, method: str, request: bytes = b"") -> asyncio.Task[bytes]:
    """A request that goes on beside the test."""
    return asyncio.create_task(call(channel, method, request))


async def asked(builder: FakeBuilder, method: str, times: int = 1) -> None:
    """Waits until a builder was asked this."""
    async with asyncio.timeout(10):
        while [name for name, _ in builder.asked].count(method) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def refusal(work: asyncio.Task[bytes]) -> tuple[grpc.StatusCode, str]:
    """How a request failed."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await work
    return error.value.code(), error.value.details() or ""


async def test_a_build_goes_to_a_builder_byte_by_byte(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    async with lab.connect(pool) as channel:
        assert b"ci-builder-0" in await call(channel, HELLO)
        assert b"ci-builder-0" in await call(channel, SOLVE, a_solve())
    assert builder.asked == [(HELLO, b""), (SOLVE, a_solve())]


async def test_who_finds_no_slot_waits_until_a_connection_has_ended(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    first = lab.connect(pool)
    await call(first, HELLO)
    running = begun(first, SOLVE, a_solve())
    await asked(builder, SOLVE)
    async with lab.connect(pool) as second:
        waiting = begun(second, HELLO)
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        running.cancel()
        await first.close()
        assert await waiting


async def test_who_waits_in_vain_is_told_so(lab: Lab) -> None:
    pool = PoolLab(max_wait=timedelta(seconds=1))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE)
        code, why = await refusal(begun(second, HELLO))
        builder.release.set()
        await running
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert why == "pool builds/ci: waited 1s for a slot, 1 of 1 builders busy"


async def test_a_pool_without_builders_is_waited_for(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        waiting = begun(channel, HELLO)
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        await lab.add_pool(pool, "ci-builder-0")
        assert b"ci-builder-0" in await waiting


async def test_prune_wakes_nobody(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        code, why = await refusal(begun(channel, f"{CONTROL}Prune"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert why == "pool builds/ci has no builder now; a build wakes it"


async def test_a_bake_of_linked_targets_stays_together_and_waits_for_nothing(lab: Lab) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(3)))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        solves = [begun(channel, SOLVE, a_solve(f"ref-{n}", source=f"h/p{n}")) for n in range(4)]
        (home,) = [builder for builder in builders if await _has_all(builder, 4)]
        home.release.set()
        assert {await solve for solve in solves} == {protobuf.field(1, home.name.encode())}


async def _has_all(builder: FakeBuilder, number: int) -> bool:
    try:
        async with asyncio.timeout(1):
            await asked(builder, SOLVE, number)
    except TimeoutError:
        return False
    return True


async def test_what_is_asked_about_a_build_on_another_connection_goes_where_it_runs(
    lab: Lab,
) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        solve = begun(first, SOLVE, a_solve("the ref"))
        (home,) = [builder for builder in builders if await _has_all(builder, 1)]
        about = {"buildkit-controlapi-buildid": "the ref"}
        assert home.name.encode() in await call(second, f"{BRIDGE}Return", headers=about)
        status = protobuf.field(1, b"the ref")
        assert home.name.encode() in await call(second, f"{CONTROL}Status", status)
        home.release.set()
        await solve


async def test_builds_of_one_project_go_to_one_builder_as_long_as_it_has_room(lab: Lab) -> None:
    pool = PoolLab(slots=2)
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(3)))
    for builder in builders:
        builder.release.set()
    homes = set()
    for _ in range(4):
        async with lab.connect(pool) as channel:
            await call(channel, HELLO)
            homes.add(await call(channel, SOLVE, a_solve(source="github.com/acme/app")))
    assert len(homes) == 1


async def test_the_question_that_buildx_asks_first_does_not_choose_the_builder(lab: Lab) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    for builder in builders:
        builder.release.set()
    homes, asked_first = set(), set()
    for number in range(6):
        async with lab.connect(pool) as channel:
            await call(channel, HELLO)
            probe = a_probe(f"probe {number}", source=f"github.com/acme/{number}")
            asked_first.add(await call(channel, SOLVE, probe))
            await call(channel, HELLO)
            build = a_solve(f"ref {number}", source="github.com/acme/app")
            homes.add(await call(channel, SOLVE, build))
    assert len(homes) == 1
    assert len(asked_first) > 1


async def test_who_asks_before_it_builds_is_overtaken_by_nobody(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        waiting = begun(second, HELLO)
        builder.release.set()
        await call(first, SOLVE, a_probe("probe"))
        builder.release.clear()
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE, 2)
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        builder.release.set()
        assert await running
        assert await waiting


async def test_nobody_decides_how_the_build_of_another_client_ends(lab: Lab) -> None:
    ann, bob = a_full_client(), a_full_client("bob", inject=Inject.IMPORT, may_export=False)
    pool = PoolLab(cache=CACHE, clients=(ann, bob))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    theirs = lab.connect(pool, pool.client("bob"))
    async with lab.connect(pool) as first, lab.connect(pool) as again, theirs as other:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve("hers"))
        await asked(builder, SOLVE)
        for ref, methods in (("hers", ("Solve", "Return", "Ping")), ("unheard-of", ("Ping",))):
            for method in methods:
                work = asyncio.create_task(call(other, f"{BRIDGE}{method}", headers=about(ref)))
                code, why = await refusal(work)
                assert code is grpc.StatusCode.PERMISSION_DENIED
                assert f"the build {ref} of pool builds/ci is not one of" in why
        claim = asyncio.create_task(call(other, SOLVE, a_solve("hers")))
        assert (await refusal(claim))[0] is grpc.StatusCode.PERMISSION_DENIED
        # Who may see all builds of the pool may see this one.
        await call(other, f"{CONTROL}Status", protobuf.field(1, b"hers"))
        await call(again, f"{BRIDGE}Return", headers=about("hers"))
        builder.release.set()
        await running


async def test_a_client_that_may_only_import_builds(lab: Lab) -> None:
    """Its first call about the build comes before the gateway has read which build that is."""
    client = a_full_client(inject=Inject.IMPORT, may_export=False)
    pool = PoolLab(cache=CACHE, clients=(client,))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        for ref in ("one", "two"):
            builder.release.clear()
            await call(channel, HELLO)
            ping = asyncio.create_task(call(channel, f"{BRIDGE}Ping", headers=about(ref)))
            await asyncio.sleep(0.2)
            solve = begun(channel, SOLVE, a_solve(ref))
            assert await ping
            await call(channel, f"{BRIDGE}Return", headers=about(ref))
            builder.release.set()
            assert await solve


async def test_what_is_asked_after_a_build_goes_where_it_was_though_that_one_retires(
    lab: Lab,
) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(3)))
    for builder in builders:
        builder.release.set()
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        home = await call(channel, SOLVE, a_solve())
        lab.told.known[pool.key] = tuple(
            replace(b, is_serving=b.name.encode() not in home) for b in lab.told.known[pool.key]
        )
        lab.refresh(pool.key)
        assert await call(channel, f"{CONTROL}ListenBuildHistory") == home
        blobs = "/containerd.services.content.v1.Content/Read"
        assert await call(channel, blobs) == home


async def test_a_client_that_was_removed_goes_on_with_its_own_build_only(lab: Lab) -> None:
    pool = PoolLab(clients=(a_full_client(), a_full_client("bob")))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    theirs = lab.connect(pool, pool.client("bob"))
    async with lab.connect(pool) as first, theirs as other, lab.connect(pool) as again:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve("hers"))
        await asked(builder, SOLVE)
        pool.clients = (a_full_client(),)
        await lab.becomes(pool)
        for method, request in (
            (f"{BRIDGE}Return", b""),
            (f"{CONTROL}Status", protobuf.field(1, b"hers")),
        ):
            work = asyncio.create_task(call(other, method, request, headers=about("hers")))
            code, _ = await refusal(work)
            assert code is grpc.StatusCode.PERMISSION_DENIED
        pool.clients = (a_full_client("carl"),)
        await lab.becomes(pool)
        await call(again, f"{BRIDGE}Return", headers=about("hers"))
        builder.release.set()
        await running


async def test_the_shared_cache_is_added_and_nothing_else_is_changed(lab: Lab) -> None:
    pool = PoolLab(cache=CACHE, clients=(a_full_client(),))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    request = a_solve(source="github.com/acme/app")
    bridge = protobuf.field(2, b"dockerfile.v0") + protobuf.map_fields(3, {"target": "x"})
    about = {"buildkit-controlapi-buildid": "ref"}
    builder.release.clear()
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        solve = begun(channel, SOLVE, request)
        await asked(builder, SOLVE)
        await call(channel, f"{BRIDGE}Solve", bridge, headers=about)
        builder.release.set()
        await solve
    sent = dict(builder.asked)
    assert sent[SOLVE].startswith(request)
    (export,) = read_solve(sent[SOLVE]).exports
    assert export.type == "registry"
    assert export.attrs["mode"] == "max"
    assert export.attrs["ignore-error"] == "true"
    assert export.ref.startswith("r.example/cache/auto/github-com-acme-app-")
    assert sent[f"{BRIDGE}Solve"].startswith(bridge)
    assert not read_bridge_solve(bridge).has_imports
    assert read_bridge_solve(sent[f"{BRIDGE}Solve"]).has_imports
    assert export.ref.encode() in sent[f"{BRIDGE}Solve"]
    async with asyncio.timeout(5):
        while not lab.closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (build,) = lab.closed
    assert (build.client, build.result, build.imports) == ("ann", "succeeded", export.ref)


async def test_who_may_only_import_cannot_export_by_itself(lab: Lab) -> None:
    client = a_full_client(inject=Inject.IMPORT, may_export=False)
    pool = PoolLab(cache=CACHE, clients=(client,))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    export = protobuf.field(1, b"registry") + protobuf.map_fields(2, {"ref": "r.example/cache/x:y"})
    image = protobuf.field(1, b"image") + protobuf.map_fields(
        2, {"name": "*", "image.name": "r.example/cache/x:y", "push": "true"}
    )
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        for asked_for in (protobuf.field(8, protobuf.field(4, export)), protobuf.field(13, image)):
            code, why = await refusal(begun(channel, SOLVE, a_solve() + asked_for))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "inject: Import" in why
    assert builder.asked == [(HELLO, b"")]


async def test_a_definition_may_be_as_long_as_buildkit_takes_it_and_no_longer(lab: Lab) -> None:
    pool = PoolLab(cache=CACHE, clients=(a_full_client(),))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    head = a_solve(source="github.com/acme/app")
    request = head + protobuf.field(2, bytes(MAX_MESSAGE - len(head) - 300))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        await call(channel, SOLVE, request)
        assert dict(builder.asked)[SOLVE].startswith(request)
        for times in (2, 3):
            code, why = await refusal(begun(channel, SOLVE, request * times))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "longer than 16777216 bytes" in why
        await call(channel, HELLO)


async def test_a_build_outlives_the_router_and_who_waits_goes_on_waiting(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE)
        waiting = begun(second, HELLO)
        await asyncio.sleep(0.3)
        await lab.stop_router()
        await asyncio.sleep(0.5)
        builder.release.set()
        assert await running
        await lab.start_router()
        # These daemons tell of no build: the slot is free once its connection has ended.
        await first.close()
        assert await waiting


@pytest.mark.parametrize("is_status_first", [True, False])
async def test_a_solve_that_is_being_read_outlives_the_router_and_what_is_its_own_follows(
    lab: Lab, is_status_first: bool
) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        ask = lambda: begun(channel, f"{CONTROL}Status", protobuf.field(1, b"ref"))  # noqa: E731
        if is_status_first:
            status = ask()
            await asyncio.sleep(0.3)
        solve = channel.stream_unary(SOLVE)(timeout=20)
        await solve.write(a_solve())
        await asyncio.sleep(0.3)
        if not is_status_first:
            status = ask()
            await asyncio.sleep(0.3)
        await lab.stop_router()
        await solve.done_writing()
        (home,) = [builder for builder in builders if await _has_all(builder, 1)]
        assert home.name.encode() in await status
        await lab.start_router()
        session = channel.stream_stream(f"{CONTROL}Session")(timeout=20)
        await asked(home, f"{CONTROL}Session")
        session.cancel()
        home.release.set()
        assert await solve


async def test_what_belongs_to_a_build_finds_it_though_the_router_is_another_one(lab: Lab) -> None:
    """Of internal builds daemons do not tell, and these tell of none."""
    pool = PoolLab(slots=4)
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve("the ref"))
        (home,) = [builder for builder in builders if await _has_all(builder, 1)]
        await lab.stop_router()
        await lab.start_router()
        about = {"buildkit-controlapi-buildid": "the ref"}
        assert home.name.encode() in await call(channel, f"{BRIDGE}Return", headers=about)
        linked = begun(channel, SOLVE, a_solve("another ref"))
        await asked(home, SOLVE, 2)
        home.release.set()
        assert await running
        assert await linked


async def test_other_pools_come_change_and_go_and_a_build_does_not_notice(lab: Lab) -> None:
    pool, other = PoolLab(), PoolLab(name="other")
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        await lab.add_pool(other, "other-builder-0")
        lab.told.tenants[other.key] = other.tenant(server_names=("other.example",))
        lab.told.tenants[pool.key] = pool.tenant()  # other certificates of the same authority
        lab.refresh(other.key)
        lab.refresh(pool.key)
        await lab.settled()
        del lab.told.tenants[other.key]
        lab.refresh(other.key)
        await lab.settled()
        builder.release.set()
        assert await running


async def test_a_build_whose_pool_is_not_served_any_more_goes_on_to_its_end(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel, lab.connect(pool) as late:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        del lab.told.tenants[pool.key]
        lab.refresh(pool.key)
        await lab.settled()
        about = {"buildkit-controlapi-buildid": "ref"}
        assert await call(channel, f"{BRIDGE}Return", headers=about)
        code, _ = await refusal(begun(late, HELLO))
        assert code is grpc.StatusCode.UNAVAILABLE
        builder.release.set()
        assert await running


async def test_who_waits_for_a_pool_that_is_removed_is_told(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        waiting = begun(channel, HELLO)
        await asyncio.sleep(0.3)
        del lab.told.tenants[pool.key]
        lab.refresh(pool.key)
        code, why = await refusal(waiting)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert why == "pool builds/ci is not served here any more"


async def test_a_client_whose_builder_is_gone_is_told_which_and_why(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        address = f"127.0.0.1:{builder.port}"
        lab.told.troubles[address] = ("ci-builder-0", "evicted: the node was low on memory")
        builder.vanish()
        code, why = await refusal(running)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert why == (
        "builder ci-builder-0 of pool builds/ci is gone: evicted: the node was low on memory"
    )


async def test_two_pools_cannot_have_one_name(lab: Lab) -> None:
    first = PoolLab(hostnames=("build.example.com",))
    second = PoolLab(name="other", hostnames=("build.example.com",))
    await lab.add_pool(first, "ci-builder-0")
    await lab.add_pool(second, "other-builder-0")
    assert [pool for pool, _ in lab.refused] == [second.key]
    async with lab.connect(first, name="build.example.com") as channel:
        assert b"ci-builder-0" in await call(channel, HELLO)


async def test_a_client_gets_slots_as_its_weight_says_not_as_it_asks(lab: Lab) -> None:
    pool = PoolLab(slots=1)
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    holder = lab.connect(pool, pool.client("ann"))
    await call(holder, HELLO)
    running = begun(holder, SOLVE, a_solve())
    await asked(builder, SOLVE)
    noisy = [lab.connect(pool, pool.client("ann")) for _ in range(5)]
    theirs = [begun(channel, HELLO) for channel in noisy]
    async with lab.connect(pool, pool.client("bob")) as channel:
        await asyncio.sleep(0.3)
        mine = begun(channel, HELLO)
        await asyncio.sleep(0.3)
        running.cancel()
        await holder.close()
        done, _ = await asyncio.wait({mine, *theirs}, return_when=asyncio.FIRST_COMPLETED)
        assert mine in done
    for task in theirs:
        task.cancel()
    for channel in noisy:
        await channel.close()


async def test_a_slow_client_keeps_its_builder_though_that_retires(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        (known,) = lab.told.known[pool.key]
        lab.told.known[pool.key] = (replace(known, is_serving=False),)
        lab.refresh(pool.key)
        about = {"buildkit-controlapi-buildid": "ref"}
        assert await call(channel, f"{BRIDGE}Return", headers=about)
        builder.release.set()
        assert await running
