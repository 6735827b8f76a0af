"""The chart gets values of an older one, which lack what is new: ``--reuse-values`` of Helm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import Api
from integration.charts import (
    CHART,
    SECOND,
    default_routing,
    flags_of,
    loaded,
    must_helm,
    rendered,
)

OLD_VALUES = Path(__file__).parent / "values-0.1.0.yaml"
"""All of them, which Helm keeps as the defaults of the release."""
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
MADE_TO_LEAVE_OUT = ("resources", "podSecurityContext", "securityContext", "router", "envoy")
"""Maps of Kubernetes' own: a field that is set to null is left out, and comes back in no way."""


def paths(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every value and every section, by its path."""
    for name, value in values.items():
        path = f"{above}.{name}".lstrip(".")
        yield path
        if isinstance(value, dict) and (
            path == "gateway.resources" or name not in MADE_TO_LEAVE_OUT
        ):
            yield from paths(value, path)


@pytest.mark.parametrize("path", list(paths(VALUES)))
def test_what_the_values_lack_is_as_the_chart_has_it(path: str) -> None:
    assert rendered(f"{path}=null") == rendered()


def test_a_field_of_a_container_that_is_taken_out_stays_out() -> None:
    (deployment,) = (
        o
        for o in rendered("resources.limits=null", "securityContext.capabilities=null")
        if (o["kind"], o["metadata"]["name"]) == ("Deployment", "buildpool")
    )
    (operator,) = deployment["spec"]["template"]["spec"]["containers"]
    assert operator["resources"].keys() == {"requests"}
    assert "capabilities" not in operator["securityContext"]


def with_values(folder: Path, values: Path) -> Path:
    """The chart, with these instead of its own defaults: what ``--reuse-values`` makes of it."""
    shutil.copytree(CHART, folder)
    shutil.copyfile(values, folder / "values.yaml")
    return folder


def test_the_values_of_the_first_version_are_enough(tmp_path: Path) -> None:
    chart = with_values(tmp_path / "chart", OLD_VALUES)
    objects = loaded(must_helm("template", "buildpool", str(chart), "-n", "buildpool-system"))
    assert objects == rendered()


WITHOUT_A_GATEWAY = ("serviceaccount.yaml", "rbac.yaml", "user-roles.yaml", "_rules.tpl")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A chart as the first version was: its values, and no template that knows a gateway."""
    chart = with_values(tmp_path / "older", OLD_VALUES)
    (chart / "values.schema.json").unlink()
    for template in [*chart.glob("templates/*.yaml"), *chart.glob("templates/tests/*")]:
        if template.name not in WITHOUT_A_GATEWAY:
            template.unlink()
    shutil.copyfile(OLD_VALUES, chart / "files" / "defaults.yaml")
    metadata = chart / "Chart.yaml"
    metadata.write_text(metadata.read_text().replace("version: 0.1.0", "version: 0.0.1", 1))
    return chart


@pytest.mark.parametrize("how", ["--reuse-values", "--reset-then-reuse-values", "--reset-values"])
def test_the_first_version_is_upgraded_and_comes_back(
    installed: Api, namespace: str, older: Path, how: str
) -> None:
    release = (SECOND, "-n", namespace)
    own = flags_of("crds.install=false", f"watchNamespaces={{{namespace}}}")
    must_helm("install", *release, str(older), *own)
    try:
        assert installed.list("deployments", namespace) == []
        # Somebody who resets values gives all of them again.
        given = own if how == "--reset-values" else []
        must_helm("upgrade", *release, str(CHART), how, *given)
        names = {o["metadata"]["name"] for o in installed.list("deployments", namespace)}
        assert names == {SECOND, f"{SECOND}-gateway"}
        must_helm("rollback", *release)
        assert installed.list("deployments", namespace) == []
        must_helm("upgrade", *release, str(CHART), how, *given)
        assert len(installed.list("deployments", namespace)) == 2
    finally:
        must_helm("uninstall", *release)


def test_an_upgrade_leaves_the_routing_of_pools_that_name_none_as_it_was(installed: Api) -> None:
    """The definition in this cluster says Gateway; a new one would say Direct."""
    flags = flags_of("gateway.enabled=false")
    show = ("--show-only", "templates/crds.yaml")
    asked = ("template", SECOND, str(CHART), *show, *flags)
    assert default_routing(loaded(must_helm(*asked))) == "Direct"
    assert (
        default_routing(loaded(must_helm(*asked, "--dry-run=server", "--take-ownership")))
        == "Gateway"
    )
