from __future__ import annotations

from buildpool.controller.wakeups import Wakeups
from buildpool.core.naming import PoolKey

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


async def test_a_pool_is_woken_and_no_other() -> None:
    wakeups = Wakeups()
    ci, other = wakeups.open(CI), wakeups.open(OTHER)
    wakeups.wake(CI)
    assert ci.is_set()
    assert not other.is_set()


async def test_waking_a_pool_that_nobody_tends_leaves_no_trace() -> None:
    wakeups = Wakeups()
    wakeups.wake(CI)
    assert not wakeups.open(CI).is_set()


async def test_a_pool_that_is_gone_is_not_woken() -> None:
    wakeups = Wakeups()
    flag = wakeups.open(CI)
    wakeups.close(CI)
    wakeups.wake(CI)
    assert not flag.is_set()
