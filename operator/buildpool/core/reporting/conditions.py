"""A pool's conditions, but for that of its cache: what holds, why, and what would help.

Decisions as data: for each condition a list of named checks, from what matters most to what matters
least; the first that has something to say wins. Pure. A message names the object and the remedy;
the reason is used for the Event and the log, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

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
from buildpool.core.api.status import MAX_MESSAGE, format_time
from buildpool.core.pki import begins
from buildpool.core.planning.backlog import refusal
from buildpool.core.planning.plan import Plan
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.words import Finding, counted

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
_STUCK: Final = frozenset(reason.value for reason in Reason if reason not in PATIENT)


@dataclass(frozen=True)
class Case:
    """What is judged: a pass, and the builders as they are after it."""

    s: Situation
    plan: Plan
    outcome: Outcome
    builders: Sequence[BuilderStatus]
    size: int
    """How many builders there shall be."""
    has_valid_certificates: bool
    """Whether all certificates that there are now are valid."""

    @cached_property
    def serving(self) -> Sequence[BuilderStatus]:
        """The builders that are to stay."""
        return [b for b in self.builders if b.state is not BuilderState.DRAINING]

    @cached_property
    def flawed(self) -> Sequence[BuilderStatus]:
        """Those of them that are to be replaced."""
        names = {member.name for member in self.s.members if member.builder.flaw is not None}
        return [builder for builder in self.serving if builder.name in names]

    @cached_property
    def wanted(self) -> Sequence[BuilderStatus]:
        """Those of them that are as the spec wants them."""
        return [builder for builder in self.serving if builder not in self.flawed]

    @cached_property
    def ready(self) -> int:
        """How many builders take builds."""
        return sum(builder.ready for builder in self.builders)


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a condition holds, and why."""

    holds: bool
    why: Finding[Reason]


Check: TypeAlias = Callable[[Case], Claim | None]


def conditions_of(case: Case) -> tuple[Condition, ...]:
    """All of them, after a pass over a pool whose spec is valid."""
    return tuple(
        state_of(case.s.pool, kind, claim.holds, claim.why)
        for kind, checks in CHECKS.items()
        for claim in [next(filter(None, (check(case) for check in checks)))]
    )


def state_of(
    pool: Pool, kind: ConditionType, holds: bool | None, why: Finding[Reason]
) -> Condition:
    """A condition of this generation of the spec; None: nobody knows whether it holds."""
    return Condition(
        type=kind,
        status=_STATUSES[holds],
        reason=why.reason,
        message=why.message[:MAX_MESSAGE],
        observed_generation=pool.generation,
    )


_STATUSES: Final = {
    True: ConditionStatus.TRUE,
    False: ConditionStatus.FALSE,
    None: ConditionStatus.UNKNOWN,
}


def is_stuck(builder: BuilderStatus) -> bool:
    """Whether a builder will not come to serve by itself."""
    return not builder.ready and builder.reason in _STUCK


def _holds(reason: Reason, message: str) -> Claim:
    return Claim(True, Finding(reason, message))


def _fails(reason: Reason, message: str) -> Claim:
    return Claim(False, Finding(reason, message))


def _accepted(_: Case) -> Claim:
    return _holds(Reason.ACCEPTED, "The spec is valid.")


def _conflict(case: Case) -> Claim | None:
    if not case.plan.conflicts:
        return None
    names = ", ".join(str(ref) for ref in case.plan.conflicts)
    return _fails(
        Reason.NAME_CONFLICT,
        f"{names} exists and is not this pool's; rename the pool or remove it. Nothing was "
        "changed.",
    )


def _conflict_without_certificates(case: Case) -> Claim | None:
    # Under a conflict nothing is issued: only what was there before can be valid.
    return None if case.has_valid_certificates else _conflict(case)


def _secret_refused(case: Case) -> Claim | None:
    failures = [failure for failure in case.outcome.failures if failure.ref.kind == "Secret"]
    return _fails(Reason.CERTIFICATE_FAILED, _words_of(failures)) if failures else None


def _authority_from_the_future(case: Case) -> Claim | None:
    start = begins(case.s.authority)
    if start is None or start <= case.s.now:
        return None
    return _fails(
        Reason.CERTIFICATE_FAILED,
        f"The pool's authority is not valid before {format_time(start)}: a clock was ahead when it "
        "was made. Set the clocks right, and delete its Secret to have another one made.",
    )


def _issued(case: Case) -> Claim:
    clients = counted(len(case.s.pool.spec.access.clients), "client")
    return _holds(Reason.ISSUED, f"The certificates of the builders and of {clients} are valid.")


def _object_refused(case: Case) -> Claim | None:
    failures = case.outcome.failures
    return _fails(failures[0].reason, _words_of(failures)) if failures else None


def _builder_stuck(case: Case) -> Claim | None:
    stuck = next(filter(is_stuck, (*case.wanted, *case.flawed)), None)
    if stuck is None:
        return None
    kept = sum(builder.ready for builder in case.flawed)
    verb = "keeps" if kept == 1 else "keep"
    tail = f"; {counted(kept, 'builder')} of before {verb} serving" if kept else ""
    return _fails(Reason(stuck.reason or ""), f"{stuck.name}: {stuck.message}{tail}")


def _reference_missing(case: Case) -> Claim | None:
    """The spec names something that does not exist."""
    absent = sorted(case.s.observation.absent)
    if not absent:
        return None
    is_secret = absent[0].kind == "Secret"
    names = ", ".join(str(ref) for ref in absent)
    return _fails(
        Reason.SECRET_NOT_FOUND if is_secret else Reason.CONFIG_MAP_NOT_FOUND,
        f"The spec names {names}, which does not exist; create it, and the builders start.",
    )


def _start_prevented(case: Case) -> Claim | None:
    return None if all(b.ready for b in case.wanted) else _reference_missing(case)


def _rolling_out(case: Case) -> Claim | None:
    if not case.flawed:
        return None
    new = sum(builder.ready for builder in case.wanted)
    message = f"{new} of {case.size} builders are as the spec wants them."
    return _holds(Reason.ROLLING_OUT, message)


def _growing(case: Case) -> Claim | None:
    missing = case.size - len(case.wanted)
    if missing <= 0:
        return None
    return _holds(Reason.SCALING, f"{counted(missing, 'builder')} being added.")


def _shrinking(case: Case) -> Claim | None:
    surplus = len(case.wanted) - case.size
    if surplus <= 0:
        return None
    message = f"{counted(surplus, 'builder')} to be removed, each once it is idle."
    return _holds(Reason.SCALING, message)


def _starting(case: Case) -> Claim | None:
    starting = [builder.name for builder in case.wanted if not builder.ready]
    return _holds(Reason.SCALING, f"Waiting for {', '.join(starting)}.") if starting else None


def _draining(case: Case) -> Claim | None:
    draining = [b.name for b in case.builders if b.state is BuilderState.DRAINING]
    if not draining:
        return None
    return _holds(Reason.DRAINING, f"Waiting for the builds of {', '.join(draining)}.")


def _settled(_: Case) -> Claim:
    return _fails(Reason.SETTLED, "The pool is as its spec wants it.")


def _gateway_missing(case: Case) -> Claim | None:
    if not _is_behind_gateway(case) or case.s.installation.gateway:
        return None
    return _fails(
        Reason.GATEWAY_MISSING,
        "routing is Gateway, and none is installed: set gateway.enabled in the values of the "
        "chart, or set spec.routing to Direct.",
    )


def _hostname_taken(case: Case) -> Claim | None:
    refused = refusal(case.s.gateways) if _is_behind_gateway(case) else None
    return _fails(Reason.HOSTNAME_TAKEN, refused) if refused else None


def _gateway_not_ready(case: Case) -> Claim | None:
    if not _is_behind_gateway(case) or any(case.s.observation.gateways.values()):
        return None
    return _fails(
        Reason.GATEWAY_NOT_READY,
        "No pod of the gateway is ready; see kubectl get pods --all-namespaces "
        f"--selector=app.kubernetes.io/component={naming.COMPONENT_GATEWAY}",
    )


def _asleep(case: Case) -> Claim | None:
    if case.size or not _can_sleep(case):
        return None
    return _holds(Reason.ASLEEP, "No builder runs; a build wakes the pool.")


def _scaled_to_zero(case: Case) -> Claim | None:
    if case.size:
        return None
    message = "The pool has no builders: set spec.replicas to 1 or more, or remove it."
    return _fails(Reason.SCALED_TO_ZERO, message)


def _unreachable(case: Case) -> Claim | None:
    """What leads clients to builders could not be written."""
    failures = [f for f in case.outcome.failures if f.ref.kind in _WAYS]
    return _fails(failures[0].reason, _words_of(failures)) if failures else None


_WAYS: Final = ("Service", "NetworkPolicy")


def _enough_ready(case: Case) -> Claim | None:
    ready, size = case.ready, case.size
    if ready < _least(case) or (not ready and any(map(is_stuck, case.builders))):
        return None
    if ready < size:
        return _holds(Reason.READY, f"{ready} of {size} builders take builds.")
    message = "The builder takes builds." if size == 1 else f"All {size} builders take builds."
    return _holds(Reason.READY, message)


def _lagging(case: Case) -> Claim:
    so_far = f"{case.ready} of {case.size} builders are ready"
    lagging = [builder for builder in case.serving if not builder.ready]
    first = next(filter(is_stuck, lagging), next(iter(lagging), None))
    if first is None:
        return _fails(Reason.BUILDERS_STARTING, f"{so_far}; more are being added.")
    reason = Reason(first.reason or "") if is_stuck(first) else Reason.BUILDERS_STARTING
    return _fails(reason, f"{so_far}; {first.name}: {first.message}")


CHECKS: Final[dict[ConditionType, tuple[Check, ...]]] = {
    ConditionType.ACCEPTED: (_accepted,),
    ConditionType.CERTIFICATES_READY: (
        _conflict_without_certificates,
        _secret_refused,
        _authority_from_the_future,
        _issued,
    ),
    # Whether builders are coming, going or being replaced.
    ConditionType.PROGRESSING: (
        _conflict,  # nothing moves
        _object_refused,  # something should have moved
        _builder_stuck,  # somebody has to do something
        _start_prevented,
        _rolling_out,
        _growing,
        _shrinking,
        _starting,
        _draining,
        _settled,
    ),
    # Whether as many builders take builds as the pool always has, and clients reach them.
    ConditionType.READY: (
        _conflict,
        _gateway_missing,
        _hostname_taken,
        _gateway_not_ready,
        _unreachable,
        _asleep,
        _scaled_to_zero,
        _enough_ready,
        _object_refused,
        _reference_missing,
        _lagging,
    ),
}


def _is_behind_gateway(case: Case) -> bool:
    return case.s.pool.spec.routing is Routing.GATEWAY


def _can_sleep(case: Case) -> bool:
    """Whether builds can wait for the pool to wake."""
    return _is_behind_gateway(case) and case.s.pool.spec.replicas is None


def _least(case: Case) -> int:
    """How many builders have to take builds: a pool that grows was not less ready before."""
    spec = case.s.pool.spec
    always = spec.scaling.min if spec.replicas is None else case.size
    # Where builds can wait, a pool that wakes is ready as it was asleep.
    return max(0 if _can_sleep(case) else 1, min(case.size, always))


def _words_of(failures: Sequence[Failure]) -> str:
    return " ".join(str(failure) for failure in failures)
