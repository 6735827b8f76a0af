from __future__ import annotations

from buildpool.controller.wakeups import Wakeups
from buildpool.naming import PoolKey

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


async def test_a_pool_is_woken_and_no_other() -> None:
    wakeups = Wakeups()
    ci, other = wakeups[CI], wakeups[OTHER]
    wakeups.wake(CI)
    assert ci.is_set()
    assert not other.is_set()


async def test_waking_a_pool_that_nobody_tends_leaves_no_trace() -> None:
    wakeups = Wakeups()
    wakeups.wake(CI)
    assert not wakeups[CI].is_set()


async def test_a_pool_that_is_forgotten_starts_anew() -> None:
    wakeups = Wakeups()
    wakeups[CI].set()
    wakeups.forget(CI)
    assert not wakeups[CI].is_set()
    wakeups.forget(OTHER)
