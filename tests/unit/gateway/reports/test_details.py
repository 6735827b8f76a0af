"""What is found out about a build once it has ended."""

from __future__ import annotations

import asyncio

import pytest

from buildpool.buildkit import BuildEvent, BuildEventKind
from buildpool.core.observed.load import RunningBuild
from buildpool.gateway.reports import details
from buildpool.gateway.reports.details import CompletedSteps


def an_end(ref: str, *steps: int) -> BuildEvent:
    cached, all_of_them = steps
    return BuildEvent(BuildEventKind.COMPLETE, RunningBuild(ref, None), (cached, all_of_them))


async def test_the_steps_of_a_build_may_be_said_before_it_is_asked_for_or_after() -> None:
    steps = CompletedSteps()
    steps.note("uid", an_end("early", 1, 2))
    assert await steps.take("uid", "early") == (1, 2)
    asked = asyncio.create_task(steps.take("uid", "late"))
    await asyncio.sleep(0)
    steps.note("uid", an_end("another", 5, 6))
    steps.note("uid", an_end("late", 3, 4))
    assert await asked == (3, 4)


async def test_a_daemon_says_nothing_about_the_builds_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(details, "STEPS_SECONDS", 0.01)
    steps = CompletedSteps()
    steps.note("other", an_end("ref", 1, 2))
    assert await steps.take("uid", "ref") is None


async def test_a_daemon_may_say_what_it_likes_and_as_much() -> None:
    steps = CompletedSteps()
    for number in range(details.MAX_BUILDS + 10):
        steps.note("uid", an_end(f"{number}", 1, 2))
    assert len(steps._steps) == details.MAX_BUILDS
    assert await steps.take("uid", f"{details.MAX_BUILDS}") == (1, 2)
