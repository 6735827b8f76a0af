"""A pool's conditions, but for that of its cache: what holds, why, and what would help.

Pure. A message names the object and the remedy; the reason is used for the Event and the log, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from buildpool.core import naming
from buildpool.core.api import (
    BuilderState,
    BuilderStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    Pool,
    Reason,
    Routing,
)
from buildpool.core.api.status import MAX_MESSAGE
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.backlog import refusal
from buildpool.core.planning.plan import Plan
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.words import counted

PATIENT: Final = frozenset(
    {
        Reason.BUILDERS_STARTING,
        Reason.CACHE_RESTING,
        Reason.CACHE_STARTING,
        Reason.CACHE_UNKNOWN,
        Reason.DRAINING,
        Reason.SCALED_TO_ZERO,
        Reason.TERMINATING,
    }
)
"""Reasons for not being ready that nobody needs to do anything about."""


def certificates_ready(pool: Pool, plan: Plan, outcome: Outcome, *, valid: bool) -> Condition:
    """Whether everybody has a valid certificate; ``valid``: those there are now."""
    kind = ConditionType.CERTIFICATES_READY
    failures = [failure for failure in outcome.failures if failure.ref.kind == "Secret"]
    # Under a conflict nothing is issued: only what was there before can be valid.
    if plan.conflicts and not valid:
        return state_of(pool, kind, False, Reason.NAME_CONFLICT, _conflict(plan.conflicts))
    if failures:
        return state_of(pool, kind, False, Reason.CERTIFICATE_FAILED, _refusals(failures))
    count = len(pool.spec.access.clients)
    message = (
        f"The certificates of the builders and of {count} client{'s' * (count > 1)} are valid."
    )
    return state_of(pool, kind, True, Reason.ISSUED, message)


def progressing(
    pool: Pool,
    observation: Observation,
    plan: Plan,
    outcome: Outcome,
    builders: Sequence[BuilderStatus],
    size: int,
) -> Condition:
    """Whether builders are coming, going or being replaced."""
    kind = ConditionType.PROGRESSING
    if plan.conflicts:
        return state_of(pool, kind, False, Reason.NAME_CONFLICT, _conflict(plan.conflicts))
    if outcome.failures:
        reason = outcome.failures[0].reason
        return state_of(pool, kind, False, reason, _refusals(outcome.failures))
    serving = [builder for builder in builders if builder.state is not BuilderState.DRAINING]
    outdated = {member.name for member in plan.members if member.builder.flaw is not None}
    old = [builder for builder in serving if builder.name in outdated]
    new = [builder for builder in serving if builder.name not in outdated]
    stuck = next((b for b in (*new, *old) if is_stuck(b)), None)
    if stuck is not None:
        kept = sum(builder.ready for builder in old)
        tail = (
            f"; {counted(kept, 'builder')} of before {'keeps' if kept == 1 else 'keep'} serving"
            if kept
            else ""
        )
        message = f"{stuck.name}: {stuck.message}{tail}"
        return state_of(pool, kind, False, Reason(stuck.reason or ""), message)
    if observation.absent and not all(builder.ready for builder in new):
        return state_of(pool, kind, False, *_absence(observation))
    if old:
        message = f"{sum(b.ready for b in new)} of {size} builders are as the spec wants them."
        return state_of(pool, kind, True, Reason.ROLLING_OUT, message)
    if len(new) != size:
        message = (
            f"{counted(size - len(new), 'builder')} being added."
            if len(new) < size
            else f"{counted(len(new) - size, 'builder')} to go, each once it is idle."
        )
        return state_of(pool, kind, True, Reason.SCALING, message)
    starting = [builder.name for builder in new if not builder.ready]
    if starting:
        message = f"Waiting for {', '.join(starting)}."
        return state_of(pool, kind, True, Reason.SCALING, message)
    draining = [builder.name for builder in builders if builder.state is BuilderState.DRAINING]
    if draining:
        message = f"Waiting for the builds of {', '.join(draining)}."
        return state_of(pool, kind, True, Reason.DRAINING, message)
    return state_of(pool, kind, False, Reason.SETTLED, "The pool is as its spec wants it.")


def is_stuck(builder: BuilderStatus) -> bool:
    """Whether a builder will not come to serve by itself."""
    return not builder.ready and builder.reason in _STUCK


_STUCK: Final = frozenset(reason.value for reason in Reason if reason not in PATIENT)


def ready_to_build(
    pool: Pool,
    observation: Observation,
    plan: Plan,
    outcome: Outcome,
    builders: Sequence[BuilderStatus],
    size: int,
    *,
    gateway: str,
) -> Condition:
    """Whether as many builders take builds as the pool always has."""
    kind = ConditionType.READY
    if plan.conflicts:
        return state_of(pool, kind, False, Reason.NAME_CONFLICT, _conflict(plan.conflicts))
    through_gateway = pool.spec.routing is Routing.GATEWAY
    if through_gateway and (trouble := _trouble_of_gateway(pool, observation, gateway)):
        return state_of(pool, kind, False, *trouble)
    if not size and through_gateway and pool.spec.replicas is None:
        return state_of(pool, kind, True, Reason.ASLEEP, "No builder runs; a build wakes the pool.")
    if not size:
        message = "The pool shall have no builders: set spec.replicas to 1 or more, or remove it."
        return state_of(pool, kind, False, Reason.SCALED_TO_ZERO, message)
    ready = sum(builder.ready for builder in builders)
    if ready >= _least(pool, size) and (ready or not any(map(is_stuck, builders))):
        message = f"{ready} of {size} builders take builds."
        if ready >= size:
            message = (
                "The builder takes builds." if size == 1 else f"All {size} builders take builds."
            )
        return state_of(pool, kind, True, Reason.READY, message)
    if outcome.failures:
        reason = outcome.failures[0].reason
        return state_of(pool, kind, False, reason, _refusals(outcome.failures))
    if observation.absent:
        return state_of(pool, kind, False, *_absence(observation))
    lagging = [b for b in builders if not b.ready and b.state is not BuilderState.DRAINING]
    first = next(filter(is_stuck, lagging), next(iter(lagging), None))
    if first is None:
        message = f"{ready} of {size} builders are ready; more are being added."
        return state_of(pool, kind, False, Reason.BUILDERS_STARTING, message)
    reason = Reason(first.reason or "") if is_stuck(first) else Reason.BUILDERS_STARTING
    message = f"{ready} of {size} builders are ready; {first.name}: {first.message}"
    return state_of(pool, kind, False, reason, message)


def _trouble_of_gateway(
    pool: Pool, observation: Observation, gateway: str
) -> tuple[Reason, str] | None:
    """Why the gateway serves a pool that is behind it to nobody; None where it does."""
    if not gateway:
        message = (
            "routing is Gateway, and none is installed: set gateway.enabled in the values of the "
            "chart, or set spec.routing to Direct."
        )
        return Reason.GATEWAY_MISSING, message
    if refused := refusal(pool, observation):
        return Reason.HOSTNAME_TAKEN, refused
    if not any(observation.gateways.values()):
        message = (
            "No pod of the gateway is ready; see kubectl get pods --all-namespaces "
            f"--selector=app.kubernetes.io/component={naming.COMPONENT_GATEWAY}"
        )
        return Reason.GATEWAY_NOT_READY, message
    return None


def _least(pool: Pool, size: int) -> int:
    """How many builders have to take builds: a pool that grows was not less ready before."""
    always = pool.spec.scaling.min if pool.spec.replicas is None else size
    # Where builds can wait, a pool that wakes is ready as it was asleep.
    waits = pool.spec.routing is Routing.GATEWAY and pool.spec.replicas is None
    return max(0 if waits else 1, min(size, always))


def _conflict(refs: Sequence[Ref]) -> str:
    names = ", ".join(str(ref) for ref in refs)
    return (
        f"{names} exists and is not this pool's; rename the pool or remove it. Nothing was changed."
    )


def _refusals(failures: Sequence[Failure]) -> str:
    return " ".join(f"{failure.ref} was refused: {failure.message}" for failure in failures)


def _absence(observation: Observation) -> tuple[Reason, str]:
    """What the spec names and is not there; something is."""
    absent = sorted(observation.absent)
    is_secret = absent[0].kind == "Secret"
    names = ", ".join(str(ref) for ref in absent)
    return (
        Reason.SECRET_NOT_FOUND if is_secret else Reason.CONFIG_MAP_NOT_FOUND,
        f"The spec names {names}, which does not exist; create it, and the builders start.",
    )


def state_of(
    pool: Pool, kind: ConditionType, holds: bool, reason: Reason, message: str
) -> Condition:
    """A condition of this generation of the spec."""
    return Condition(
        type=kind,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        reason=reason,
        message=message[:MAX_MESSAGE],
        observed_generation=pool.generation,
    )
