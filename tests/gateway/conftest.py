"""Fixtures for the gateway as a whole, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.lab import Lab, a_gateway


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A gateway that serves no pool yet."""
    async with a_gateway(tmp_path) as lab:
        yield lab
