from __future__ import annotations

from datetime import timedelta

import pytest

from buildpool.api import ClientStatus, Condition, ConditionStatus, PoolStatus
from buildpool.cache import Usage
from buildpool.errors import UnavailableError
from buildpool.metrics import Metrics
from buildpool.naming import PoolKey
from samples import NOW

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


def of(pool: PoolKey, **labels: str) -> dict[str, str]:
    return {"namespace": pool.namespace, "pool": pool.name, **labels}


def a_status(**overrides: object) -> PoolStatus:
    conditions = (
        Condition(type="Ready", status=ConditionStatus.TRUE, reason="Ready"),
        Condition(type="Progressing", status=ConditionStatus.FALSE, reason="Settled"),
    )
    clients = tuple(
        ClientStatus(name=name, secret=f"ci-client-{name}", not_after=NOW + timedelta(days=days))
        for name, days in (("ana", 30), ("bob", 7))
    )
    found = PoolStatus(ready_replicas=2, conditions=conditions, clients=clients)
    return found.model_copy(update=overrides)


def test_the_state_of_a_pool_is_shown() -> None:
    metrics = Metrics()
    metrics.report(CI, a_status(), wanted=3)
    value = metrics.registry.get_sample_value
    assert value("buildpool_builders_wanted", of(CI)) == 3
    assert value("buildpool_builders_ready", of(CI)) == 2
    assert value("buildpool_condition", of(CI, condition="Ready")) == 1
    assert value("buildpool_condition", of(CI, condition="Progressing")) == 0


def test_the_first_certificate_to_end_is_shown() -> None:
    metrics = Metrics()
    metrics.report(CI, a_status(), wanted=3)
    found = metrics.registry.get_sample_value(
        "buildpool_certificate_expiry_timestamp_seconds", of(CI)
    )
    assert found == (NOW + timedelta(days=7)).timestamp()


def test_what_a_cache_gives_back_is_counted_over_restarts_of_its_keeper() -> None:
    metrics = Metrics()
    for reclaimed in (100, 150, 30, 30):
        metrics.report_cache(CI, Usage(used=7, capacity=9, refs=2, reclaimed=reclaimed, damaged=1))
    value = metrics.registry.get_sample_value
    assert value("buildpool_cache_used_bytes", of(CI)) == 7
    assert value("buildpool_cache_capacity_bytes", of(CI)) == 9
    assert value("buildpool_cache_refs", of(CI)) == 2
    assert value("buildpool_cache_reclaimed_bytes_total", of(CI)) == 50 + 30
    assert value("buildpool_cache_damaged_blobs_total", of(CI)) == 0
    metrics.report_cache(CI, None)
    assert value("buildpool_cache_used_bytes", of(CI)) == 7


def test_nothing_more_is_shown_of_a_pool_that_is_gone_and_the_others_stay() -> None:
    metrics = Metrics()
    for pool in (CI, OTHER):
        metrics.report(pool, a_status(), wanted=3)
        metrics.report_cache(pool, Usage())
        with metrics.measured_pass(pool):
            pass
    metrics.forget(CI)
    samples = [s for family in metrics.registry.collect() for s in family.samples]
    pools = [sample.labels["pool"] for sample in samples if "pool" in sample.labels]
    assert set(pools) == {"other"}
    metrics.forget(CI)


def test_a_pass_is_counted_by_its_result() -> None:
    metrics = Metrics()
    with metrics.measured_pass(CI):
        pass
    with pytest.raises(UnavailableError), metrics.measured_pass(CI):
        raise UnavailableError("no")
    value = metrics.registry.get_sample_value
    assert value("buildpool_passes_total", of(CI, result="done")) == 1
    assert value("buildpool_passes_total", of(CI, result="failed")) == 1
    assert value("buildpool_pass_seconds_count") == 2


def test_a_request_is_counted_by_how_it_ended() -> None:
    metrics = Metrics()
    with metrics.request("PATCH", "Secret") as answer:
        answer.code = "200"
    with pytest.raises(UnavailableError), metrics.request("PATCH", "Secret"):
        raise UnavailableError("connection reset")
    value = metrics.registry.get_sample_value
    for code in ("200", "error"):
        labels = {"method": "PATCH", "kind": "Secret", "code": code}
        assert value("buildpool_kubernetes_requests_total", labels) == 1
    assert value("buildpool_kubernetes_request_seconds_count", {"method": "PATCH"}) == 2


def test_two_operators_in_one_process_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.leader.set(1)
    assert second.registry.get_sample_value("buildpool_leader") == 0


def test_every_metric_is_described_once_and_by_the_name_it_is_shown_under() -> None:
    metrics = Metrics()
    described = list(metrics.described())
    names = [name for name, *_ in described]
    families = [f"{f.name}{'_total' * (f.type == 'counter')}" for f in metrics.registry.collect()]
    assert sorted(names) == sorted(families)
    assert len(set(names)) == len(names)
    for name, kind, labels, meaning in described:
        assert name.startswith("buildpool_")
        assert kind in ("counter", "gauge", "histogram")
        assert meaning.endswith(".")
        assert set(labels) <= {
            "namespace", "pool", "result", "condition", "method", "kind", "code",
        }, "labels must be bounded"  # fmt: skip
