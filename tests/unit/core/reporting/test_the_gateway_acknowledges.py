"""A pool is ready only once the gateway has said that it serves the pool as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from buildpool.core.api import Pool
from buildpool.core.api.status import GatewayStatus
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.desired import wanted_acknowledgement
from buildpool.core.reporting.outcome import Failure, Outcome
from memory_cluster import settled
from samples import a_pool, a_situation
from unit.passes import READY, judged, says, with_status

ASLEEP, LOADING = ("True", "Asleep"), ("False", "GatewayLoading")


def a_sleeping_pool() -> tuple[Pool, Observation, str]:
    """A pool, what is seen of it with two new pods of the gateway, and what they shall say."""
    pool = a_pool(routing="Gateway", scaling={"min": 0})
    seen = replace(
        settled(pool).observe(pool),
        gateways={"a": True, "b": True},
        acknowledging=frozenset("ab"),
    )
    wanted = wanted_acknowledgement(a_situation(pool, seen))
    assert wanted is not None
    return pool, seen, wanted


def hearing(pool: Pool, **said: str | None) -> Pool:
    """The pool of which pods of the gateway say this."""
    entries = tuple(GatewayStatus(name=name, serves=serves) for name, serves in said.items())
    return replace(pool, status=pool.status.model_copy(update={"gateways": entries}))


def test_one_pod_that_serves_the_pool_as_it_is_is_enough() -> None:
    pool, seen, wanted = a_sleeping_pool()
    cases: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({}, LOADING),
        ({"a": None}, LOADING),
        ({"a": "another", "b": "another"}, LOADING),
        ({"a": "another", "b": wanted}, ASLEEP),
        ({"a": wanted}, ASLEEP),
    ]
    for said, expected in cases:
        assert says(judged(hearing(pool, **said), seen), READY) == expected


@pytest.mark.parametrize("is_there", [True, False])
def test_a_pod_that_is_not_ready_or_gone_speaks_for_nobody(is_there: bool) -> None:
    pool, seen, wanted = a_sleeping_pool()
    gateways = {"b": True} | ({"a": False} if is_there else {})
    seen = replace(seen, gateways=gateways)
    assert says(judged(hearing(pool, a=wanted), seen), READY) == LOADING


def test_a_pod_of_an_older_version_that_never_says_so_serves_as_ever() -> None:
    pool, seen, _ = a_sleeping_pool()
    for acknowledging in ("", "a"):
        older = replace(seen, acknowledging=frozenset(acknowledging))
        assert says(judged(pool, older), READY) == ASLEEP
    gone = replace(seen, gateways={"a": True, "b": False}, acknowledging=frozenset("a"))
    assert says(judged(pool, gone), READY) == LOADING


def test_a_certificate_that_is_renewed_makes_no_pool_less_ready_and_another_spec_does() -> None:
    pool, seen, wanted = a_sleeping_pool()
    ready = with_status(pool, judged(hearing(pool, a=wanted), seen))
    renewed = hearing(ready, a="the one before")
    assert says(judged(renewed, seen), READY) == ASLEEP
    assert says(judged(replace(renewed, generation=pool.generation + 1), seen), READY) == LOADING
    assert says(judged(hearing(ready), seen), READY) == LOADING, "nobody serves it at all"


def test_what_could_not_be_written_is_not_waited_for() -> None:
    pool, seen, _ = a_sleeping_pool()
    refused = Outcome(failures=(Failure(Ref("Secret", "builds", "gateway"), "no"),))
    assert says(judged(hearing(pool, a="before"), seen, refused), READY) == ASLEEP


def test_a_pool_that_clients_reach_directly_waits_for_no_gateway() -> None:
    pool = a_pool(routing="Direct")
    seen = replace(settled(pool).observe(pool), gateways={"a": True}, acknowledging=frozenset("a"))
    assert says(judged(pool, seen), READY) == ("True", "Ready")
