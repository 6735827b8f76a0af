from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import Pool, identify_pool, parse_pool
from buildpool.core.api.status import format_time
from buildpool.core.errors import InvalidSpecError
from buildpool.core.explanation import explain
from buildpool.core.scaling import Builder, Calm, LastDecision, decide
from samples import DAY, NOW, a_pool, a_raw_pool

MINUTE = timedelta(minutes=1)
WIDTH = 100


def ago(span: timedelta) -> str:
    """A moment as it stands in a status."""
    return format_time(NOW - span)


def a_builder(number: int, **fields: Any) -> dict[str, Any]:
    """A builder that serves and runs nothing."""
    return {
        "name": f"ci-builder-{number}",
        "state": "Serving",
        "ready": True,
        "revision": "3f2a5b6c7d8e9f01",
        "builds": 0,
        **fields,
    }


def a_condition(kind: str, holds: bool, reason: str, message: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": ago(5 * MINUTE),
        **fields,
    }


READY = a_condition("Ready", True, "Ready", "All 2 builders take builds.")
QUIET = [a_builder(0, builds=1), a_builder(1)]
SETTLED = a_condition("Progressing", False, "Settled", "The pool is as its spec wants it.")


def a_scaling(size: int = 2, **fields: Any) -> dict[str, Any]:
    return {
        "size": size,
        "reason": "FollowsLoad",
        "message": f"3 builds run; {size} builders will do.",
        "since": ago(4 * MINUTE),
        **fields,
    }


def a_status(*conditions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """That of a pool with two builders and three builds; conditions are beside those that hold."""
    builders = fields.get("builders", [a_builder(0, builds=2, served=41), a_builder(1, builds=1)])
    ready = sum(builder["ready"] for builder in builders)
    said = {found["type"]: found for found in (READY, SETTLED, *conditions)}
    return {
        "observedGeneration": 1,
        "conditions": list(said.values()),
        "replicas": len(builders),
        "readyReplicas": ready,
        "busySlots": sum(builder.get("builds") or 0 for builder in builders),
        "slots": 2 * ready,
        "scaling": a_scaling(),
        "builders": builders,
        "clients": [
            {
                "name": "default",
                "secret": "ci-client-default",
                "notAfter": format_time(NOW + 59 * DAY),
            }
        ],
        "authority": {"notAfter": format_time(NOW + 3650 * DAY)},
        **fields,
    }


def told(*, now: datetime = NOW, status: dict[str, Any] | None = None, **overrides: Any) -> str:
    """The explanation in one line: where it breaks lines is not what a test looks at."""
    return told_of(a_pool(status=a_status() if status is None else status, **overrides), now=now)


def told_of(pool: Pool, *, now: datetime = NOW) -> str:
    """The same of a whole pool."""
    return " ".join(explain(pool, now=now).split())


def labels(text: str) -> list[str]:
    """What an explanation speaks about, in its order."""
    return [line[:14].strip() for line in text.splitlines()[1:] if not line.startswith(" ")]


WELL = """\
builds/ci: 2 builders (of 1 to 8), 1 build on 4 slots and 1 on builders that drain, Ready
progress      Draining: Waiting for the builds of ci-builder-2. Since 11:55:00 UTC (5m ago).
why 2         CoolingDown: 1 build runs; 1 builder would do. So many since 11:56:00 UTC (4m ago).
next          It grows as soon as more than 3 builds run.
              At 12:08:00 UTC (in 8m) it shrinks to 1, if no more builds come: builders without any
              go.
builders
    NAME          STATE     BUILDS  SERVED  REVISION  WHY
    ci-builder-0  Serving   1/2     41      3f2a5b6c
    ci-builder-1  Serving   0/2     7       3f2a5b6c
    ci-builder-2  Draining  1/2     -       9c1b2d3e  Outdated: it does not run what the spec wants
                                                      any more
certificates  The client certificate of default is renewed before it ends, 2026-03-01 (in 59d).
              The authority ends 2035-12-30 (in 3650d).
cache         CacheAnswers: Caches can be read and written. Since 11:55:00 UTC (5m ago)."""


def test_a_pool_that_is_well_is_explained_on_one_page() -> None:
    draining = a_builder(
        2,
        state="Draining",
        ready=False,
        builds=1,
        revision="9c1b2d3e4f5a6b7c",
        reason="Outdated",
        message="it does not run what the spec wants any more",
    )
    status = a_status(
        a_condition("Progressing", True, "Draining", "Waiting for the builds of ci-builder-2."),
        a_condition("CacheReady", True, "CacheAnswers", "Caches can be read and written."),
        builders=[a_builder(0, builds=1, served=41), a_builder(1, served=7), draining],
        scaling=a_scaling(
            reason="CoolingDown",
            message="1 build runs; 1 builder would do.",
            calmSince=ago(2 * MINUTE),
            peak=1,
        ),
    )
    assert explain(a_pool(status=status), now=NOW) == WELL


def test_a_pool_that_is_kept_warm_says_that_it_shrinks_no_further() -> None:
    asked = {"annotations": {naming.ANNOTATION_WARM: f"2 until {format_time(NOW + MINUTE)}"}}
    status = a_status(builders=QUIET, scaling=a_scaling(reason="KeptWarm", message="Until then."))
    text = explain(a_pool(status=status, metadata=asked), now=NOW)
    assert "It shrinks no further for as long as it is kept warm." in text
    over = explain(a_pool(status=status, metadata=asked), now=NOW + MINUTE)
    assert "It shrinks once there were" in " ".join(over.split())


def test_a_pool_that_no_operator_has_seen_says_how_to_look_for_one() -> None:
    text = explain(a_pool(status={}), now=NOW)
    assert labels(text) == ["operator"]
    assert "has not looked at this pool yet" in text
    assert "kubectl get pods -A -l app.kubernetes.io/name=buildpool," in text


def test_a_spec_that_no_operator_has_seen_is_told_before_all_else() -> None:
    text = explain(a_pool(status=a_status(), generation=7), now=NOW)
    assert labels(text)[:2] == ["operator", "why 2"]
    assert "has not looked at generation 7 of it yet, only at 1" in text


def test_a_decision_that_is_long_due_means_that_no_operator_is_there() -> None:
    status = a_status(builders=QUIET, scaling=a_scaling(calmSince=ago(10 * MINUTE), peak=1))
    assert "Any moment now it shrinks to 1" in told(status=status)
    assert "operator It" not in told(status=status, now=NOW + 2 * MINUTE)
    late = told(status=status, now=NOW + 3 * MINUTE)
    assert "operator It was to decide on the size at 12:00:00 UTC (3m ago), and has not." in late


def test_a_pool_that_was_refused_from_the_start_says_why() -> None:
    refused = a_condition("Accepted", False, "InvalidSpec", "spec.builders.config: bad; mend it.")
    text = explain(a_pool(status={"observedGeneration": 1, "conditions": [refused]}), now=NOW)
    assert text.startswith("builds/ci: no builders yet\ninvalid spec  spec.builders.config: bad;")
    assert labels(text) == ["invalid spec"]


def test_what_is_wrong_with_a_spec_comes_first_and_nothing_is_told_from_it() -> None:
    raw = a_raw_pool(
        status=a_status(scaling=a_scaling(calmSince=ago(DAY), peak=1)),
        builders={"config": "no toml", "slots": 7},
        scaling={"max": 77},
    )
    try:
        parse_pool(raw)
    except InvalidSpecError as error:
        refusal = error
    text = explain(identify_pool(raw), now=NOW, refusal=refusal)
    assert labels(text) == ["invalid spec", "why 2", "builders", "certificates"]
    assert "spec.builders.config: not valid TOML" in text
    assert text.count("What was valid before keeps serving.") == 1
    assert "No builder comes or goes until the spec is" in text
    assert "of 1 to" not in text
    assert re.search("ci-builder-0  Serving  2 ", text)


def test_a_refusal_of_another_operator_counts_only_for_the_spec_it_is_about() -> None:
    refused = a_condition(
        "Accepted",
        False,
        "InvalidSpec",
        "spec.x: bad; mend it. What was valid before keeps serving.",
    )
    assert "invalid spec spec.x: bad; mend it. What was" in told(status=a_status(refused))
    mended = told(status=a_status(refused), generation=2)
    assert "invalid spec" not in mended
    assert "has not looked at generation 2" in mended


def test_a_set_size_says_how_to_hand_it_back() -> None:
    scaling = a_scaling(reason="ReplicasSet", message="spec.replicas asks for 2 builders.")
    text = explain(a_pool(status=a_status(scaling=scaling), replicas=2), now=NOW)
    assert "ReplicasSet: spec.replicas asks for 2 builders." in text
    command = """kubectl patch bkp ci -n builds --type=merge -p '{"spec":{"replicas":null}}'"""
    assert any(line.strip() == command for line in text.splitlines())
    assert "grows" not in text


def test_a_command_is_never_broken_and_nothing_else_is_wider_than_a_terminal() -> None:
    name = "a" * naming.MAX_POOL_NAME_CHARACTERS
    message = "no node takes the pod: " + "0/3 nodes are available. " * 20
    builder = a_builder(0, ready=False, reason="Unschedulable", message=message)
    builder |= {"name": f"{name}-builder-100", "builds": None}
    status = a_status(
        a_condition("Ready", False, "Unschedulable", "Another message. " * 20), builders=[builder]
    )
    pool = a_pool(name=name, namespace="n" * 60, generation=2, replicas=2, status=status)
    lines = explain(pool, now=NOW).splitlines()[1:]
    wide = [line.strip() for line in lines if len(line) > WIDTH]
    assert all(line.startswith("kubectl ") for line in wide), wide
    assert sum("kubectl patch" in line and "null}}'" in line for line in lines) == 1


def test_a_pool_at_its_maximum_says_what_would_help() -> None:
    full = a_scaling(8, reason="AtMaximum", message="16 builds run; that needs 10 builders.")
    text = told(status=a_status(scaling=full))
    assert "It cannot grow: raise scaling.max (8), or builders.slots (2)" in text
    assert "It grows no further: scaling.max is 8." in told(status=a_status(scaling=a_scaling(8)))


def test_a_pool_at_its_minimum_does_not_promise_to_shrink() -> None:
    text = told(status=a_status(scaling=a_scaling(reason="AtMinimum")), scaling={"min": 2})
    assert "It shrinks no further: scaling.min is 2." in text


def test_a_daemon_that_does_not_answer_leads_to_the_network_policy() -> None:
    builders = [
        a_builder(0, builds=None),
        a_builder(1, builds=None, state="Starting", ready=False),
    ]
    text = told(status=a_status(builders=builders))
    assert (
        "load unknown The operator cannot ask the daemon of ci-builder-0. A NetworkPolicy" in text
    )
    assert "TCP port 1234 of the pods with app.kubernetes.io/component=builder and" in text
    assert "ci-builder-0 Serving ?/2" in text


def test_a_pool_whose_builders_do_not_say_what_they_run_does_not_promise_to_shrink() -> None:
    silent = [a_builder(0, builds=None), a_builder(1, builds=None)]
    scaling = a_scaling(calmSince=ago(2 * MINUTE), peak=1)
    text = told(status=a_status(builders=silent, scaling=scaling))
    assert "It does not shrink while builders do not say what they run." in text
    assert "it shrinks to" not in text


def test_what_holds_up_a_rollout_is_told_once() -> None:
    why = "image r.example/buildkit:v9 cannot be pulled"
    status = a_status(
        a_condition("Ready", False, "ImagePullFailed", f"1 of 2 builders are ready; b: {why}"),
        a_condition("Progressing", False, "ImagePullFailed", f"b: {why}; 1 keeps serving"),
        builders=[
            a_builder(0),
            a_builder(1, state="Starting", ready=False, reason="ImagePullFailed", message=why),
        ],
    )
    text = told(status=status)
    assert text.startswith("builds/ci: 2 builders wanted (of 1 to 8), 1 takes builds, ")
    assert "2 slots, not Ready not ready ImagePullFailed: 1 of 2" in text
    assert "stuck The builders are not as the spec wants them, for the same reason." in text
    assert text.count(why) == 1
    assert "ImagePullFailed, see above" in text


def test_a_rollout_that_is_stuck_while_enough_builders_serve_says_why() -> None:
    stuck = a_condition("Progressing", False, "Unschedulable", "ci-builder-2: no node takes it")
    text = told(status=a_status(stuck))
    assert "stuck Unschedulable: ci-builder-2: no node takes it. Since 11:55:00 UTC" in text
    assert "not ready" not in text


def test_an_overdue_build_is_told_with_what_the_reader_can_do() -> None:
    late = a_builder(0, builds=1, reason="BuildOverdue", message="build x7 runs for too long")
    text = told(status=a_status(builders=[late]), builders={"maxBuildDuration": "3h"})
    assert "overdue On ci-builder-0, a build runs for longer than" in text
    assert "builders.maxBuildDuration (3h). If it hangs, end its client" in text
    assert "BuildOverdue: build x7 runs for too long" in text


def test_of_many_names_only_the_first_are_told() -> None:
    silent = [a_builder(number, builds=None) for number in range(12)]
    text = told(status=a_status(builders=silent))
    assert "ci-builder-4 and 7 more. A NetworkPolicy" in text


def test_the_client_whose_certificate_ends_first_is_named() -> None:
    clients = [
        {"name": name, "secret": f"ci-client-{name}", "notAfter": format_time(NOW + days * DAY)}
        for name, days in (("ana", 40), ("bob", 20))
    ]
    text = told(status=a_status(clients=clients))
    assert "The client certificate of bob is renewed before it ends, 2026-01-21 (in 20d)." in text
    text = told(status=a_status(clients=clients), now=NOW + 21 * DAY)
    assert "The client certificate of bob ended 2026-01-21 (24h ago)." in text


def test_certificates_that_are_not_ready_say_why() -> None:
    refused = a_condition("CertificatesReady", False, "CertificateFailed", "Secret/x was refused")
    assert "certificates CertificateFailed: Secret/x was refused." in told(status=a_status(refused))


def test_a_change_of_the_authority_says_how_far_it_is() -> None:
    authority = {"notAfter": format_time(NOW + 9 * DAY), "phase": "Introducing"}
    text = told(status=a_status(authority=authority))
    assert "It is being replaced: Introducing." in text
    authority |= {"since": ago(30 * MINUTE)}
    text = told(status=a_status(authority=authority), access={"authorityOverlap": "2h"})
    assert "It is being replaced: Introducing since 11:30:00 UTC (30m ago)." in text
    assert "The next phase comes at 13:30:00 UTC (in 1h30m) or later" in text
    text = told(status=a_status(authority={**authority, "phase": "Steady"}))
    assert "replaced" not in text


def a_deleted_pool(*conditions: dict[str, Any], **overrides: Any) -> Pool:
    # A decision that is long due tells nothing of a pool that is on its way out.
    scaling = a_scaling(calmSince=ago(DAY), peak=1)
    return a_pool(
        status=a_status(*conditions, scaling=scaling),
        metadata={"deletionTimestamp": ago(5 * MINUTE)},
        **overrides,
    )


def test_a_deleted_pool_says_what_it_waits_for_and_until_when() -> None:
    waiting = "Waiting for running builds to finish on ci-builder-0-7c9d-x2x7k."
    leaving = a_condition("Ready", False, "Terminating", waiting)
    text = explain(a_deleted_pool(leaving, builders={"maxBuildDuration": "1h"}), now=NOW)
    assert text.startswith("builds/ci: is being deleted\nsince         11:55:00 UTC (5m ago)\n")
    assert labels(text) == ["since", "now", "next"]
    assert waiting in text
    assert "may go on until about 12:55:00 UTC (in 55m)" in text


def test_a_deleted_pool_that_no_operator_has_seen_says_how_to_let_go_of_it() -> None:
    text = explain(a_deleted_pool(generation=2), now=NOW)
    assert labels(text) == ["operator", "since", "waits for"]
    assert "docs/how-to/uninstall.md" in text


def test_a_pool_without_builders_has_no_table() -> None:
    none = a_condition("Ready", True, "ScaledToZero", "The pool is to have no builders: set it.")
    scaling = a_scaling(0, reason="ReplicasSet", message="spec.replicas asks for 0 builders.")
    text = explain(a_pool(status=a_status(none, builders=[], scaling=scaling), replicas=0), now=NOW)
    assert text.startswith("builds/ci: 0 builders, 0 builds on 0 slots, Ready\nstopped")
    assert "\nbuilders      none\n" in text


def test_moments_of_another_day_have_their_date() -> None:
    scaling = a_scaling(since=ago(3 * DAY), calmSince=format_time(NOW), peak=1)
    status = a_status(builders=QUIET, scaling=scaling)
    text = told(status=status, scaling={"idleAfter": "13h"})
    assert "So many since 2025-12-29 12:00:00 UTC (72h ago)." in text
    assert "At 2026-01-02 01:00:00 UTC (in 13h) it shrinks to 1" in text


sizes = st.integers(1, 12)
loads = st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=12)


routings = st.sampled_from(["Direct", "Gateway"])
GROWS = r"grows as soon as (?:more than (\d+) builds?|a build) runs?( or waits?)?\."


def decided(
    pool: Pool, builds: list[int | None], memory: LastDecision, now: datetime, waiting: int = 0
) -> int:
    """How many builders the operator would want."""
    builders = [
        Builder(index, created=NOW - DAY, is_ready=True, builds=count, as_of=now)
        for index, count in enumerate(builds)
    ]
    decision = decide(
        pool.spec, builders, taken=frozenset(), memory=memory, waiting=waiting, now=now
    )
    return decision.size


@given(size=sizes, slots=sizes, target=st.integers(1, 100), routing=routings)
def test_the_builds_with_which_a_pool_grows_are_those_the_operator_goes_by(
    size: int, slots: int, target: int, routing: str
) -> None:
    spec = {
        "builders": {"slots": slots},
        "scaling": {"max": 100, "targetUtilization": target},
        "routing": routing,
    }
    pool = a_pool(status=a_status(scaling=a_scaling(size)), **spec)
    said = re.search(GROWS, told_of(pool))
    assert said is not None
    assert bool(said[2]) == (routing == "Gateway")
    enough = int(said[1] or 0)
    assert decided(pool, [enough], LastDecision(size=size), NOW) == size
    assert decided(pool, [enough + 1], LastDecision(size=size), NOW) > size
    if routing == "Gateway":
        running = min(enough, size * slots)
        assert decided(pool, [running], LastDecision(size=size), NOW, enough - running) == size
        assert decided(pool, [running], LastDecision(size=size), NOW, enough - running + 1) > size


@given(size=st.integers(2, 12), slots=sizes, target=st.integers(1, 100))
def test_the_builds_with_which_a_pool_could_shrink_are_those_the_operator_goes_by(
    size: int, slots: int, target: int
) -> None:
    spec = {
        "builders": {"slots": slots},
        "scaling": {"max": 12, "targetUtilization": target},
    }
    pool = a_pool(status=a_status(scaling=a_scaling(size)), **spec)
    said = re.search(r"once there were (?:no more than (\d+) builds?|no builds)", told_of(pool))
    assert said is not None
    few, memory = int(said[1] or 0), LastDecision(size=size, calm=Calm(NOW - DAY, 1))
    assert decided(pool, [few], memory, NOW) < size
    assert decided(pool, [few + 1], memory, NOW) >= size


@given(size=st.integers(2, 12), builds=loads, waiting=st.integers(0, 9), peak=sizes, slots=sizes)
def test_a_pool_shrinks_when_and_as_far_as_it_is_said_to(
    size: int, builds: list[int | None], waiting: int, peak: int, slots: int
) -> None:
    calm = Calm(NOW - 4 * MINUTE, min(peak, size - 1))
    status = a_status(
        builders=[a_builder(index, builds=count) for index, count in enumerate(builds)],
        scaling=a_scaling(size, calmSince=format_time(calm.since), peak=calm.peak),
        waiting=waiting,
    )
    spec = {"builders": {"slots": slots}, "scaling": {"max": 12}, "routing": "Gateway"}
    pool = a_pool(status=status, **spec)
    memory = LastDecision(size=size, calm=calm)
    if decided(pool, builds, LastDecision(size=0), NOW, waiting) >= size:
        return  # the operator has seen other builds than those with which it decided
    text = explain(pool, now=NOW)
    at_last = decided(pool, builds, memory, NOW + 6 * MINUTE, waiting)
    assert decided(pool, builds, memory, NOW + 5 * MINUTE, waiting) == size
    if at_last == size:
        assert "It does not shrink while builders do not say" in " ".join(text.split())
    else:
        assert f"At 12:06:00 UTC (in 6m) it shrinks to {at_last}," in text


def test_where_builds_can_wait_a_pool_is_said_to_grow_for_those() -> None:
    asleep = a_status(builders=[], scaling=a_scaling(0, reason="AtMinimum"))
    gateway = {"routing": "Gateway", "scaling": {"min": 0, "targetUtilization": 100}}
    text = told(status=asleep, **gateway)
    assert "next It grows as soon as a build runs or waits. It shrinks no further" in text
    text = told(status=a_status(builders=QUIET, scaling=a_scaling(1)), **gateway)
    assert "It grows as soon as more than 2 builds run or wait." in text
    assert "It shrinks once there were no builds for 10m (scaling.idleAfter)." in text
    text = told(status=a_status(), **gateway)
    assert "once there were no more than 2 builds, running or waiting, at a time for 10m" in text


def test_a_pool_does_not_say_that_it_goes_below_what_waits_for_it() -> None:
    scaling = a_scaling(4, calmSince=ago(2 * MINUTE), peak=1)
    status = a_status(builders=QUIET, scaling=scaling, waiting=4)
    text = told(status=status, routing="Gateway", scaling={"targetUtilization": 100})
    assert "it shrinks to 3, if no more builds come" in text


def test_who_waits_is_told_with_how_long_it_may_and_whether_the_queue_moves() -> None:
    text = told(status=a_status(waiting=3))
    assert "queue 3 builds wait for a slot at the gateway, for up to 30m (gateway.maxWait)." in text
    blocked = told(status=a_status(waiting=1, blockedSince=ago(3 * MINUTE)))
    assert "1 build waits for a slot" in blocked
    assert "None has got one since 11:57:00 UTC (3m ago)." in blocked
    assert "queue" not in told()
