"""Pools as they are at a moment: builders as slots, what runs, and what waits. Pure.

It repeats what the operator and the gateway have reported. All of that is hostile until it is made
a line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from buildpool.client.overview import in_order, troubles
from buildpool.client.parsing import Seen
from buildpool.client.refusals import one_line
from buildpool.core.api import BuilderState, BuilderStatus, PoolStatus
from buildpool.core.explanation.layout import rough
from buildpool.core.words import counted

TAKEN, FREE = "■", "□"
MOST_SLOTS: Final = 32
"""That are drawn of one builder."""
_REF_CHARACTERS: Final = 12
"""Of a ref that are shown: enough for ``kubectl buildpool logs`` and ``cancel``."""


def page(pools: Sequence[Seen], *, now: datetime) -> str:
    """All of them, what is wrong first."""
    return "\n\n".join("\n".join(_pool(seen, now)) for seen in in_order(pools))


def _pool(seen: Seen, now: datetime) -> Iterator[str]:
    pool, status = seen.pool, seen.pool.status
    waiting = f", {counted(status.waiting, 'build')} waiting" if status.waiting else ""
    ready, busy = one_line(status.ready or "-"), one_line(status.busy or "-")
    yield f"{pool.key}: {ready} builders, {busy} slots{waiting}"
    yield from (f"  {one_line(each.text)}" for each in troubles(seen))
    if status.scaling is not None:
        why = one_line(f"{status.scaling.reason}: {status.scaling.message}")
        yield f"  {why}"
    slots = 0 if seen.refusal else pool.spec.builders.slots
    width = max((len(builder.name) for builder in status.builders), default=0)
    for builder in status.builders:
        yield f"  {one_line(builder.name):<{width}}  {_line(builder, slots, now)}".rstrip()
    yield from _queue(status, now)


def _line(builder: BuilderStatus, slots: int, now: datetime) -> str:
    told = [
        f"{one_line(each.ref)[:_REF_CHARACTERS]} {_for(each.since, now)}".rstrip()
        for each in builder.running
    ]
    more = (builder.builds or 0) - len(told)
    if told and more > 0:
        told.append(f"and {more} more")
    state = "" if builder.state is BuilderState.SERVING else f"{builder.state}  "
    return f"{_bar(builder.builds, slots)}  {state}{', '.join(told)}"


def _bar(builds: int | None, slots: int) -> str:
    """A builder as its slots. Several builds can be in one; what has no slot is drawn, too."""
    if builds is None:
        return "?"
    taken = min(builds, MOST_SLOTS)
    return TAKEN * taken + FREE * (min(slots, MOST_SLOTS) - taken)


def _queue(status: PoolStatus, now: datetime) -> Iterator[str]:
    clients: dict[str, int] = {}
    for gateway in status.gateways:
        for each in gateway.queue:
            clients[each.client] = clients.get(each.client, 0) + each.waiting
    if clients:
        most_first = sorted(clients.items(), key=lambda each: (-each[1], each[0]))
        told = ", ".join(f"{one_line(name)} {builds}" for name, builds in most_first)
        since = [each.since for each in status.gateways if each.since and each.waiting]
        still = f"; none has got a slot for {_for(min(since), now)}" if since else ""
        yield f"  waiting: {told}{still}"


def _for(since: datetime | None, now: datetime) -> str:
    """For how long; nothing where nobody says since when. Clocks differ: never less than zero."""
    return rough(max(now - since, timedelta(0))) if since else ""
