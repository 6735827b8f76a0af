"""Whether as many builders take builds as the pool always has, and clients reach them. Pure."""

from __future__ import annotations

from typing import Final

from buildpool.core import naming
from buildpool.core.api import ConditionStatus, ConditionType, Reason, Routing
from buildpool.core.planning.backlog import refusal
from buildpool.core.planning.desired import wanted_acknowledgement
from buildpool.core.reporting.case import (
    Case,
    Check,
    Claim,
    conflict,
    fails,
    holds,
    is_stuck,
    object_refused,
    reference_missing,
    words_of,
)


def _gateway_missing(case: Case) -> Claim | None:
    if not _is_behind_gateway(case) or case.s.installation.gateway:
        return None
    return fails(
        Reason.GATEWAY_MISSING,
        "routing is Gateway, and none is installed: set gateway.enabled in the values of the "
        "chart, or set spec.routing to Direct.",
    )


def _hostname_taken(case: Case) -> Claim | None:
    refused = refusal(case.s.gateways) if _is_behind_gateway(case) else None
    return fails(Reason.HOSTNAME_TAKEN, refused) if refused else None


def _gateway_not_ready(case: Case) -> Claim | None:
    if not _is_behind_gateway(case) or any(case.s.observation.gateways.values()):
        return None
    return fails(
        Reason.GATEWAY_NOT_READY,
        "No pod of the gateway is ready; see kubectl get pods --all-namespaces "
        f"--selector=app.kubernetes.io/component={naming.COMPONENT_GATEWAY}",
    )


def _gateway_loading(case: Case) -> Claim | None:
    """Whether no pod of the gateway has said yet that it serves the pool as it is now."""
    seen = case.s.observation
    ready = {name for name, is_ready in seen.gateways.items() if is_ready}
    # One of an older version serves it, and never says so.
    if not _is_behind_gateway(case) or ready - seen.acknowledging:
        return None
    if any(failure.ref.kind == "Secret" for failure in case.outcome.failures):
        return None  # it cannot know better
    said = {entry.serves for entry in case.s.gateways if entry.name in ready and entry.serves}
    if wanted_acknowledgement(case.s) in said or (said and _was_ready_as_it_is(case)):
        return None
    return fails(
        Reason.GATEWAY_LOADING,
        "No pod of the gateway serves the pool as it is now, yet. If it stays so, see the logs of "
        f"the pods with app.kubernetes.io/component={naming.COMPONENT_GATEWAY}.",
    )


def _was_ready_as_it_is(case: Case) -> bool:
    """Whether the pool was ready by this spec: the certificate before a new one serves on."""
    pool = case.s.pool
    before = pool.status.condition(ConditionType.READY)
    return (
        before is not None
        and before.status is ConditionStatus.TRUE
        and before.observed_generation == pool.generation
    )


def _asleep(case: Case) -> Claim | None:
    if case.size or not _can_sleep(case):
        return None
    return holds(Reason.ASLEEP, "No builder runs; a build wakes the pool.")


def _scaled_to_zero(case: Case) -> Claim | None:
    if case.size:
        return None
    message = "The pool has no builders: set spec.replicas to 1 or more, or remove it."
    return holds(Reason.SCALED_TO_ZERO, message)


def _unreachable(case: Case) -> Claim | None:
    """What leads clients to builders could not be written; one that stands may fail for once."""
    failures = [
        failure
        for failure in case.outcome.failures
        if failure.ref.kind in _WAYS
        and (failure.ref not in case.s.own or failure.reason is not Reason.OBJECT_FAILED)
    ]
    return fails(failures[0].reason, words_of(failures)) if failures else None


_WAYS: Final = ("Service", "NetworkPolicy")


def _enough_ready(case: Case) -> Claim | None:
    ready, size = case.ready, case.size
    if ready < _least(case) or (not ready and any(map(is_stuck, case.builders))):
        return None
    if ready < size:
        return holds(Reason.READY, f"{ready} of {size} builders take builds.")
    message = "The builder takes builds." if size == 1 else f"All {size} builders take builds."
    return holds(Reason.READY, message)


def _lagging(case: Case) -> Claim:
    so_far = f"{case.ready} of {case.size} builders are ready"
    lagging = [builder for builder in case.serving if not builder.ready]
    first = next(filter(is_stuck, lagging), next(iter(lagging), None))
    if first is None:
        return fails(Reason.BUILDERS_STARTING, f"{so_far}; more are being added.")
    reason = Reason(first.reason or "") if is_stuck(first) else Reason.BUILDERS_STARTING
    return fails(reason, f"{so_far}; {first.name}: {first.message}")


READY: Final[tuple[Check, ...]] = (
    conflict,
    _gateway_missing,
    _hostname_taken,
    _gateway_not_ready,
    _gateway_loading,
    _unreachable,
    _asleep,
    _scaled_to_zero,
    _enough_ready,
    object_refused,
    reference_missing,
    _lagging,
)
"""From what matters most to what matters least; the last one always has something to say."""


def _is_behind_gateway(case: Case) -> bool:
    return case.s.pool.spec.routing is Routing.GATEWAY


def _can_sleep(case: Case) -> bool:
    """Whether builds can wait for the pool to wake."""
    return _is_behind_gateway(case) and case.s.pool.spec.replicas is None


def _least(case: Case) -> int:
    """How many builders have to take builds: a pool that grows was not less ready before."""
    # Where builds can wait, a pool that wakes is ready as it was asleep.
    return max(0 if _can_sleep(case) else 1, case.always)
