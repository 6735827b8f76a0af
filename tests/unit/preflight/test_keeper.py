from __future__ import annotations

import json

import pytest
from aiohttp import web

from buildpool.core.api import Reason
from buildpool.core.observed.usage import Usage
from buildpool.core.pki import KeyPair
from unit.preflight.servers import (
    Handler,
    Registry,
    a_certificate,
    a_client,
    a_target,
    an_authority,
    inspect,
    says,
    serving,
)
from unit.preflight.test_probe import trouble_of

USAGE = Usage(used=7, capacity=10, refs=2, unhealed=("team/cache:main",), is_full=True)
STATUS = '{"used": 7, "capacity": 10, "refs": 2, "unhealed": ["team/cache:main"], "is_full": true}'


async def keeper(request: web.Request) -> web.Response:
    assert request.path == "/status"
    return web.json_response(json.loads(STATUS) | {"of_another_version": 1})


@pytest.fixture
def managed(tmp_path):
    """Serves to those only who show a client certificate, as a managed cache does."""

    def serve(handler: Handler):
        certificate = a_certificate()
        return serving(handler, certificate=certificate, clients=an_authority(), folder=tmp_path)

    return serve


def the_pair() -> KeyPair:
    return a_client().pair


async def test_a_keeper_tells_of_its_disk(managed) -> None:
    async with managed(Registry()) as host, managed(keeper) as kept:
        report = await inspect(a_target(host, pair=the_pair(), keeper=kept))
    assert report.trouble is None
    assert report.usage == USAGE


async def test_a_keeper_tells_of_its_disk_though_the_registry_ails(managed) -> None:
    async with managed(says(500)) as host, managed(keeper) as kept:
        report = await inspect(a_target(host, pair=the_pair(), keeper=kept))
    trouble_of(report, Reason.REGISTRY_UNREACHABLE, f"managed cache {host} answers 500")
    assert report.usage == USAGE


SILENCES = {
    "an error": (says(503), "answers 503"),
    "no JSON": (says(200, "full"), "answers 200"),
    "a list": (says(200, "[]"), "answers 200"),
    "a deep hole": (says(200, "[" * 60_000), "answers 200"),
    "another version": (says(200, '{"unhealed": null}'), "another way"),
}


@pytest.mark.parametrize(("handler", "words"), SILENCES.values(), ids=SILENCES.keys())
async def test_a_keeper_that_does_not_tell(managed, handler: Handler, words: str) -> None:
    async with managed(Registry()) as host, managed(handler) as kept:
        report = await inspect(a_target(host, pair=the_pair(), keeper=kept))
    trouble_of(report, Reason.REGISTRY_UNREACHABLE, f"keeper {kept} of the managed cache", words)
    assert report.usage is None


@pytest.mark.parametrize("kept", ["localhost:1", "keeper.invalid"])
async def test_a_keeper_that_is_not_there(managed, kept: str) -> None:
    async with managed(Registry()) as host:
        report = await inspect(a_target(host, pair=the_pair(), keeper=kept))
    trouble_of(report, Reason.REGISTRY_UNREACHABLE, f"keeper {kept}")


async def test_a_managed_cache_is_vouched_for_by_the_authority_of_its_pool_alone(
    managed, tmp_path
) -> None:
    other = an_authority("B").certificate
    certificate = a_certificate(authority=an_authority("System"))
    async with (
        serving(Registry(), certificate=certificate, folder=tmp_path) as host,
        managed(keeper) as kept,
    ):
        report = await inspect(a_target(host, pair=the_pair(), keeper=kept, trust=other))
    trouble = trouble_of(report, Reason.REGISTRY_NOT_TRUSTED, f"managed cache {host}")
    assert "CertificatesReady" in trouble.message
    assert "spec.registries" not in trouble.message
