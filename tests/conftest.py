"""What all tests share: how hard hypothesis tries, and how long a test may take.

More tries with ``--hypothesis-profile=thorough``, another limit with ``--timeout``.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from limits import TRIES, limit

settings.register_profile(
    "quick",
    max_examples=TRIES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=1000, deadline=None, database=None)
settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No test may hang a run."""
    if config.getoption("timeout") is None:
        limit(items)
