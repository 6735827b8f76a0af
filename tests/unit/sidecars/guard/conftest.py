"""A guard, and a cache that is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from buildpool.sidecars.guard.server import GuardSettings
from unit.sidecars.guarded import (
    BLOB,
    BODY,
    MANIFEST,
    OF_BODY,
    Cache,
    Guarded,
    a_client,
    a_port,
    a_server,
    mount,
)


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    registry, keeper = Cache(tmp_path / "registry"), Cache(tmp_path / "keeper")
    registry.answers[MANIFEST] = web.Response(body=BODY, headers=OF_BODY)
    registry.answers[BLOB] = web.Response(body=BODY, headers=OF_BODY)
    keeper.answers["/check/team/app"] = web.Response()
    settings = GuardSettings(
        registry=registry.address,
        keeper=keeper.address,
        server_certificates=mount(tmp_path / "server", a_server()),
        client_certificates=mount(tmp_path / "client", a_client()),
        port=a_port(),
    )
    return Guarded(tmp_path, registry, keeper, settings)
