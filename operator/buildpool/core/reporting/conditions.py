"""A pool's conditions, but for that of its cache: what holds, why, and what would help.

Decisions as data: for each condition a list of named checks, from what matters most to what matters
least; the first that has something to say wins. Pure. A message names the object and the remedy;
the reason is used for the Event and the log, too.
"""

from __future__ import annotations

from typing import Final

from buildpool.core.api import (
    BuilderState,
    Condition,
    ConditionStatus,
    ConditionType,
    Pool,
    Reason,
)
from buildpool.core.api.status import MAX_MESSAGE_CHARACTERS, format_time
from buildpool.core.pki import begins
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
from buildpool.core.reporting.conflicts import about_clients
from buildpool.core.reporting.readiness import READY
from buildpool.core.words import Finding, counted


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
        message=why.message[:MAX_MESSAGE_CHARACTERS],
        observed_generation=pool.generation,
    )


_STATUSES: Final = {
    True: ConditionStatus.TRUE,
    False: ConditionStatus.FALSE,
    None: ConditionStatus.UNKNOWN,
}


def _accepted(_: Case) -> Claim:
    return holds(Reason.ACCEPTED, "The spec is valid.")


def _conflict_without_certificates(case: Case) -> Claim | None:
    # Under a conflict nothing is issued: only what was there before can be valid.
    return None if case.has_valid_certificates else conflict(case)


def _client_left_out(case: Case) -> Claim | None:
    taken = (ref for ref in case.plan.conflicts if ref not in case.s.left_out)
    secrets = [ref for ref in taken if ref.kind == "Secret"]
    if case.plan.is_blocked or not secrets:
        return None
    message = f"{about_clients(case.s, secrets)} All else of the pool goes on."
    return fails(Reason.NAME_CONFLICT, message)


def _secret_refused(case: Case) -> Claim | None:
    failures = [failure for failure in case.outcome.failures if failure.ref.kind == "Secret"]
    return fails(Reason.CERTIFICATE_FAILED, words_of(failures)) if failures else None


def _authority_from_the_future(case: Case) -> Claim | None:
    start = begins(case.s.authority)
    if start is None or start <= case.s.now:
        return None
    return fails(
        Reason.CERTIFICATE_FAILED,
        f"The pool's authority is not valid before {format_time(start)}: a clock was ahead when it "
        "was made. Set the clocks right, and delete its Secret to have another one made.",
    )


def _issued(case: Case) -> Claim:
    clients = counted(len(case.s.pool.spec.access.clients), "client")
    return holds(Reason.ISSUED, f"The certificates of the builders and of {clients} are valid.")


def _builder_stuck(case: Case) -> Claim | None:
    stuck = next(filter(is_stuck, (*case.wanted, *case.flawed)), None)
    if stuck is None:
        return None
    kept = sum(builder.ready for builder in case.flawed)
    verb = "keeps" if kept == 1 else "keep"
    tail = f"; {counted(kept, 'builder')} of the previous revision {verb} serving" if kept else ""
    return fails(Reason(stuck.reason or ""), f"{stuck.name}: {stuck.message}{tail}")


def _start_prevented(case: Case) -> Claim | None:
    return None if all(b.ready for b in case.wanted) else reference_missing(case)


def _rolling_out(case: Case) -> Claim | None:
    if not case.flawed:
        return None
    new = sum(builder.ready for builder in case.wanted)
    message = f"{new} of {case.size} builders are as the spec wants them."
    return holds(Reason.ROLLING_OUT, message)


def _growing(case: Case) -> Claim | None:
    missing = case.size - len(case.wanted)
    if missing <= 0:
        return None
    return holds(Reason.SCALING, f"{counted(missing, 'builder')} being added.")


def _shrinking(case: Case) -> Claim | None:
    surplus = len(case.wanted) - case.size
    if surplus <= 0:
        return None
    message = f"{counted(surplus, 'builder')} to be removed, each once it is idle."
    return holds(Reason.SCALING, message)


def _starting(case: Case) -> Claim | None:
    starting = [builder.name for builder in case.wanted if not builder.ready]
    return holds(Reason.SCALING, f"Waiting for {', '.join(starting)}.") if starting else None


def _waiting_for_turn(case: Case) -> Claim | None:
    held = sum(member.is_held for member in case.s.members if member.builder.retired is None)
    return holds(Reason.WAITING_FOR_TURN, _about_turn(held)) if held else None


def _about_turn(waiting: int) -> str:
    return (
        f"{counted(waiting, 'builder')} to be replaced, because the operator was upgraded and not "
        "because of the spec. The pool serves meanwhile, and waits until fewer pools replace "
        "theirs. A change of its spec waits for nothing."
    )


def _unknown_revision(case: Case) -> Claim | None:
    # Without the builders' certificate nobody can say what they shall run.
    return None if case.s.revision else conflict(case) or _secret_refused(case)


def _outdated(case: Case) -> Claim | None:
    outdated = len(case.s.outdated)
    if not outdated:
        return None
    if case.s.waits_for_turn:
        return fails(Reason.WAITING_FOR_TURN, _about_turn(outdated))
    return fails(Reason.ROLLING_OUT, f"{counted(outdated, 'builder')} to be replaced.")


def _up_to_date(_: Case) -> Claim:
    return holds(Reason.SETTLED, "All builders that take builds run what the spec wants.")


def _draining(case: Case) -> Claim | None:
    draining = [b.name for b in case.builders if b.state is BuilderState.DRAINING]
    if not draining:
        return None
    return holds(Reason.DRAINING, f"Waiting for the builds of {', '.join(draining)}.")


def _settled(_: Case) -> Claim:
    return fails(Reason.SETTLED, "The pool is as its spec wants it.")


CHECKS: Final[dict[ConditionType, tuple[Check, ...]]] = {
    ConditionType.ACCEPTED: (_accepted,),
    ConditionType.CERTIFICATES_READY: (
        _conflict_without_certificates,
        _client_left_out,
        _secret_refused,
        _authority_from_the_future,
        _issued,
    ),
    # Whether builders are coming, going or being replaced.
    ConditionType.PROGRESSING: (
        conflict,  # nothing moves
        object_refused,  # something should have moved
        _builder_stuck,  # somebody has to do something
        _start_prevented,
        _rolling_out,
        _growing,
        _shrinking,
        _starting,
        _waiting_for_turn,
        _draining,
        _settled,
    ),
    # What a restarted operator knows by who waits for a turn, and since when (planning.turns).
    ConditionType.UP_TO_DATE: (_unknown_revision, _outdated, _up_to_date),
    ConditionType.READY: READY,
}
