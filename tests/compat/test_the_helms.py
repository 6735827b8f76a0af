"""The chart by Helm 3 and by Helm 4: users have either, and change from the one to the other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import Api, a_pool, at_most
from integration.charts import CHART, Object, flags_of, helm, loaded, must_helm
from integration.test_the_chart import REFUSED, VALUES

HELMS = {"3": os.environ.get("HELM_3", ""), "4": "helm"}
RELEASE, HOME, BUILDS = "buildpool", "buildpool-system", "builds"
DEFINITION = "buildkitpools.buildpool.dev"
CHANGED = flags_of("replicas=2", "gateway.replicas=3", "image.tag=next")
PATHS = [("3", "3"), ("4", "4"), ("3", "4"), ("4", "3")]


@pytest.fixture(autouse=True, scope="session")
def both() -> None:
    """There has to be a Helm 3."""
    assert HELMS["3"], "there is no Helm 3: run `make compat`"


def template(version: str, *settings: str) -> list[Object]:
    flags = ("-n", HOME, *flags_of(*settings))
    return loaded(must_helm("template", RELEASE, str(CHART), *flags, program=HELMS[version]))


@pytest.mark.parametrize("version", HELMS)
def test_each_is_what_it_is_called(version: str) -> None:
    said = must_helm("version", "--short", program=HELMS[version])
    assert said.startswith(f"v{version}.")


@pytest.mark.parametrize("settings", VALUES.values(), ids=VALUES)
def test_both_render_the_same(settings: tuple[str, ...]) -> None:
    assert template("3", *settings) == template("4", *settings)


@pytest.mark.parametrize(("setting", "named"), REFUSED.values(), ids=REFUSED)
def test_both_refuse_the_same(setting: str, named: str) -> None:
    for program in HELMS.values():
        done = helm("template", RELEASE, str(CHART), "--set", setting, program=program)
        assert done.returncode != 0
        assert "specifications of the schema" in done.stderr
        assert named in done.stderr


@pytest.fixture
def api() -> Iterator[Api]:
    """A cluster without buildpool; afterwards, too."""
    api = Api()
    assert not api.must("get", "crd", DEFINITION, "--ignore-not-found")
    api.must("create", "namespace", BUILDS)
    yield api
    for home in (HOME, BUILDS):
        api.must("delete", "namespace", home, "--ignore-not-found")
    api.must("delete", "crd", DEFINITION, "--ignore-not-found")
    # What a test that failed has left would be in the way of the next one.
    wide = "clusterrole,clusterrolebinding"
    api.must("delete", wide, "-l", f"app.kubernetes.io/instance={RELEASE}")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The chart as an earlier one: its definition lacks a field."""
    folder = tmp_path / "buildpool"
    shutil.copytree(CHART, folder)
    file = folder / "files" / f"{DEFINITION}.yaml"
    definition = yaml.safe_load(file.read_text())
    assert "frontends" in properties(definition)
    del properties(definition)["frontends"]
    file.write_text(yaml.safe_dump(definition))
    about = folder / "Chart.yaml"
    about.write_text(about.read_text().replace("version: 0.1.0", "version: 0.0.9", 1))
    return folder


def properties(definition: Object) -> dict[str, Any]:
    """The fields of a pool's spec."""
    (version,) = definition["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return found


def replicas(api: Api) -> dict[str, int]:
    """How many pods each Deployment of the installation wants."""
    found = api.list("deployments", HOME)
    return {each["metadata"]["name"]: each["spec"]["replicas"] for each in found}


def has_the_field(api: Api) -> bool:
    return "frontends" in properties(json.loads(api.must("get", "crd", DEFINITION, "-o", "json")))


def uid(api: Api) -> str:
    pool = api.get("bkp", "ci", BUILDS)
    assert pool is not None
    found: str = pool["metadata"]["uid"]
    return found


@pytest.mark.parametrize(("first", "then"), PATHS, ids=lambda version: f"Helm {version}")
def test_what_one_installed_the_other_upgrades_and_removes(
    first: str, then: str, api: Api, older: Path
) -> None:
    here, one, other = ("-n", HOME), HELMS[first], HELMS[then]
    before = {"buildpool": 1, "buildpool-gateway": 1}
    after = {"buildpool": 2, "buildpool-gateway": 3}
    must_helm("install", RELEASE, str(older), *here, "--create-namespace", program=one)
    api.must("wait", "--for=condition=Established", f"crd/{DEFINITION}", at_most(20))
    assert replicas(api) == before
    assert not has_the_field(api)
    api.apply(a_pool("ci", BUILDS))
    pool = uid(api)

    must_helm("upgrade", RELEASE, str(CHART), *here, *CHANGED, program=other)
    assert replicas(api) == after
    assert has_the_field(api)

    must_helm("rollback", RELEASE, "1", *here, program=other)
    assert replicas(api) == before
    must_helm("upgrade", RELEASE, str(CHART), *here, *CHANGED, program=other)
    assert replicas(api) == after
    history = json.loads(must_helm("history", RELEASE, *here, "-o", "json", program=other))
    assert [each["status"] for each in history] == ["superseded"] * 3 + ["deployed"]

    must_helm("uninstall", RELEASE, *here, "--wait", program=other)
    assert not api.list("deployments,services,roles", HOME)
    assert uid(api) == pool
    # The definition is there still, and is taken over.
    must_helm("install", RELEASE, str(CHART), *here, program=one)
    assert uid(api) == pool
    must_helm("uninstall", RELEASE, *here, program=one)
