"""Whether the spec is carried out, for machines: the conditions ``Reconciling`` and ``Stalled``.

Pure. kstatus reads them, and through it Flux and ``helm --wait``; its rules are in
https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/status/generic.go. Both are
always there, for ``kubectl wait`` cannot wait for what is absent; at most one is True. They speak
of what the spec asks for: a pool that follows its builds, replaces old builders or lets builds end
must never make anybody wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Condition, ConditionStatus, ConditionType, Pool, Reason
from buildpool.core.planning.plan import GRACE
from buildpool.core.reporting.case import PATIENT, Case
from buildpool.core.reporting.conditions import state_of
from buildpool.core.words import Finding

MACHINES: Final = (ConditionType.RECONCILING, ConditionType.STALLED)
"""The two conditions; what they say, others say too."""
Verdict = tuple[Condition, Condition]

_HEALING: Final = frozenset(
    {
        Reason.BUILDER_CRASHING,
        Reason.CERTIFICATE_FAILED,
        Reason.CONFIG_MAP_NOT_FOUND,
        Reason.FORBIDDEN,
        Reason.GATEWAY_LOADING,
        Reason.GATEWAY_NOT_READY,
        Reason.OBJECT_FAILED,
        Reason.SECRET_NOT_FOUND,
        Reason.UNSCHEDULABLE,
    }
)
"""What often ends by itself: a node is being added, a Secret is applied a moment after the pool."""
_CACHE_REFUSED: Final = frozenset({Reason.IMAGE_PULL_FAILED, Reason.POD_REFUSED})
"""What keeps a managed cache from ever running, besides a name that somebody else has.

Any other state of a cache comes and goes."""


def verdict_on(case: Case, said: Mapping[str, Condition]) -> Verdict:
    """After a pass over a valid spec; ``said`` are the other conditions with their times."""
    pool = case.s.pool
    troubles = list(_troubles(case, said))
    if troubles:
        return troubled(pool, troubles, case.s.now)
    ready, progress = said[ConditionType.READY], said[ConditionType.PROGRESSING]
    for waits, condition in ((not _holds(ready), ready), (_lacks_builders(case), progress)):
        if waits:
            return under_way(pool, _why(condition))
    return _verdict(pool, Finding(Reason.SETTLED, "What the spec asks for is there."))


def troubled(pool: Pool, troubles: list[Condition], now: datetime) -> Verdict:
    """Where these stand in the way: for good, or not for so long yet that it would be said."""
    lasting = [each for each in troubles if _lasts(each, now)]
    if lasting:
        return stalled(pool, _why(lasting[0]))
    return under_way(pool, _why(troubles[0]))


def under_way(pool: Pool, why: Finding[Reason]) -> Verdict:
    """The spec is being carried out."""
    return _verdict(pool, why, reconciling=True)


def stalled(pool: Pool, why: Finding[Reason]) -> Verdict:
    """The spec will not be carried out unless somebody does something."""
    return _verdict(pool, why, stalled=True)


def _verdict(
    pool: Pool, why: Finding[Reason], *, reconciling: bool = False, stalled: bool = False
) -> Verdict:
    return (
        state_of(pool, ConditionType.RECONCILING, reconciling, why),
        state_of(pool, ConditionType.STALLED, stalled, why),
    )


def _troubles(case: Case, said: Mapping[str, Condition]) -> Iterator[Condition]:
    """The conditions that say why the spec is not carried out, but for those that will pass."""
    for kind in (ConditionType.READY, ConditionType.CERTIFICATES_READY):
        passes = said[kind].reason in PATIENT - _HEALING
        if not _holds(said[kind]) and not passes:
            yield said[kind]
    progress = said[ConditionType.PROGRESSING]
    if not _holds(progress) and progress.reason != Reason.SETTLED and _is_about_spec(case):
        yield progress
    cache = said.get(ConditionType.CACHE_READY)
    # A cache also says whose the ConfigMap for pipelines is: without it, builds have their cache.
    never_runs = case.s.withheld or (cache is not None and cache.reason in _CACHE_REFUSED)
    if cache is not None and not _holds(cache) and never_runs:
        yield cache


def _is_about_spec(case: Case) -> bool:
    """Whether what holds up progress is more than a builder that only the load asks for."""
    if case.plan.is_blocked or _lacks_builders(case):
        return True
    key = case.s.pool.key
    added = case.plan.decision.add if case.plan.decision else ()
    hoped = {name(key, n) for n in added for name in (naming.builder, naming.builder_volume)}
    return any(failure.ref.name not in hoped for failure in case.outcome.failures)


def _lacks_builders(case: Case) -> bool:
    """Whether a builder runs what the spec wants no more, or too few run what it wants."""
    outdated = {member.name for member in case.s.members if not member.is_current}
    current = [builder for builder in case.serving if builder.name not in outdated]
    return len(current) < len(case.serving) or sum(b.ready for b in current) < case.always


def _lasts(trouble: Condition, now: datetime) -> bool:
    since = trouble.last_transition_time or now
    return trouble.reason not in _HEALING or now - since >= GRACE


def _holds(condition: Condition) -> bool:
    return condition.status is ConditionStatus.TRUE


def _why(condition: Condition) -> Finding[Reason]:
    return Finding(Reason(condition.reason), condition.message)
