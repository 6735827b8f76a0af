"""Continuous builds and a seeded schedule of disruptions: how many builds are lost?

``make chaos`` runs the long version and prints it; the end-to-end tier runs a short one.

    CHAOS_SEED          which schedule
    CHAOS_DISRUPTIONS   how many disruptions of each pool: one with Direct, one with Gateway routing
    CHAOS_BASELINE      how many, by the same schedule, a plain Deployment has to go through, too

So many are really done: an eviction that is refused is none, and the schedule goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from chaos.baseline import PlainDeployment
from chaos.campaign import run_campaign
from chaos.disruptions import Pool, PoolBehindTheGateway
from chaos.node import Node
from chaos.patience import PatientApi
from chaos.records import BuildKind, Result
from chaos.schedule import GATEWAY_ROUND, LIMIT, ROUND, Kind, schedule
from chaos.tally import report, verdict

SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
DISRUPTIONS: Final = int(os.environ.get("CHAOS_DISRUPTIONS", "20"))
BASELINE: Final = int(os.environ.get("CHAOS_BASELINE", "0"))


@pytest.mark.skipif(not DISRUPTIONS, reason="CHAOS_DISRUPTIONS is 0")
@pytest.mark.parametrize(
    ("target", "kinds"),
    [(Pool, ROUND), (PoolBehindTheGateway, GATEWAY_ROUND)],
    ids=["direct", "gateway"],
)
def test_no_build_is_lost_while_a_pool_is_disrupted(
    target: type[Pool],
    kinds: Mapping[Kind, int],
    api: PatientApi,
    node: Node,
    pool_namespace: str,
    tmp_path: Path,
) -> None:
    steps = schedule(SEED, LIMIT * DISRUPTIONS, kinds)
    pool = target(api, node, pool_namespace)
    record = run_campaign(pool, steps, tmp_path, seed=SEED, enough=DISRUPTIONS)
    print(f"\n{report(record)}")
    assert not record.lost, verdict(record)
    assert not record.results(Result.FAILED, Result.NOT_HERE)
    assert len(record.results(Result.DONE)) == DISRUPTIONS
    assert record.settled_after is not None, record.trouble
    assert {one.kind for one in record.disruptions} == {*kinds}
    assert {build.kind for build in record.builds} >= {*BuildKind}, "nothing was left out"


@pytest.mark.skipif(not BASELINE, reason="CHAOS_BASELINE is not set")
def test_what_a_plain_deployment_loses_by_the_same(
    api: PatientApi, node: Node, plain_namespace: str, tmp_path: Path
) -> None:
    """A measurement, and the proof that the harness sees a lost build."""
    steps = schedule(SEED, LIMIT * BASELINE)
    plain = PlainDeployment(api, node, plain_namespace)
    record = run_campaign(plain, steps, tmp_path, seed=SEED, enough=BASELINE)
    print(f"\n{report(record)}")
    assert record.lost
    assert len(record.results(Result.DONE)) == BASELINE
    assert record.settled_after is not None, record.trouble
