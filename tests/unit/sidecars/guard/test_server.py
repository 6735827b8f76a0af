"""What a guard lets through, and whom it answers."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta

import pytest
from aiohttp import web

from buildpool.sidecars.guard.upstream import PASSED_ON
from unit.sidecars.guarded import (
    BLOB,
    BODY,
    HUNG_UP,
    MANIFEST,
    OCI,
    OF_BODY,
    A,
    B,
    a_client,
    a_port,
    a_server,
    error,
    mount,
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_manifest_of_a_whole_cache_passes_as_it_is(guarded, method):
    async with guarded.ready():
        accept = [("Accept", OCI), ("Accept", "text/plain, */*")]
        response, body = await guarded.ask(f"{MANIFEST}?ns=ci-cache", method, headers=accept)
    assert response.status == 200
    assert {name: response.headers[name] for name in PASSED_ON} == OF_BODY
    assert body == (BODY if method == "GET" else b"")
    [check], [read] = guarded.keeper.requests, guarded.registry.requests
    assert check.raw_path == "/check/team/app?reference=main"
    assert (read.method, read.raw_path) == (method, MANIFEST)
    assert read.headers.getall("Accept") == [OCI, "text/plain, */*"]
    assert read.headers["Accept-Encoding"] == "identity"  # or the length would be another


async def test_a_cache_that_is_absent_is_not_found(guarded):
    guarded.keeper.answers["/check/team/app"] = web.Response(
        status=404, text='{"reason": "absent"}'
    )
    async with guarded.ready():
        response, body = await guarded.ask(MANIFEST)
    assert response.status == 404
    assert error(body) == ("MANIFEST_UNKNOWN", "the cache is absent")
    assert not guarded.registry.requests


REFUSED = {
    "damaged": (
        '{"reason": "damaged", "message": "blob sha256:bb is missing"}',
        "the cache is damaged: blob sha256:bb is missing",
    ),
    "not read yet": (
        '{"reason": "pending", "message": "it is still being read"}',
        "the cache is pending: it is still being read",
    ),
    "a line in two and umlauts": (
        '{"reason": "damaged", "message": "b\\u00f6se\\r\\nX-Evil: 1"}',
        "the cache is damaged: b?se??X-Evil: 1",
    ),
    "another program's answer": ("404: Not Found", "the cache is absent or damaged"),
    "no answer": ("", "the cache is absent or damaged"),
    "a nest": ("[" * 100_000, "the cache is absent or damaged"),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("said", "told"), REFUSED.values(), ids=REFUSED)
async def test_a_cache_that_nobody_vouches_for_is_refused_for_good(guarded, said, told, method):
    # Of 4xx and 5xx BuildKit makes nothing: it would ask the registry itself then.
    guarded.keeper.answers["/check/team/app"] = web.Response(status=404, text=said)
    async with guarded.ready():
        response, _ = await guarded.ask(MANIFEST, method)
    assert 300 <= response.status < 400
    assert "Location" not in response.headers
    assert "X-Evil" not in response.headers
    assert response.reason == told
    assert not guarded.registry.requests


async def test_a_manifest_that_only_the_registry_misses_is_not_there(guarded):
    del guarded.registry.answers[MANIFEST]
    async with guarded.ready():
        response, _ = await guarded.ask(MANIFEST)
    assert response.status == 404


async def test_the_bytes_of_a_blob_are_to_be_had_from_the_registry(guarded):
    async with guarded.ready():
        response, body = await guarded.ask(f"{BLOB}?ns=ci-cache", headers={"Range": "bytes=5-"})
    assert response.status == 307
    assert response.headers["Location"] == f"https://{guarded.registry.address}{BLOB}"
    assert not body
    assert [request.method for request in guarded.registry.requests] == ["HEAD"]


async def test_what_is_to_be_known_of_a_blob_is_passed_on(guarded):
    async with guarded.ready():
        response, _ = await guarded.ask(BLOB, "HEAD")
    assert response.status == 200
    assert {name: response.headers[name] for name in PASSED_ON} == OF_BODY


async def test_a_blob_that_the_registry_refuses_is_refused(guarded):
    guarded.registry.answers[BLOB] = web.Response(status=403, body=b"no")
    async with guarded.ready():
        response, body = await guarded.ask(BLOB)
    assert (response.status, body) == (403, b"")


@pytest.mark.parametrize("path", [MANIFEST, BLOB])
async def test_a_redirect_of_the_registry_is_not_followed(guarded, path):
    elsewhere = {"Location": f"https://{guarded.registry.address}/elsewhere"}
    guarded.registry.answers[path] = web.Response(status=307, headers=elsewhere)
    guarded.registry.answers["/elsewhere"] = web.Response(body=BODY)
    async with guarded.ready():
        response, _ = await guarded.ask(path)
    assert response.status == 502
    assert len(guarded.registry.requests) == 1


async def test_a_proxy_of_the_environment_is_not_used(guarded, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{a_port()}")
    async with guarded.ready():
        response, _ = await guarded.ask(BLOB)
    assert response.status == 307


async def test_the_beginning_of_the_api_is_answered(guarded):
    async with guarded.ready():
        response, body = await guarded.ask("/v2/")
    assert (response.status, json.loads(body)) == (200, {})


async def test_nothing_can_be_written(guarded):
    async with guarded.ready():
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            response, body = await guarded.ask(MANIFEST, method)
            assert response.status == 405
            assert error(body)[0] == "UNSUPPORTED"
    assert not guarded.registry.requests + guarded.keeper.requests


async def test_another_path_is_not_there(guarded):
    async with guarded.ready():
        response, body = await guarded.ask("/v2/_catalog")
    assert response.status == 404
    assert error(body)[0] == "UNSUPPORTED"


async def test_nobody_is_answered_without_a_certificate(guarded):
    async with guarded.ready():
        assert (await guarded.ask("/v2/"))[0].status == 200
        with pytest.raises(HUNG_UP):
            await guarded.ask("/v2/", client=None)


async def test_nobody_is_answered_with_a_certificate_of_another_authority(guarded):
    async with guarded.ready():
        with pytest.raises(HUNG_UP):
            await guarded.ask("/v2/", client=a_client(B))


async def test_probes_leave_nothing_in_the_log(guarded, caplog):
    async with guarded.ready():
        caplog.clear()
        caplog.set_level(logging.INFO)
        for said in (b"", b"GET /v2/ HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("localhost", guarded.settings.port)
            writer.write(said)
            if said:
                await reader.read()  # until it is hung up on
            writer.close()
            await writer.wait_closed()
        response, _ = await guarded.ask("/v2/")
    assert response.status == 200
    assert not caplog.records


async def test_a_certificate_renewed_by_another_authority_is_used(guarded):
    async with guarded.running(patience=timedelta(0), look_every=timedelta(0)):
        async with guarded.registry.serving(), guarded.keeper.serving():
            await guarded.opened()
            assert (await guarded.ask(MANIFEST))[0].status == 200
        renewed = a_server(B)
        async with guarded.registry.serving(renewed), guarded.keeper.serving(renewed):
            mount(guarded.settings.client_certificates, a_client(B))
            response, body = await guarded.ask(MANIFEST)
    assert (response.status, body) == (200, BODY)


async def test_connections_are_kept_until_the_certificate_is_renewed(guarded):
    async with guarded.ready(look_every=timedelta(0)):
        await guarded.ask(BLOB)
        await guarded.ask(BLOB)
        mount(guarded.settings.client_certificates, a_client(A))
        await guarded.ask(BLOB)
    first, second, third = guarded.registry.connections
    assert first == second != third


async def test_a_half_written_renewal_changes_nothing_until_it_is_complete(guarded, caplog):
    folder = guarded.settings.client_certificates
    async with guarded.ready(look_every=timedelta(0)):
        assert (await guarded.ask(BLOB))[0].status == 307
        key = (folder / "key.pem").read_bytes()
        (folder / "key.pem").write_bytes(a_client().pair.key)
        assert (await guarded.ask(BLOB))[0].status == 307
        assert "cannot be used" in caplog.text
        caplog.clear()
        (folder / "key.pem").write_bytes(key)
        assert (await guarded.ask(BLOB))[0].status == 307
    assert not caplog.text


async def test_without_a_certificate_it_starts_and_refuses(guarded):
    (guarded.settings.client_certificates / "cert.pem").unlink()
    async with guarded.ready(blob_patience=timedelta(0)):
        response, _ = await guarded.ask(BLOB)
    assert response.status == 503
