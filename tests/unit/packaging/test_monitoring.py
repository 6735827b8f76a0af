"""Alerts and dashboards ask for metrics that exist, and their page tells of all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from buildpool.cli.docs import described
from buildpool.controller.metrics import PoolMetrics
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.kube.metrics import RequestMetrics
from buildpool.process import ProcessMetrics
from monitoring import DASHBOARDS, Alert, alerts, dashboard, filled, queries, selectors
from unit.test_generated import anchors

PROJECT = Path(__file__).parents[3]
PAGE = PROJECT / "docs" / "operations" / "monitoring.md"
REFERENCE = (PROJECT / "docs" / "reference" / "metrics.md").read_text()
OTHERS = {
    # Of the kubelet's cAdvisor.
    "container_cpu_usage_seconds_total": {"namespace", "pod", "container"},
    "container_memory_working_set_bytes": {"namespace", "pod", "container"},
}
"""Metrics that are not ours, and their labels by which we ask."""
EXPRESSIONS = {
    **{alert.name: alert.expression for alert in alerts().values()},
    **{f"{name}: {of}": text for name in DASHBOARDS for of, text in queries(name).items()},
}


def metrics() -> dict[str, set[str]]:
    """The labels of every metric that may be asked for, by the names of its samples."""
    found = dict(OTHERS)
    for process in (PoolMetrics(), GatewayMetrics(), ProcessMetrics(), RequestMetrics()):
        for name, kind, labels, _ in described(process):
            for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
                found[name + suffix] = set(labels)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_an_expression_asks_for_metrics_that_exist_by_labels_that_they_have(
    expression: str,
) -> None:
    known = metrics()
    asked = selectors(expression)
    assert asked
    for selector, name in asked.items():
        assert name in known
        if name not in OTHERS:
            assert f"`{re.sub('_(bucket|sum|count)$', '', name)}`" in REFERENCE
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= known[name]
    # What looks like a name of a metric is one, but for these.
    words = re.sub(r'"[^"]*"|\{\{.*?\}\}', "", expression)
    assert set(re.findall(r"\b\w+_\w+\b", words)) - known.keys() <= {
        "histogram_quantile", "__rate_interval", "__range",
    }  # fmt: skip


def test_an_alert_says_which_pool_it_is_about() -> None:
    for alert in alerts().values():
        grouped = re.findall(r"by \((.*?)\)", alert.expression)
        used = set(re.findall(r"\$labels\.(\w+)", "".join(alert.annotations.values())))
        assert all(used <= set(re.findall(r"\w+", labels)) for labels in grouped), alert.name


@pytest.mark.parametrize("alert", alerts().values(), ids=alerts())
def test_an_alert_has_words_for_people_and_a_section_that_says_what_to_do(alert: Alert) -> None:
    assert alert.severity in ("critical", "warning", "info")
    assert {"summary", "description", "runbook_url"} == alert.annotations.keys()
    for text in (alert.annotations["summary"], alert.annotations["description"]):
        assert text.endswith(".")
    link, _, section = alert.annotations["runbook_url"].partition("#")
    assert link.endswith(str(PAGE.relative_to(PROJECT)))
    assert section == alert.name.lower()
    assert section in anchors(PAGE)


def test_the_page_lists_the_alerts_as_they_are() -> None:
    row = r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \| (\w*) ?\|$"
    listed = re.findall(row, PAGE.read_text(), re.MULTILINE)
    assert listed == [(a.name, a.name.lower(), a.severity, a.patience) for a in alerts().values()]
    explained = re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert explained == list(alerts())


def test_alerts_link_below_the_home_of_the_chart() -> None:
    chart = (PROJECT / "manifests" / "helm" / "buildpool" / "Chart.yaml").read_text()
    (home,) = re.findall(r"^home: (\S+)$", chart, re.MULTILINE)
    links = {a.annotations["runbook_url"].partition("#")[0] for a in alerts().values()}
    assert links == {f"{home}/{PAGE.relative_to(PROJECT)}"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_one_that_grafana_takes(name: str) -> None:
    found = dashboard(name)
    assert found["uid"] == f"buildpool-{name}"
    assert f"| {found['title']} |" in PAGE.read_text()
    assert "id" not in found, "Grafana gives it"
    variables = {each["name"] for each in found["templating"]["list"]}
    panels = found["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"].endswith(".")
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for expression in queries(name).values():
        assert set(re.findall(r"\$(\w+)", expression)) <= {*variables, "__rate_interval", "__range"}
        assert "$" not in filled(expression, namespace="builds", pool="ci")
