"""The alerts and dashboards of the chart, as values: what tests ask of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILES = Path(__file__).parents[1] / "manifests" / "helm" / "buildpool" / "files"
RULES = FILES / "rules.yaml"
DASHBOARDS = {path.stem: path for path in sorted((FILES / "dashboards").glob("*.json"))}
_NAME = re.compile(r"\b(?:buildpool|container|kube)_\w+")
_SELECTOR = re.compile(rf"({_NAME.pattern})(?:\{{(.*?)\}})?")


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert."""

    name: str
    expression: str
    patience: str
    """How long the expression holds before it fires; empty: not at all."""
    severity: str
    annotations: dict[str, str]


def alerts() -> dict[str, Alert]:
    """All alerts, by name."""
    rules = [r for group in yaml.safe_load(RULES.read_text())["groups"] for r in group["rules"]]
    found = [
        Alert(
            rule["alert"],
            rule["expr"],
            rule.get("for", ""),
            rule["labels"]["severity"],
            rule["annotations"],
        )
        for rule in rules
    ]
    assert len({alert.name for alert in found}) == len(found)
    return {alert.name: alert for alert in found}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARDS[name].read_text())
    return found


def queries(name: str) -> dict[str, str]:
    """The expressions of a dashboard, by panel."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard(name)["panels"]
        for target in panel["targets"]
    }


def filled(expression: str, **variables: str) -> str:
    """An expression of a dashboard, as Grafana asks Prometheus."""
    known = {"__rate_interval": "1m", "__range": "5m", **variables}
    return re.sub(r"\$(\w+)", lambda found: known[found[1]], expression)


def selectors(expression: str) -> dict[str, str]:
    """What an expression selects: the name of each metric, with its matchers."""
    return {found[0]: found[1] for found in _SELECTOR.finditer(expression)}
