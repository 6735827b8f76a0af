"""How long a test may take: what hangs shall fail, and not keep a run from its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
TRIES = 20
"""Examples that hypothesis tries unless it is asked for more; then a unit test may take longer."""
BUSY = 4
"""How many times longer than a quiet machine a busy one may take until what a test waits for."""
MOST_SECONDS = 60.0
"""What a busy machine gets beyond what a quiet one needs, at most: a test has a limit, too."""
LIMITS = {
    "unit": 60,
    "gateway": 120,
    "integration": 300,
    "compat": 300,
    "devcluster": 600,
    "e2e": 1800,
    "bench": 3600,
    "chaos": 7200,
}
"""Seconds that a test of a folder has, its fixtures included. Far more than it needs."""


def patience(within: float) -> float:
    """Seconds to wait for something that takes a quiet machine less than this."""
    return within + min((BUSY - 1) * within, MOST_SECONDS)


def limit(items: list[pytest.Item]) -> None:
    """Gives each test the limit of its folder, unless it has one of its own."""
    patience = max(1, settings().max_examples // TRIES)
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if item.get_closest_marker("timeout") is None:
            seconds = LIMITS[folder] * (patience if folder == "unit" else 1)
            item.add_marker(pytest.mark.timeout(seconds))
