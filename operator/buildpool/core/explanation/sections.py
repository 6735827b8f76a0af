"""Everything there is to say about a pool, from the most urgent to the least.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from buildpool.core import naming
from buildpool.core.api import (
    BuilderState,
    BuilderStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    EventReason,
    Pool,
    PoolSpec,
    PoolStatus,
    Reason,
)
from buildpool.core.api.duration import format_duration
from buildpool.core.api.status import NOT_OBSERVED
from buildpool.core.errors import InvalidSpecError
from buildpool.core.explanation.layout import Row, at, hung, laid_out, later, listed, on, sentence
from buildpool.core.explanation.size import missed, size_rows
from buildpool.core.words import counted


def explain(pool: Pool, *, now: datetime, refusal: InvalidSpecError | None = None) -> str:
    """The explanation, in lines for a terminal.

    ``refusal`` is what is wrong with the spec; that of ``pool`` then is of no account.
    """
    status = pool.status
    refused = str(refusal) if refusal else _refusal(pool)
    spec = None if refused else pool.spec
    if pool.deletion_timestamp is not None:
        rows = [*_absence(pool, None, now), *_leaving(status, pool.deletion_timestamp, spec, now)]
        return "\n".join((f"{pool.key}: is being deleted", *laid_out(rows)))
    rows = [
        *_invalid(refused),
        *_absence(pool, spec, now),
        *_obstacles(status, now),
        *_queue(status, spec, now),
    ]
    if status.scaling is None and not status.builders:
        return "\n".join((f"{pool.key}: no builders yet", *laid_out(rows)))
    rows += [*size_rows(pool, spec, now), *_troubles(pool, spec)]
    if status.requests_refused:
        rows.append(Row("asked for", status.requests_refused))
    told = " ".join(text for row in rows for text in row.paragraphs)
    return "\n".join(
        (
            _headline(pool, spec),
            *laid_out(rows),
            *_table(status.builders, spec, told),
            *laid_out((*_certificates(status, spec, now), *_cache(status, now))),
        )
    )


def _headline(pool: Pool, spec: PoolSpec | None) -> str:
    status = pool.status
    ready, size = status.ready_replicas, status.scaling.size if status.scaling else None
    limits = ""
    if spec is not None and spec.replicas is None:
        limits = f" (of {spec.least} to {spec.scaling.max})"
    if size is None or size == ready:
        builders = f"{counted(ready, 'builder')}{limits}"
    else:
        verb = "takes" if ready == 1 else "take"
        builders = f"{counted(size, 'builder')} wanted{limits}, {ready} {verb} builds"
    draining = sum(b.builds or 0 for b in status.builders if b.state is BuilderState.DRAINING)
    builds = f"{counted(status.busy_slots - draining, 'build')} on {counted(status.slots, 'slot')}"
    more = f" and {draining} on builders that drain" if draining else ""
    condition = status.condition(ConditionType.READY)
    is_ready = condition is not None and condition.status is ConditionStatus.TRUE
    return f"{pool.key}: {builders}, {builds}{more}, {'Ready' if is_ready else 'not Ready'}"


def _refusal(pool: Pool) -> str:
    """What the operator finds wrong with the present spec, though nobody else does."""
    accepted = pool.status.condition(ConditionType.ACCEPTED)
    if accepted is None or accepted.status is not ConditionStatus.FALSE:
        return ""
    return accepted.message if accepted.observed_generation == pool.generation else ""


def _invalid(refused: str) -> Iterator[Row]:
    if refused:
        text = refused.removesuffix(_KEPT).strip()
        consequence = f"{_KEPT} No builder comes or goes until the spec is corrected."
        yield Row("invalid spec", (text, consequence))


_KEPT: Final = "What was valid before keeps serving."


def _absence(pool: Pool, spec: PoolSpec | None, now: datetime) -> Iterator[Row]:
    """Signs that no operator looks after the pool."""
    seen = pool.status.observed_generation
    due = missed(spec, pool.status.scaling, now) if spec else None
    if seen == NOT_OBSERVED:
        text = "It has not looked at this pool yet."
    elif seen < pool.generation:
        text = f"It has not looked at generation {pool.generation} of it yet, only at {seen}."
    elif due is not None:
        text = f"It was to decide on the size at {at(due, now)}, and has not."
    else:
        return
    yield Row("operator", (f"{text} {_CHECK}", _OPERATORS))


_CHECK: Final = "If this lasts, see that it runs, and that it watches this namespace:"
_OPERATORS: Final = (
    "kubectl get pods -A -l app.kubernetes.io/name=buildpool,app.kubernetes.io/component=operator"
)


def _leaving(
    status: PoolStatus, deleted: datetime, spec: PoolSpec | None, now: datetime
) -> Iterator[Row]:
    """What a deleted pool waits for. What its status says of builders is from before."""
    yield Row("since", (at(deleted, now),))
    ready = status.condition(ConditionType.READY)
    if ready is None or ready.reason != Reason.TERMINATING:
        text = (
            "The operator: it ends the pool once no build runs. Without one, "
            "docs/how-to/uninstall.md tells how to let go of the pool."
        )
        yield Row("waits for", (text,))
        return
    yield Row("now", (sentence(ready.message),))
    until = ""
    if spec is not None:
        end = at(later(deleted, spec.builders.max_build_duration), now)
        until = f" until about {end}, for as long as builders.maxBuildDuration"
    text = f"Builds that run may go on{until}. Then certificates, caches and the pool itself go."
    yield Row("next", (text,))


def _obstacles(status: PoolStatus, now: datetime) -> Iterator[Row]:
    """What keeps the pool from being ready, and how far its changes are."""
    ready = status.condition(ConditionType.READY)
    if ready is not None and ready.status is not ConditionStatus.TRUE:
        yield Row("not ready", (_told(ready, now),))
    elif ready is not None and ready.reason == Reason.SCALED_TO_ZERO:
        yield Row("stopped", (_told(ready, now),))
    progress = status.condition(ConditionType.PROGRESSING)
    if progress is None or progress.reason == Reason.SETTLED:
        return
    if progress.status is ConditionStatus.TRUE:
        yield Row("progress", (_told(progress, now),))
    elif ready is not None and ready.reason == progress.reason:
        yield Row("stuck", ("The builders are not as the spec wants them, for the same reason.",))
    else:
        yield Row("stuck", (_told(progress, now),))


def _queue(status: PoolStatus, spec: PoolSpec | None, now: datetime) -> Iterator[Row]:
    """Builds that wait at the gateway."""
    if not status.waiting:
        return
    verb = "waits" if status.waiting == 1 else "wait"
    text = f"{counted(status.waiting, 'build')} {verb} for a slot at the gateway"
    text += (
        f", for up to {format_duration(spec.gateway.max_wait)} (gateway.maxWait)." if spec else "."
    )
    if status.blocked_since is not None:
        text += f" None has got one since {at(status.blocked_since, now)}."
    yield Row("queue", (text,))


def _told(condition: Condition, now: datetime) -> str:
    since = condition.last_transition_time
    tail = f" Since {at(since, now)}." if since else ""
    return f"{condition.reason}: {sentence(condition.message)}{tail}"


def _troubles(pool: Pool, spec: PoolSpec | None) -> Iterator[Row]:
    """What keeps builders from being counted or removed."""
    builders = pool.status.builders
    silent = [b.name for b in builders if b.builds is None and b.state != BuilderState.STARTING]
    if silent:
        selector = naming.builder_selector(pool.key).items()
        labels = " and ".join(f"{key}={value}" for key, value in selector)
        text = (
            f"The operator cannot ask the daemon of {listed(silent)}. A NetworkPolicy must let "
            f"the operator's pods reach TCP port {naming.PORT} of the pods with {labels}. Until "
            "then, builds there do not make the pool grow, and the builder does not count as idle."
        )
        yield Row("load unknown", (text,))
    overdue = [b.name for b in builders if b.reason == EventReason.BUILD_OVERDUE]
    if overdue:
        limit = f" ({format_duration(spec.builders.max_build_duration)})" if spec else ""
        text = (
            f"On {listed(overdue)}, a build runs for longer than builders.maxBuildDuration"
            f"{limit}. If it hangs, end its client; if it is to take so long, raise the limit."
        )
        yield Row("overdue", (text,))


_HEAD: Final = ("NAME", "STATE", "BUILDS", "SERVED", "REVISION")
_REVISION_CHARACTERS: Final = 8
"""Characters of a revision that are shown: enough to tell two from each other."""


def _table(builders: Sequence[BuilderStatus], spec: PoolSpec | None, told: str) -> Iterator[str]:
    """A builder per line; ``told`` is what need not be said again."""
    slots = f"/{spec.builders.slots}" if spec else ""
    rows = [
        (
            builder.name,
            builder.state.value,
            ("?" if builder.builds is None else str(builder.builds)) + slots,
            "-" if builder.served is None else str(builder.served),
            builder.revision[:_REVISION_CHARACTERS],
        )
        for builder in builders
    ]
    if not rows:
        yield from laid_out([Row("builders", ("none",))])
        return
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    yield "builders"
    for cells, why in zip((_HEAD, *rows), ("WHY", *(_why(b, told) for b in builders)), strict=True):
        columns = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield from hung("    " + "  ".join(columns) + "  ", why)


def _why(builder: BuilderStatus, told: str) -> str:
    message = builder.message or ""
    if message and message in told:
        return f"{builder.reason}, see above"
    return ": ".join(part for part in (builder.reason, message) if part)


def _certificates(status: PoolStatus, spec: PoolSpec | None, now: datetime) -> Iterator[Row]:
    """How long they last, and how far a change of the authority is."""
    said = []
    condition = status.condition(ConditionType.CERTIFICATES_READY)
    if condition is not None and condition.status is not ConditionStatus.TRUE:
        said.append(_told(condition, now))
    first = min(status.clients, key=lambda client: client.not_after, default=None)
    if first is not None:
        verb = "ended" if first.not_after <= now else "is renewed before it ends,"
        said.append(f"The client certificate of {first.name} {verb} {on(first.not_after, now)}.")
    authority = status.authority
    if authority is not None:
        said.append(f"The authority ends {on(authority.not_after, now)}.")
        if authority.phase not in (None, _STEADY):
            since = f" since {at(authority.since, now)}" if authority.since else ""
            text = f"It is being replaced: {authority.phase}{since}."
            if authority.since and spec is not None:
                earliest = at(later(authority.since, spec.access.authority_overlap), now)
                text += f" The next phase comes at {earliest} or later (access.authorityOverlap)."
            said.append(text)
    if said:
        yield Row("certificates", said)


_STEADY: Final = "Steady"


def _cache(status: PoolStatus, now: datetime) -> Iterator[Row]:
    condition = status.condition(ConditionType.CACHE_READY)
    if condition is not None:
        yield Row("cache", (_told(condition, now),))
