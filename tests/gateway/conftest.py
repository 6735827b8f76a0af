"""Fixtures for the gateway as a whole, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from buildpool.gateway.xds import publisher
from gateway.lab import Lab, a_gateway


@pytest.fixture(autouse=True)
def _few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of pools are gathered for a moment only: here there are few, and all wait for it."""
    monkeypatch.setattr(publisher, "QUIET_SECONDS", 0.01)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A gateway that serves no pool yet."""
    async with a_gateway(tmp_path) as lab:
        yield lab
