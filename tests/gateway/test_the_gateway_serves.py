"""Requests through a real Envoy: where they go."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from buildpool.buildkit import protobuf
from buildpool.buildkit.history import read_event
from buildpool.buildkit.methods import CONTENT
from buildpool.gateway.pools import served
from buildpool.gateway.slots import locator
from gateway.asking import (
    HELLO,
    SOLVE,
    a_full_client,
    a_probe,
    a_solve,
    about,
    asked,
    begun,
    home_of,
    refusal,
)
from gateway.lab import BRIDGE, CONTROL, Lab, PoolLab, call


async def test_a_build_goes_to_a_builder_byte_by_byte(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    async with lab.connect(pool) as channel:
        assert b"ci-builder-0" in await call(channel, HELLO)
        assert b"ci-builder-0" in await call(channel, SOLVE, a_solve())
    assert builder.asked == [(HELLO, b""), (SOLVE, a_solve())]


async def test_prune_wakes_no_pool(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        code, why = await refusal(begun(channel, f"{CONTROL}Prune"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert why == "pool builds/ci has no builder now; a build wakes it"
    assert lab.status.most_waiting.get(pool.key, 0) == 0


async def test_a_bake_of_linked_targets_stays_together_and_waits_for_nothing(lab: Lab) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(3)))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        solves = [begun(channel, SOLVE, a_solve(f"ref-{n}", source=f"h/p{n}")) for n in range(4)]
        home = await home_of(builders, 4)
        home.release.set()
        assert {await solve for solve in solves} == {protobuf.field(1, home.name.encode())}


async def test_what_is_asked_about_a_build_on_another_connection_goes_where_it_runs(
    lab: Lab,
) -> None:
    pool = PoolLab()
    builders = await lab.add_pool(pool, *(f"ci-builder-{n}" for n in range(4)))
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        solve = begun(first, SOLVE, a_solve("the ref"))
        home = await home_of(builders)
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
        lab.source.known[pool.key] = tuple(
            replace(b, is_serving=b.name.encode() not in home) for b in lab.source.known[pool.key]
        )
        lab.source.changed(pool.key)
        name = next(b.name for b in builders if b.name.encode() in home)
        listen = channel.unary_stream(f"{CONTROL}ListenBuildHistory")
        builder = next(b for b in builders if b.name == name)
        builder.history = ["ref"]
        request = protobuf.field(2, b"ref") + bytes((3 << 3, 1))
        assert [read_event(event).build.ref async for event in listen(request)] == ["ref"]
        assert await call(channel, f"{CONTENT}Read", a_digest("0" * 64)) == home


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


async def test_other_pools_come_change_and_go_and_a_build_does_not_notice(lab: Lab) -> None:
    pool, other = PoolLab(), PoolLab(name="other")
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        await lab.add_pool(other, "other-builder-0")
        lab.source.configs[other.key] = other.config(server_names=("other.example",))
        lab.source.configs[pool.key] = pool.config()  # other certificates of the same authority
        lab.source.changed(other.key)
        lab.source.changed(pool.key)
        await lab.settled()
        del lab.source.configs[other.key]
        lab.source.changed(other.key)
        await lab.settled()
        builder.release.set()
        assert await running


async def test_a_build_whose_pool_is_not_served_any_more_goes_on_to_its_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RESTORED", timedelta(seconds=0.5))
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel, lab.connect(pool) as late:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        del lab.source.configs[pool.key]
        lab.source.changed(pool.key)
        await lab.settled()
        about = {"buildkit-controlapi-buildid": "ref"}
        assert await call(channel, f"{BRIDGE}Return", headers=about)
        code, _ = await refusal(begun(late, HELLO))
        assert code is grpc.StatusCode.UNAVAILABLE
        builder.release.set()
        assert await running


async def test_a_client_whose_builder_is_gone_learns_which_and_why(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        address = f"127.0.0.1:{builder.port}"
        lab.source.troubles[address] = ("ci-builder-0", "evicted: the node was low on memory")
        builder.vanish()
        code, why = await refusal(running)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert why == (
        "builder ci-builder-0 of pool builds/ci is gone: evicted: the node was low on memory"
    )


def a_digest(sha256: str) -> bytes:
    """A request to read this content."""
    return protobuf.field(1, f"sha256:{sha256}".encode())


async def test_a_daemon_is_never_asked_for_its_history_by_a_ref(lab: Lab) -> None:
    """It would keep that record for ever. A client gets what it asked for all the same."""
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.history = [f"other{number}" for number in range(2_000)]
    builder.history.insert(1_000, "mine")
    early_exit = bytes((3 << 3, 1))
    async with lab.connect(pool) as channel:
        listen = channel.unary_stream(f"{CONTROL}ListenBuildHistory")
        everything = [event async for event in listen(early_exit)]
        about_mine = [event async for event in listen(protobuf.field(2, b"mine") + early_exit)]
    assert len(everything) == 2_001
    assert [read_event(event).build.ref for event in about_mine] == ["mine"]
    by_filter = early_exit + protobuf.field(4, b"ref==mine")
    # By the router, that looks for the builder with the record, and by the client.
    assert {request for _, request in builder.asked} == {early_exit, by_filter}


async def test_records_are_found_on_the_builder_that_has_them(lab: Lab) -> None:
    pool = PoolLab()
    first, second = await lab.add_pool(pool, "ci-builder-0", "ci-builder-1")
    first.history, second.history = ["a1", "a2", "a3"], ["b1"]
    first.content, second.content = {f"sha256:{0:064x}"}, {f"sha256:{1:064x}"}
    early_exit = bytes((3 << 3, 1))
    update, read = f"{CONTROL}UpdateBuildHistory", f"{CONTENT}Read"
    async with lab.connect(pool) as channel:
        listen = channel.unary_stream(f"{CONTROL}ListenBuildHistory")
        everything = [read_event(event) async for event in listen(early_exit)]
        assert sorted(event.build.ref for event in everything) == ["a1", "a2", "a3", "b1"]
        for ref, builder in (("b1", second), ("a2", first), ("b1", second)):
            request = protobuf.field(2, ref.encode()) + early_exit
            found = [read_event(event).build.ref async for event in listen(request)]
            assert found == [ref]
            digest = "0" * 63 + ("0" if builder is first else "1")
            assert builder.name.encode() in await call(channel, read, a_digest(digest))
            request = protobuf.field(1, ref.encode()) + bytes((2 << 3, 1))
            assert builder.name.encode() in await call(channel, update, request)
            status = await call(channel, f"{CONTROL}Status", protobuf.field(1, ref.encode()))
            assert builder.name.encode() in status


async def test_logs_of_a_build_that_has_ended_are_answered_by_a_builder_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locator, "PATIENCE_SECONDS", 3600.0)
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    status = f"{CONTROL}Status"
    async with lab.connect(pool) as channel:
        assert await call(channel, status, protobuf.field(1, b"ended"))
    assert builder.asked[-1] == (status, protobuf.field(1, b"ended"))


@pytest.mark.parametrize("headers", [{}, about("unheard-of")], ids=["no build", "unknown build"])
async def test_what_is_asked_about_no_build_is_answered_by_a_builder_in_its_own_words(
    lab: Lab, headers: dict[str, str]
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    ping = f"{BRIDGE}Ping"
    async with lab.connect(pool) as channel, lab.connect(pool) as other:
        assert await call(channel, ping, headers=headers)
        await call(other, HELLO)
        assert await call(other, ping, headers=headers)
    assert [method for method, _ in builder.asked] == [ping, HELLO, ping]


async def test_two_pools_cannot_have_one_name(lab: Lab) -> None:
    first = PoolLab(hostnames=("build.example.com",))
    second = PoolLab(name="other", hostnames=("build.example.com",))
    await lab.add_pool(first, "ci-builder-0")
    await lab.add_pool(second, "other-builder-0")
    assert list(lab.status.refused) == [second.key]
    async with lab.connect(first, name="build.example.com") as channel:
        assert b"ci-builder-0" in await call(channel, HELLO)


async def test_a_slow_client_keeps_its_builder_though_that_retires(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE)
        (known,) = lab.source.known[pool.key]
        lab.source.known[pool.key] = (replace(known, is_serving=False),)
        lab.source.changed(pool.key)
        about = {"buildkit-controlapi-buildid": "ref"}
        assert await call(channel, f"{BRIDGE}Return", headers=about)
        builder.release.set()
        assert await running
