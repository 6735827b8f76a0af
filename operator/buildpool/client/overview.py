"""All pools in one look, what is wrong first. Pure.

It repeats what the operator has reported, and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import yaml

from buildpool.client.parsing import Seen
from buildpool.client.refusals import one_line
from buildpool.client.values import Output
from buildpool.core import naming
from buildpool.core.api import ConditionStatus, ConditionType, Reason
from buildpool.core.api.status import NOT_OBSERVED
from buildpool.core.explanation.layout import hung, in_columns, sentence


class Trouble(NamedTuple):
    """What is wrong with a pool."""

    rank: int
    """The lower, the more urgent."""
    text: str


FINE: Final = 9
"""The rank of a pool with which nothing is wrong."""
_CONDITIONS: Final = (
    ConditionType.ACCEPTED,
    ConditionType.READY,
    ConditionType.CERTIFICATES_READY,
    ConditionType.CACHE_READY,
)
"""Conditions of which one that is not True is trouble, the most urgent first."""


def troubles(seen: Seen) -> Iterator[Trouble]:
    """What is wrong with a pool, the most urgent first."""
    pool, status = seen.pool, seen.pool.status
    if pool.deletion_timestamp is not None:
        yield Trouble(8, "It is being deleted.")
        return
    if status.observed_generation == NOT_OBSERVED:
        yield Trouble(1, "No operator has looked at it yet.")
        return
    if status.observed_generation < pool.generation:
        yield Trouble(3, f"The operator has not looked at generation {pool.generation} of it yet.")
    for rank, kind in enumerate(_CONDITIONS):
        found = status.condition(kind)
        if found is not None and found.status is not ConditionStatus.TRUE:
            yield Trouble(rank, f"{found.reason}: {sentence(found.message)}")
    if status.blocked_since is not None:
        yield Trouble(4, f"{status.waiting} wait for a slot, and none has got one for minutes.")
    progress = status.condition(ConditionType.PROGRESSING)
    is_stuck = progress is not None and progress.status is not ConditionStatus.TRUE
    if progress is not None and is_stuck and progress.reason != Reason.SETTLED:
        yield Trouble(5, f"{progress.reason}: {sentence(progress.message)}")


def in_order(pools: Sequence[Seen]) -> list[Seen]:
    """What is wrong first, then by name."""
    return sorted(pools, key=lambda seen: (_rank(seen), seen.pool.key))


def _rank(seen: Seen) -> int:
    return min((trouble.rank for trouble in troubles(seen)), default=FINE)


_HEAD: Final = ("NAMESPACE", "NAME", "READY", "BUSY", "WAITING", "STATUS", "ROUTING")


def table(pools: Sequence[Seen], *, with_namespace: bool) -> str:
    """The pools for a terminal, a line for each, and below it what is wrong."""
    ordered = in_order(pools)
    rows = [_HEAD, *(_row(seen) for seen in ordered)]
    if not with_namespace:
        rows = [row[1:] for row in rows]
    lines = []
    for number, line in enumerate(in_columns(rows)):
        lines.append(line)
        if number:
            told = dict.fromkeys(one_line(each.text) for each in troubles(ordered[number - 1]))
            lines.extend(line for text in told for line in hung("  ", text))
    return "\n".join(lines)


def _row(seen: Seen) -> tuple[str, ...]:
    pool, status = seen.pool, seen.pool.status
    ready = status.condition(ConditionType.READY)
    return (
        pool.key.namespace,
        one_line(pool.key.name),
        one_line(status.ready or "-"),
        one_line(status.busy or "-"),
        str(status.waiting),
        _STATE_OF_DELETED if pool.deletion_timestamp else one_line(ready.reason if ready else "-"),
        "?" if seen.refusal else pool.spec.routing.value,
    )


_STATE_OF_DELETED: Final = "Terminating"


def output(pools: Sequence[Seen], form: Output) -> str:
    """The pools for other programs, what is wrong first."""
    ordered = in_order(pools)
    if form is Output.NAME:
        return "\n".join(f"{naming.SINGULAR}.{naming.GROUP}/{s.pool.key.name}" for s in ordered)
    listed = {"apiVersion": "v1", "kind": "List", "items": [seen.raw for seen in ordered]}
    if form is Output.JSON:
        return json.dumps(listed, indent=4)
    return yaml.safe_dump(listed, sort_keys=False).rstrip()
