"""No test can hang a run."""

from __future__ import annotations

import pytest

from limits import LIMITS, TESTS


def limit_of(test: pytest.FixtureRequest) -> float:
    marker = test.node.get_closest_marker("timeout")
    assert marker is not None
    (seconds,) = marker.args
    return seconds


@pytest.fixture(autouse=True)
def _no_limit_is_asked_for(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("timeout") is not None:
        pytest.skip("--timeout is for all tests")


def test_a_test_has_the_limit_of_its_folder(request: pytest.FixtureRequest) -> None:
    assert limit_of(request) >= LIMITS["unit"]


@pytest.mark.timeout(7)
def test_a_limit_of_its_own_wins(request: pytest.FixtureRequest) -> None:
    assert limit_of(request) == 7


def test_every_folder_has_a_limit() -> None:
    folders = {test.relative_to(TESTS).parts[0] for test in TESTS.glob("*/**/test_*.py")}
    assert folders == LIMITS.keys()
