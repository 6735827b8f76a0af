"""Builds through a real Envoy get the shared cache; clients that may only import do not export."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from buildpool.buildkit import protobuf
from buildpool.buildkit.solve_requests import MAX_MESSAGE_BYTES, read_bridge_solve, read_solve
from buildpool.core.api import Inject
from buildpool.core.api.brief import CacheBrief
from buildpool.gateway.slots import locator
from gateway.asking import CACHE, HELLO, SOLVE, a_full_client, a_solve, about, asked, begun, refusal
from gateway.lab import BRIDGE, CONTROL, Lab, PoolLab, call


async def test_a_client_that_may_only_import_builds(lab: Lab) -> None:
    """Its first call about the build comes before the gateway has read which build that is."""
    client = a_full_client(inject=Inject.IMPORT, may_export=False)
    pool = PoolLab(cache=CACHE, clients=(client,))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        for ref in ("one", "two"):
            builder.release.clear()
            await call(channel, HELLO)
            await lab.goes_on(pool, 0)
            ping = asyncio.create_task(call(channel, f"{BRIDGE}Ping", headers=about(ref)))
            await lab.goes_on(pool, 1)
            solve = begun(channel, SOLVE, a_solve(ref))
            assert await ping
            await call(channel, f"{BRIDGE}Return", headers=about(ref))
            builder.release.set()
            assert await solve


async def test_the_shared_cache_is_added_and_nothing_else_is_changed(lab: Lab) -> None:
    pool = PoolLab(cache=CACHE, clients=(a_full_client(),))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.steps = {"ref": (0, 1)}
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
    (build,) = await lab.build_log(1)
    assert (build["client"], build["result"], build["imports"]) == ("ann", "succeeded", export.ref)


@pytest.mark.parametrize("location", ["r.example/cache", "ci-cache.builds.svc:5000"])
async def test_a_client_that_may_only_import_cannot_export_by_itself(
    lab: Lab, location: str
) -> None:
    client = a_full_client(inject=Inject.IMPORT, may_export=False)
    cache = CacheBrief(location=location, architecture="amd64")
    pool = PoolLab(cache=cache, clients=(client,))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    export = protobuf.field(1, b"registry") + protobuf.map_fields(2, {"ref": f"{location}/x:y"})
    image = protobuf.field(1, b"image") + protobuf.map_fields(
        2, {"name": "*", "image.name": f"{location}/x:y", "push": "true"}
    )
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        for asked_for in (protobuf.field(8, protobuf.field(4, export)), protobuf.field(13, image)):
            code, why = await refusal(begun(channel, SOLVE, a_solve() + asked_for))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "inject: Import" in why
        code, why = await refusal(begun(channel, f"{CONTROL}Prune"))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "Prune changes what builders keep" in why
    assert builder.asked == [(HELLO, b"")]


async def test_no_client_decides_how_the_build_of_another_ends(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locator, "PATIENCE_SECONDS", 0.5)
    ann, bob = a_full_client(), a_full_client("bob", inject=Inject.IMPORT, may_export=False)
    pool = PoolLab(cache=CACHE, clients=(ann, bob), slots=2)
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
        # A client that may see all builds of the pool may see this one.
        await call(other, f"{CONTROL}Status", protobuf.field(1, b"hers"))
        await call(again, f"{BRIDGE}Return", headers=about("hers"))
        builder.release.set()
        await running


async def test_a_definition_may_be_as_long_as_buildkit_takes_it_and_no_longer(lab: Lab) -> None:
    pool = PoolLab(cache=CACHE, clients=(a_full_client(),))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.release.set()
    head = a_solve(source="github.com/acme/app")
    request = head + protobuf.field(2, bytes(MAX_MESSAGE_BYTES - len(head) - 300))
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        await call(channel, SOLVE, request)
        assert dict(builder.asked)[SOLVE].startswith(request)
        for times in (2, 3):
            code, why = await refusal(begun(channel, SOLVE, request * times))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "longer than 16777216 bytes" in why
        await call(channel, HELLO)
