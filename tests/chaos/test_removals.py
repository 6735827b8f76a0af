"""Whatever comes when, a deleted pool takes nothing from its build, and leaves nothing.

    CHAOS_SEED       the first order
    CHAOS_REMOVALS   how many, one after the other; unset: the few of the short form

Each pool is deleted with ``--cascade=foreground``, as Argo CD does, the operator is killed, and the
Lease is taken, in a random order. A build has imported from the pool's managed cache, and fetches
its layers when all that is over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import pytest

from chaos.leaving import LeavingPool
from chaos.node import Node
from chaos.patience import PatientApi
from chaos.removals import SHORT, order, steps
from e2e.registries import bring

FIRST: Final = int(os.environ.get("CHAOS_SEED", "1"))
COUNT: Final = os.environ.get("CHAOS_REMOVALS", "")
SEEDS: Final = tuple(range(FIRST, FIRST + int(COUNT))) if COUNT else SHORT
TOGETHER: Final = 4
"""How many pools are prepared at the same time: most of that is waiting."""
Take = Callable[[int], LeavingPool]


@pytest.fixture(scope="module")
def pool_of(
    api: PatientApi,
    node: Node,
    removals_namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Take:
    """The pool of a seed, prepared together with the next ones."""
    bring("registry")
    folder = tmp_path_factory.mktemp("removals")
    prepared: dict[int, Future[LeavingPool]] = {}

    def prepare(seed: int) -> LeavingPool:
        name = f"leaving-{seed}"
        return LeavingPool(api, node, removals_namespace, name, folder / name).prepare()

    def take(seed: int) -> LeavingPool:
        if seed not in prepared:
            first = SEEDS.index(seed)
            batch = SEEDS[first : first + TOGETHER]
            with ThreadPoolExecutor(TOGETHER) as threads:
                prepared.update({each: threads.submit(prepare, each) for each in batch})
        return prepared[seed].result()

    return take


@pytest.mark.parametrize("seed", SEEDS)
def test_a_deleted_pool_takes_nothing_from_its_build_and_leaves_nothing(
    pool_of: Take, seed: int
) -> None:
    turns = order(seed)
    pool = pool_of(seed)
    outcome = pool.go(turns, steps(turns))
    print(f"\norder {seed}: {outcome}", *turns, sep="\n  ")
