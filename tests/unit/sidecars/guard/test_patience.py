"""How long a guard waits for a registry and a keeper, and no longer."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from buildpool.sidecars.guard.server import NO_CACHE_STATUS, PAUSE
from buildpool.sidecars.guard.upstream import CONNECT
from buildpool.sidecars.keeper.upkeep import PATIENCE
from unit.sidecars.guarded import (
    BLOB,
    BODY,
    MANIFEST,
    a_crashing_registry,
    a_silent_server,
    error,
)

SLACK = 1.5
"""Seconds that a busy machine may add."""


async def test_a_blob_that_is_not_there_is_not_waited_for(guarded):
    del guarded.registry.answers[BLOB]
    async with guarded.ready():
        response, body = await guarded.ask(BLOB)
    assert response.status == 404
    assert error(body)[0] == "BLOB_UNKNOWN"


async def test_a_blob_is_held_until_the_registry_is_back(guarded, caplog):
    caplog.set_level(logging.INFO)
    async with guarded.running(patience=timedelta(0)):
        await guarded.opened()
        async with a_crashing_registry(guarded.registry.port) as connections:
            asked = asyncio.create_task(guarded.ask(BLOB))
            for _ in range(5):  # long enough to be noted
                await connections.acquire()
        assert not asked.done()
        async with guarded.registry.serving():
            response, _ = await asked
    assert response.status == 307
    [note] = [record.message for record in caplog.records if "was held" in record.message]
    assert note.startswith(f"{BLOB} was held for ")
    assert note.endswith("s and then answered.")


async def test_a_blob_is_not_held_for_one_who_hung_up(guarded):
    async with guarded.running(patience=timedelta(0)):
        await guarded.opened()
        async with a_crashing_registry(guarded.registry.port) as connections:
            asked = asyncio.create_task(guarded.ask(BLOB))
            await connections.acquire()
            asked.cancel()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5 * PAUSE.total_seconds()):
                    await connections.acquire()


async def test_a_registry_with_trouble_of_its_own_is_waited_for(guarded):
    well = guarded.registry.answers[BLOB]
    guarded.registry.answers[BLOB] = web.Response(status=503)
    async with guarded.ready():
        asked = asyncio.create_task(guarded.ask(BLOB))
        await guarded.registry.asked.wait()
        guarded.registry.answers[BLOB] = well
        response, _ = await asked
    assert response.status == 307


@pytest.mark.parametrize(
    ("path", "patience", "status"),
    [(MANIFEST, "manifest_patience", NO_CACHE_STATUS), (BLOB, "blob_patience", 503)],
)
async def test_patience_ends(guarded, path, patience, status):
    async with guarded.running(patience=timedelta(0), **{patience: timedelta(seconds=1)}):
        await guarded.opened()
        begin = time.monotonic()
        response, _ = await guarded.ask(path)
        held = time.monotonic() - begin
    assert response.status == status
    assert 1 <= held < 1 + 2 * PAUSE.total_seconds() + SLACK


@pytest.mark.parametrize("who", ["keeper", "registry"])
async def test_an_attempt_that_hangs_does_not_outlast_the_patience(guarded, who):
    # The first attempt fails at once; the second one gets no answer at all.
    silent, crashing = getattr(guarded, who), a_crashing_registry(getattr(guarded, who).port)
    others = guarded.registry if who == "keeper" else guarded.keeper
    async with others.serving(), guarded.running(manifest_patience=timedelta(seconds=0.3)):
        async with crashing as connections:
            await guarded.opened()
            while not connections.locked():
                await connections.acquire()  # of the guard's own knocking
            begin = time.monotonic()
            asked = asyncio.create_task(guarded.ask(MANIFEST))
            await connections.acquire()
        async with a_silent_server(silent.port):
            response, _ = await asked
            held = time.monotonic() - begin
    assert response.status == NO_CACHE_STATUS
    assert held < CONNECT.total_seconds(), "or the second attempt was waited for"


async def test_a_keeper_that_is_too_slow_is_not_waited_for(guarded):
    short = {
        "keeper_patience": timedelta(seconds=0.3),
        "manifest_patience": timedelta(seconds=0.3),
    }
    async with (
        guarded.registry.serving(),
        a_silent_server(guarded.keeper.port),
        guarded.running(**short),
    ):
        await guarded.opened()
        begin = time.monotonic()
        response, _ = await guarded.ask(MANIFEST)
        held = time.monotonic() - begin
    assert response.status == NO_CACHE_STATUS
    assert "timed out" in response.reason
    assert 0.6 <= held < 0.6 + 2 * PAUSE.total_seconds() + SLACK
    assert not guarded.registry.requests


async def test_the_keeper_answers_before_the_guard_gives_up(guarded):
    assert PATIENCE + timedelta(seconds=5) <= guarded.settings.keeper_patience
    assert guarded.settings.keeper_patience <= timedelta(seconds=30)


async def test_a_keeper_that_is_back_is_asked_again(guarded):
    async with guarded.registry.serving(), guarded.running():
        await guarded.opened()
        async with a_crashing_registry(guarded.keeper.port) as connections:
            asked = asyncio.create_task(guarded.ask(MANIFEST))
            await connections.acquire()
        async with guarded.keeper.serving():
            response, body = await asked
    assert (response.status, body) == (200, BODY)


async def test_the_port_opens_once_the_registry_accepts_connections(guarded):
    async with guarded.running():
        for _ in range(20):
            assert not await guarded.is_open()
            await asyncio.sleep(0.01)
        async with guarded.registry.serving():
            await guarded.opened()


async def test_the_port_opens_without_the_registry_when_patience_ends(guarded, caplog):
    begin = time.monotonic()
    async with guarded.running(patience=timedelta(seconds=0.2)):
        await guarded.opened()
    assert 0.2 <= time.monotonic() - begin < 3
    assert "accepts no connections" in caplog.text


async def test_the_end_is_clean_while_a_request_is_held(guarded):
    async with a_crashing_registry(guarded.registry.port) as connections:
        async with guarded.running(patience=timedelta(0)):
            await guarded.opened()
            asked = asyncio.create_task(guarded.ask(BLOB))
            await connections.acquire()
            begin = time.monotonic()
        assert time.monotonic() - begin < 3
        with pytest.raises(aiohttp.ClientError):
            await asked
    assert not await guarded.is_open()
