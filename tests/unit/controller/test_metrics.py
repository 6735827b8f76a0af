from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client.samples import Sample

from buildpool.cli.docs import described
from buildpool.controller.metrics import PoolMetrics
from buildpool.core.api import (
    AuthorityStatus,
    BuilderState,
    BuilderStatus,
    ClientStatus,
    Condition,
    ConditionStatus,
    PoolStatus,
    ScalingStatus,
    SizeReason,
)
from buildpool.core.api.status import CertificatesStatus
from buildpool.core.errors import UnavailableError
from buildpool.core.naming import PoolKey
from buildpool.core.observed.usage import Usage
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.kube.metrics import RequestMetrics
from buildpool.process import ProcessMetrics
from samples import NOW

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


def of(pool: PoolKey, **labels: str) -> dict[str, str]:
    return {"namespace": pool.namespace, "pool": pool.name, **labels}


def a_builder(name: str, **fields: object) -> BuilderStatus:
    values = {"name": name, "ready": True, "revision": "a", "state": "Serving", "builds": 0}
    return BuilderStatus.model_validate(values | fields)


def sized(size: int, reason: SizeReason = SizeReason.FOLLOWS_LOAD) -> ScalingStatus:
    return ScalingStatus(size=size, reason=reason)


def a_status(**overrides: object) -> PoolStatus:
    conditions = (
        Condition(type="Ready", status=ConditionStatus.TRUE, reason="Ready"),
        Condition(type="Progressing", status=ConditionStatus.FALSE, reason="Settled"),
    )
    clients = tuple(
        ClientStatus(name=name, secret=f"ci-client-{name}", not_after=NOW + timedelta(days=days))
        for name, days in (("ana", 30), ("bob", 7))
    )
    found = PoolStatus(
        ready_replicas=2,
        conditions=conditions,
        clients=clients,
        busy_slots=3,
        slots=4,
        scaling=sized(3),
        builders=(
            a_builder("ci-builder-0", builds=2),
            a_builder("ci-builder-1", builds=None),
            a_builder("ci-builder-2", state="Starting", ready=False),
            a_builder("ci-builder-3", state="Draining", reason="BuildOverdue", builds=1),
        ),
        authority=AuthorityStatus(not_after=NOW + timedelta(days=3000)),
    )
    return found.model_copy(update=overrides)


def shown(*statuses: PoolStatus, pool: PoolKey = CI) -> PoolMetrics:
    """The metrics of a process that saw these statuses, one after the other."""
    metrics, before = PoolMetrics(), PoolStatus()
    for status in statuses:
        metrics.report(pool, before, status)
        before = status
    return metrics


def value(metrics: PoolMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, of(CI, **labels))


def test_the_state_of_a_pool_is_shown() -> None:
    metrics = shown(a_status())
    assert value(metrics, "buildpool_builders_wanted") == 3
    assert value(metrics, "buildpool_builders_ready") == 2
    assert value(metrics, "buildpool_builds_running") == 3
    assert value(metrics, "buildpool_slots") == 4
    assert value(metrics, "buildpool_condition", condition="Ready") == 1
    assert value(metrics, "buildpool_condition", condition="Progressing") == 0


def test_builders_are_counted_by_state_and_by_what_is_the_matter() -> None:
    metrics = shown(a_status())
    by_state = {s: value(metrics, "buildpool_builders", state=s) for s in BuilderState}
    assert by_state == {"Starting": 1, "Serving": 2, "Draining": 1}
    assert value(metrics, "buildpool_builders_load_unknown") == 1
    assert value(metrics, "buildpool_builders_overdue") == 1


def test_a_state_in_which_no_builder_is_any_more_goes_back_to_zero() -> None:
    metrics = shown(a_status(), a_status(builders=(a_builder("ci-builder-0"),)))
    assert value(metrics, "buildpool_builders", state="Draining") == 0
    assert value(metrics, "buildpool_builders_load_unknown") == 0
    assert value(metrics, "buildpool_builders_overdue") == 0


def test_a_pool_of_which_no_size_was_decided_yet_wants_nothing() -> None:
    assert value(shown(a_status(scaling=None)), "buildpool_builders_wanted") == 0


def test_a_change_of_size_is_counted_by_its_reason_and_the_first_size_is_none() -> None:
    first, up, again = (a_status(scaling=sized(size)) for size in (1, 4, 4))
    down = a_status(scaling=sized(1, SizeReason.AT_MINIMUM))
    metrics = shown(first)
    assert value(metrics, "buildpool_size_changes_total", reason="FollowsLoad") is None
    metrics = shown(first, up, again, down)
    assert value(metrics, "buildpool_size_changes_total", reason="FollowsLoad") == 1
    assert value(metrics, "buildpool_size_changes_total", reason="AtMinimum") == 1


def test_a_restarted_operator_counts_no_change_where_there_was_none() -> None:
    metrics, status = PoolMetrics(), a_status()
    metrics.report(CI, status, status)
    assert value(metrics, "buildpool_size_changes_total", reason="FollowsLoad") is None


def test_builders_that_have_taken_builds_with_them_are_counted() -> None:
    metrics = PoolMetrics()
    for builders in (0, 2, 1):
        metrics.report_lost(CI, builders)
    assert value(metrics, "buildpool_builders_lost_total") == 3


def ends(*statuses: PoolStatus) -> dict[str, float | None]:
    """In how many days the first certificate of each use ends."""
    metrics, name = shown(*statuses), "buildpool_certificate_expiry_timestamp_seconds"
    found = {
        use: value(metrics, name, use=use) for use in ("client", "builder", "gateway", "cache")
    }
    now = NOW.timestamp()
    return {use: end and (end - now) / 86400 for use, end in found.items()}


def certified(**days: int) -> PoolStatus:
    """A pool whose certificates end in so many days."""
    moments = {use: NOW + timedelta(days=number) for use, number in days.items()}
    return a_status(certificates=CertificatesStatus(**moments))


def test_the_first_certificate_of_each_use_to_end_is_shown() -> None:
    everything = certified(builder=5, gateway=4, cache=3)
    assert ends(everything) == {"client": 7, "builder": 5, "gateway": 4, "cache": 3}


def test_the_end_of_a_certificate_that_is_no_longer_there_is_not_shown() -> None:
    found = ends(certified(builder=5, gateway=4, cache=3), certified(builder=6))
    assert found == {"client": 7, "builder": 6, "gateway": None, "cache": None}
    assert ends(a_status(clients=())) == dict.fromkeys(found)


def test_it_is_shown_when_the_authority_ends_and_whether_another_one_comes() -> None:
    steady = a_status()
    assert steady.authority is not None
    phase = {"phase": "Introducing", "since": NOW}
    rotating = a_status(authority=steady.authority.model_copy(update=phase))
    metrics = shown(steady)
    end = (NOW + timedelta(days=3000)).timestamp()
    assert value(metrics, "buildpool_authority_expiry_timestamp_seconds") == end
    assert value(metrics, "buildpool_authority_rotating") == 0
    assert value(shown(steady, rotating), "buildpool_authority_rotating") == 1
    assert value(shown(steady, rotating, steady), "buildpool_authority_rotating") == 0


def test_what_a_cache_gives_back_is_counted_over_restarts_of_its_keeper() -> None:
    metrics = PoolMetrics()
    for reclaimed in (100, 150, 30, 30):
        metrics.report_cache(CI, Usage(used=7, capacity=9, refs=2, reclaimed=reclaimed, damaged=1))
    assert value(metrics, "buildpool_cache_used_bytes") == 7
    assert value(metrics, "buildpool_cache_capacity_bytes") == 9
    assert value(metrics, "buildpool_cache_refs") == 2
    assert value(metrics, "buildpool_cache_reclaimed_bytes_total") == 50 + 30
    assert value(metrics, "buildpool_cache_damaged_blobs_total") == 0
    metrics.report_cache(CI, None)
    assert value(metrics, "buildpool_cache_used_bytes") == 7


def samples_of(metrics: PoolMetrics, pool: str) -> list[Sample]:
    samples = (s for family in metrics.registry.collect() for s in family.samples)
    return [sample for sample in samples if sample.labels.get("pool") == pool]


def test_nothing_more_is_shown_of_a_pool_that_is_gone_and_the_others_stay() -> None:
    metrics = PoolMetrics()
    for pool in (CI, OTHER):
        metrics.report(pool, a_status(scaling=sized(1)), a_status())
        metrics.report_lost(pool, 1)
        metrics.report_cache(pool, Usage())
        with metrics.measured_pass(pool):
            pass
    everything = {name for name, _, labels, _ in described(metrics) if "pool" in labels}
    assert {s.name for s in samples_of(metrics, "ci")} >= everything
    metrics.forget(CI)
    assert samples_of(metrics, "ci") == []
    assert {sample.name for sample in samples_of(metrics, "other")} >= everything
    metrics.forget(CI)


def test_a_pass_is_counted_by_its_result() -> None:
    metrics = PoolMetrics()
    with metrics.measured_pass(CI):
        pass
    with pytest.raises(UnavailableError), metrics.measured_pass(CI):
        raise UnavailableError("no")
    assert value(metrics, "buildpool_passes_total", result="done") == 1
    assert value(metrics, "buildpool_passes_total", result="failed") == 1
    assert metrics.registry.get_sample_value("buildpool_pass_seconds_count") == 2


def test_two_operators_in_one_process_do_not_meet() -> None:
    first, second = PoolMetrics(), PoolMetrics()
    first.leader.set(1)
    assert second.registry.get_sample_value("buildpool_leader") == 0


PROCESSES = [PoolMetrics, GatewayMetrics, ProcessMetrics, RequestMetrics]


@pytest.mark.parametrize("process", PROCESSES)
def test_every_metric_is_described_once_and_by_the_name_it_is_shown_under(
    process: type[PoolMetrics | GatewayMetrics | ProcessMetrics | RequestMetrics],
) -> None:
    metrics = process()
    listed = list(described(metrics))
    names = [name for name, *_ in listed]
    families = [f"{f.name}{'_total' * (f.type == 'counter')}" for f in metrics.registry.collect()]
    assert sorted(names) == sorted(families)
    assert len(set(names)) == len(names)
    for name, kind, labels, meaning in listed:
        assert name.startswith("buildpool_")
        assert kind in ("counter", "gauge", "histogram")
        assert meaning.endswith(".")
        assert set(labels) <= {
            "namespace", "pool", "result", "condition", "method", "kind", "code", "state", "reason",
            "client", "choice", "what", "use", "version",
        }, "labels must be bounded"  # fmt: skip
