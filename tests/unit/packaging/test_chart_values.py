"""The chart's values: the file, the schema and the reference name the same ones."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from buildpool.core.api import parse_pool

PROJECT = Path(__file__).parents[3]
CHART = PROJECT / "manifests" / "helm" / "buildpool"
REFERENCE = PROJECT / "docs" / "reference" / "chart.md"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def in_the_schema(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every value that has no parts which the schema names."""
    if "properties" not in schema:
        yield path
    for name, below in schema.get("properties", {}).items():
        yield from in_the_schema(below, f"{path}.{name}".lstrip("."))


def default(path: str) -> Any:
    """What the chart's own file says of a value; KeyError where it says nothing."""
    found = VALUES
    for name in path.split("."):
        found = found[name]
    return found


SCHEMA = json.loads((CHART / "values.schema.json").read_text())
PATHS = set(in_the_schema(SCHEMA)) - {"global"}
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| ?(.*?) ?\| ", REFERENCE.read_text(), re.MULTILINE))


def test_every_value_has_a_default_and_a_line_in_the_reference() -> None:
    assert len(PATHS) > 50
    assert ROWS.keys() == PATHS
    assert [path for path in PATHS if default(path) is None] == []


def test_every_default_is_in_the_schema() -> None:
    def below(values: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, value in values.items():
            whole = f"{path}.{name}".lstrip(".")
            if whole in PATHS or not isinstance(value, dict):
                yield whole
            else:
                yield from below(value, whole)

    assert set(below(VALUES)) == PATHS


def test_the_reference_tells_the_defaults_as_they_are() -> None:
    def written(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        return f"`{text}`" if text else ""

    plain = [path for path in PATHS if not (isinstance(default(path), dict) and default(path))]
    assert {path: ROWS[path] for path in plain} == {path: written(default(path)) for path in plain}


def test_templates_know_the_defaults_as_they_are() -> None:
    """Helm hides values.yaml from them."""
    copy = CHART / "files" / "defaults.yaml"
    assert copy.read_text() == (CHART / "values.yaml").read_text(), "run `make generate`"


def test_every_template_first_completes_its_values() -> None:
    templates = [*CHART.rglob("templates/**/*.yaml"), CHART / "templates" / "NOTES.txt"]
    assert len(templates) > 8
    first = '{{- include "buildpool.complete" . }}\n'
    assert [t.name for t in templates if not t.read_text().startswith(first)] == []


def test_in_every_section_what_is_missing_is_completed() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    (listed,) = re.findall(r"\$sections := list(.*?)}}", helpers, re.DOTALL)
    parts = [path.split(".") for path in PATHS]
    sections = {".".join(names[:end]) for names in parts for end in range(1, len(names))}
    assert set(re.findall(r'"([\w.]+)"', listed)) == sections


def test_the_charts_own_page_is_made_from_the_reference() -> None:
    made = subprocess.run(
        [PROJECT / "manifests" / "readme.sh"], capture_output=True, text=True, check=True
    )
    assert (CHART / "README.md").read_text() == made.stdout, "run `make generate`"
    # It is read where no other page is.
    assert re.findall(r"\]\((?!https:)", made.stdout) == []


def test_the_example_of_the_chart_is_a_valid_pool() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {"home", "sources", "maintainers", "kubeVersion"} <= chart.keys()
    (definition,) = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    crd = yaml.safe_load((CHART / "files" / f"{definition['name']}.yaml").read_text())
    assert crd["spec"]["names"]["kind"] == definition["kind"]
    assert definition["version"] in [each["name"] for each in crd["spec"]["versions"]]
    (example,) = yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"])
    assert example["kind"] == definition["kind"]
    parse_pool(example)
