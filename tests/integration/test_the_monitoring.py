"""Alerts and dashboards, as a real Prometheus takes them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client import start_http_server

from buildpool.core import naming
from buildpool.core.api import Inject
from buildpool.core.api.brief import ClientBrief
from buildpool.core.naming import PoolKey
from cluster import Api, OperatorProcess, a_pool
from daemons import until
from gateway.asking import CACHE, HELLO, SOLVE, a_solve, asked, begun, refusal
from gateway.lab import Lab, PoolLab, a_gateway, call
from gateway.ports import free_port
from integration.alert_cases import CASES, all_tests
from integration.charts import rendered, the
from monitoring import DASHBOARDS, RULES, alerts, filled, queries, selectors
from prometheus import Prometheus, a_prometheus, promtool


def test_promtool_finds_nothing_wrong_with_the_alerts() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


@pytest.mark.parametrize("each", sorted({case.each for case in CASES}))
def test_an_alert_fires_when_it_should_and_is_silent_when_not(each: str, tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(all_tests(each)))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_for_every_alert_it_is_tested_when_it_fires_and_when_it_is_silent() -> None:
    for fires in (True, False):
        assert {c.alert for c in CASES if (c.labels is not None) is fires} == alerts().keys()
    # One that waits is also looked at before it fires.
    waits = {name for name, alert in alerts().items() if alert.patience}
    assert waits <= {case.alert for case in CASES if case.not_yet}


def test_the_chart_installs_the_very_alerts_that_are_tested(tmp_path: Path) -> None:
    labels, page = "metrics.rules.labels.release=prometheus", "https://docs.example/alerts"
    plain = the("PrometheusRule", "buildpool", rendered("metrics.rules.enabled=true", labels))
    assert plain["metadata"]["labels"]["release"] == "prometheus"
    assert plain["spec"] == yaml.safe_load(RULES.read_text())
    own = rendered("metrics.rules.enabled=true", f"metrics.rules.runbooks={page}")
    links = {
        rule["annotations"]["runbook_url"].partition("#")[0]
        for group in the("PrometheusRule", "buildpool", own)["spec"]["groups"]
        for rule in group["rules"]
    }
    assert links == {page}


def test_the_chart_installs_the_dashboards_where_the_sidecar_finds_them() -> None:
    annotation = "metrics.dashboards.annotations.grafana_folder=Builds"
    objects = rendered("metrics.dashboards.enabled=true", annotation)
    found = {
        name: data
        for each in objects
        if each["kind"] == "ConfigMap"
        and each["metadata"]["labels"].get("grafana_dashboard") == "1"
        and each["metadata"]["annotations"] == {"grafana_folder": "Builds"}
        for name, data in each["data"].items()
    }
    assert found == {f"buildpool-{n}.json": path.read_text() for n, path in DASHBOARDS.items()}


def test_neither_is_there_for_those_who_do_not_ask_for_it() -> None:
    assert not {"PrometheusRule", "ConfigMap"} & {each["kind"] for each in rendered()}


UNSEEN = {
    # A managed cache needs a keeper, and here no pod runs.
    *(f"buildpool_cache_{what}" for what in ("used_bytes", "capacity_bytes", "refs")),
    *(f"buildpool_cache_{what}_total" for what in ("reclaimed_bytes", "damaged_blobs")),
    # Of the kubelet.
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
}
"""Metrics that no scrape here has."""
UNSEEN_SELECTORS = {'buildpool_passes_total{result="failed"}'}
"""Of metrics that are scraped, what has not happened here."""


@asynccontextmanager
async def in_use(lab: Lab, namespace: str) -> AsyncIterator[None]:
    """A pool has built, with the cache; one client was refused, and at last another one waits."""
    identity = naming.client_identity(PoolKey(namespace, "ci"), "ann")
    client = ClientBrief(identity=identity, name="ann", inject=Inject.FULL)
    pool = PoolLab(namespace=namespace, cache=CACHE, clients=(client,))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    builder.steps = {"ref": (2, 3)}
    builder.release.set()
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        await call(first, SOLVE, a_solve("ref", source="github.com/acme/app"))
        async with lab.connect(pool, pool.client("mallory")) as stranger:
            await refusal(begun(stranger, HELLO))
        await lab.build_log(1)
        builder.release.clear()
        running = asyncio.create_task(call(first, SOLVE, a_solve("another"), within=300))
        await asked(builder, SOLVE, 2)
        waiting = asyncio.create_task(call(second, HELLO, within=300))
        await lab.queued(pool, 1)
        try:
            yield
        finally:
            for task in (running, waiting):
                task.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)


async def test_what_dashboards_and_alerts_ask_has_an_answer(
    installed: Api, namespace: str, operator: OperatorProcess, tmp_path: Path
) -> None:
    """Of a pool that an operator looks after, and of the same pool at a gateway."""
    cached = {"cache": {"registry": {"managed": {}}}}
    installed.apply(a_pool("ci", namespace, scaling={"min": 1}, **cached))
    where = {"namespace": namespace, "pool": "ci"}
    wanted = lambda: operator.counted("buildpool_builders_wanted", **where)  # noqa: E731
    await until(lambda: wanted() == 1, "the pool has its size")
    installed.apply(a_pool("ci", namespace, scaling={"min": 2}, **cached))
    await until(lambda: operator.counted("buildpool_size_changes_total", **where) == 1, "it grows")
    async with a_gateway(tmp_path) as lab, in_use(lab, namespace):
        ports = {"buildpool": operator.metrics_port, "buildpool-gateway": free_port()}
        gateway = ports["buildpool-gateway"]
        server, thread = start_http_server(gateway, "127.0.0.1", registry=lab.metrics.registry)
        try:
            with a_prometheus(tmp_path, port=free_port(), scrapes=ports, rules=RULES) as prometheus:
                await until(prometheus.is_ready, "it answers")
                seen = "min(count_over_time(up[1m])) > 3 and sum(up) == 2"
                await until(lambda: bool(prometheus.query(seen)), "it has asked both some times")
                faults = list(unanswered(prometheus, namespace))
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    assert not faults, "\n".join(faults)


def unanswered(prometheus: Prometheus, namespace: str) -> Iterator[str]:
    """The expressions that have no answer, or one about nothing."""
    expressions = {alert.name: alert.expression for alert in alerts().values()}
    for name in DASHBOARDS:
        for panel, written in queries(name).items():
            expressions[f"{name}: {panel}"] = filled(written, namespace=namespace, pool="ci")
    for place, expression in expressions.items():
        prometheus.query(expression)
        selected = selectors(expression)
        known = {s for s, metric in selected.items() if metric not in UNSEEN} - UNSEEN_SELECTORS
        if missing := [selector for selector in known if not prometheus.query(selector)]:
            yield f"{place}: there is no {', '.join(missing)}"
        # An alert, and a table of what is wrong, leave out what is well.
        everything = re.sub(r" (==|<|>) \d+(?=\)|$)", "", expression)
        is_question = place not in alerts() and known == selected.keys()
        if is_question and not prometheus.query(everything):
            yield f"{place}: no sample"
