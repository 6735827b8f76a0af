"""Installations come after each other under other names, and live side by side: whose definition.

The definition of BuildKitPool is there once in a cluster and belongs to one release at most. No
release ever takes it along.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import (
    PROJECT,
    Api,
    OperatorProcess,
    a_pool,
    at_most,
    eventually,
    looks_again,
    operator_process,
)
from integration.charts import CHART, credentials_of, flags_of, helm, must_helm

DEFINITION = "buildkitpools.buildpool.dev"
GUIDE = PROJECT / "docs" / "how-to" / "install.md"
Install = Callable[..., None]


@pytest.fixture
def spare(installed: Api, namespace: str) -> Iterator[str]:
    """A second namespace for pools."""
    name = f"{namespace}-spare"
    installed.must("create", "namespace", name)
    yield name
    for pool in installed.list("bkp", name):
        installed.must("delete", "bkp", pool["metadata"]["name"], "-n", name, "--wait=false")
    installed.must("delete", "namespace", name, "--wait=false")


@pytest.fixture
def install(installed: Api) -> Iterator[Install]:
    """Installs the chart under a name, in a namespace of that name; all is gone afterwards."""
    homes: list[str] = []

    def run(name: str, watched: str, *flags: str) -> None:
        homes.append(home_of(name, watched))
        where = ("-n", homes[-1], "--create-namespace")
        must_helm("install", name, str(CHART), *where, *watching(watched), *flags)

    yield run
    for home in homes:
        for release in must_helm("list", "-n", home, "-q").split():
            must_helm("uninstall", release, "-n", home)
        installed.must("delete", "namespace", home, "--wait=false")


def home_of(name: str, watched: str) -> str:
    """Where a release lies."""
    return f"{watched}-{name}"


def watching(namespace: str) -> list[str]:
    return flags_of(f"watchNamespaces={{{namespace}}}")


def owner(api: Api) -> str | None:
    """The release to which the definition belongs; there has to be one."""
    metadata = definition(api)["metadata"]
    release: str | None = metadata["annotations"].get("meta.helm.sh/release-name")
    return release


def definition(api: Api) -> dict[str, Any]:
    found = api.get("crd", DEFINITION, "default")
    assert found is not None
    assert "deletionTimestamp" not in found["metadata"]
    return found


TAKE, LEAVE = "--take-ownership", "crds.install=false"


def test_a_release_that_comes_after_another_takes_the_definition_over_when_it_is_told_to(
    installed: Api, namespace: str, install: Install
) -> None:
    # Somebody applied the definition by hand, which is no release either.
    install("former", namespace, TAKE)
    assert owner(installed) == "former"
    installed.apply(a_pool("ci", namespace, replicas=0))
    pool = installed.get("bkp", "ci", namespace)
    kept = must_helm("uninstall", "former", "-n", home_of("former", namespace))
    assert DEFINITION in kept

    home = home_of("later", namespace)
    flags = ("-n", home, "--create-namespace", *watching(namespace))
    done = helm("install", "later", str(CHART), *flags)
    assert done.returncode != 0
    assert "invalid ownership metadata" in done.stderr
    assert DEFINITION in done.stderr

    install("later", namespace, TAKE)
    assert owner(installed) == "later"
    # From now on it needs to be told nothing.
    must_helm("upgrade", "later", str(CHART), "-n", home, "--reset-then-reuse-values")
    must_helm("uninstall", "later", "-n", home)
    assert installed.get("bkp", "ci", namespace) == pool


def test_of_two_releases_one_has_the_definition_and_neither_takes_it_along(
    installed: Api, namespace: str, spare: str, install: Install
) -> None:
    install("one", namespace, TAKE)
    install("two", spare, *flags_of(LEAVE))
    installed.apply(a_pool("ci", spare, replicas=0))
    pool, two = installed.get("bkp", "ci", spare), home_of("two", spare)
    must_helm("upgrade", "two", str(CHART), "-n", two, "--reset-then-reuse-values")
    assert owner(installed) == "one"
    must_helm("uninstall", "one", "-n", home_of("one", namespace))
    assert installed.get("bkp", "ci", spare) == pool

    # The one that stays takes it over, and may leave it again.
    reuse = ("-n", two, "--reset-then-reuse-values")
    must_helm("upgrade", "two", str(CHART), *reuse, TAKE, *flags_of("crds.install=true"))
    assert owner(installed) == "two"
    must_helm("upgrade", "two", str(CHART), *reuse, *flags_of(LEAVE))
    assert installed.get("bkp", "ci", spare) == pool
    must_helm("rollback", "two", "2", "-n", two)
    must_helm("uninstall", "two", "-n", two)
    assert installed.get("bkp", "ci", spare) == pool


@pytest.fixture
def operator_of(
    installed: Api, kubeconfig: Path, tmp_path: Path
) -> Callable[[str, str], OperatorProcess]:
    """The operator of a release, with its rights, which watches one namespace; not started yet."""

    def made(name: str, watched: str) -> OperatorProcess:
        home = home_of(name, watched)
        file = tmp_path / f"{name}.kubeconfig"
        credentials = credentials_of(installed, name, home, like=kubeconfig, file=file)
        # The later of two flags wins.
        flags = ("--namespace", home, "--watch-namespace", watched)
        return OperatorProcess(credentials, tmp_path / f"{name}.log", name, flags)

    return made


def is_carried_out(api: Api, namespace: str) -> bool:
    return api.condition("ci", namespace, "CertificatesReady").get("status") == "True"


def test_each_of_two_installations_tends_its_own_pools_though_the_other_goes(
    installed: Api,
    namespace: str,
    spare: str,
    install: Install,
    operator_of: Callable[[str, str], OperatorProcess],
) -> None:
    install("one", namespace, TAKE)
    install("two", spare, *flags_of(LEAVE))
    one, two = operator_of("one", namespace), operator_of("two", spare)
    with operator_process(two):
        with operator_process(one):
            for where in (namespace, spare):
                installed.apply(a_pool("ci", where))
            for where in (namespace, spare):
                eventually(
                    lambda where=where: is_carried_out(installed, where),
                    within=30,
                    what=f"the pool in {where} is carried out",
                )
            for home in (home_of("one", namespace), home_of("two", spare)):
                held = installed.list("secrets", home, "app.kubernetes.io/component=authority")
                assert len(held) == 1
            installed.must("delete", "bkp", "ci", "-n", namespace, at_most(30))
        must_helm("uninstall", "one", "-n", home_of("one", namespace))
        wanted = {"spec": {"scaling": {"min": 2, "max": 2}}}
        installed.must("patch", "bkp", "ci", "-n", spare, "--type=merge", "-p", yaml.dump(wanted))
        eventually(
            lambda: installed.get("deployment", "ci-builder-1", spare),
            within=30,
            what="the other installation goes on",
        )
        installed.must("delete", "bkp", "ci", "-n", spare, at_most(30))


def copied(guide: Path, old: str, new: str) -> str:
    """The command of a page that copies the authorities of all pools to another namespace."""
    (command,) = (
        block
        for block in guide.read_text().split("```console\n")[1:]
        if "component=authority" in block
    )
    lines = command.partition("```")[0].replace("$ ", "", 1)
    return lines.replace("buildpool-system", old).replace("NEW", new)


def test_pools_keep_their_authorities_when_the_operator_moves_to_another_namespace(
    installed: Api,
    namespace: str,
    install: Install,
    operator_of: Callable[[str, str], OperatorProcess],
) -> None:
    install("former", namespace, TAKE)
    old, new = home_of("former", namespace), home_of("later", namespace)
    with operator_process(operator_of("former", namespace)):
        installed.apply(a_pool("ci", namespace))
        eventually(lambda: is_carried_out(installed, namespace), within=30, what="it is tended")
    must_helm("uninstall", "former", "-n", old)

    def secrets() -> dict[str, Any]:
        found = installed.list("secrets", namespace, "buildpool.dev/pool=ci")
        return {each["metadata"]["name"]: each["data"] for each in found}

    before = secrets()
    installed.must("create", "namespace", new)
    subprocess.run(["sh", "-ec", copied(GUIDE, old, new)], check=True)
    install("later", namespace, TAKE)
    later = operator_of("later", namespace)
    with operator_process(later):
        installed.must("delete", "service", "ci", "-n", namespace)
        eventually(
            lambda: installed.get("service", "ci", namespace), within=30, what="it is tended again"
        )
        looks_again(installed, later, "ci", namespace, by="services")
        assert secrets() == before
        assert installed.list("secrets", new, "buildpool.dev/pool=ci") != []
        installed.must("delete", "bkp", "ci", "-n", namespace, at_most(30))
        left = installed.list("secrets", new, "app.kubernetes.io/component=authority")
        assert left == []
