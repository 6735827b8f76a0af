"""The chart as tests see it: rendered by Helm, and installed once more beside the first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cluster import OPERATOR_NAMESPACE, PROJECT, Api

CHART = PROJECT / "manifests" / "helm" / "buildpool"
SECOND = "second"
"""The release of ``second_release``, hence the name of its objects."""
Object = dict[str, Any]


def helm(*args: str, program: str = "helm") -> subprocess.CompletedProcess[str]:
    """Runs helm, or another one; the exit code is the caller's to judge."""
    command = [program, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def must_helm(*args: str, program: str = "helm") -> str:
    """Runs helm, or another one, which has to succeed; what it printed."""
    done = helm(*args, program=program)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def flags_of(*settings: str) -> list[str]:
    """Helm's flags that set these values."""
    return [flag for setting in settings for flag in ("--set", setting)]


class Strict(yaml.SafeLoader):
    """Takes no mapping with a key twice, as the API server takes none."""


def _mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    assert sorted(keys) == sorted(set(keys)), f"a key is there twice: {node.start_mark}"
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def loaded(text: str) -> list[Object]:
    """The objects of a manifest."""
    # A safe loader, only stricter.
    return [document for document in yaml.load_all(text, Strict) if document]


def rendered(*settings: str, release: str = "buildpool") -> list[Object]:
    """The objects of the chart, with these values set."""
    return loaded(_templated(release, *settings))


@cache
def _templated(release: str, *settings: str) -> str:
    flags = flags_of(*settings)
    return must_helm("template", release, str(CHART), "-n", OPERATOR_NAMESPACE, *flags)


def the(kind: str, name: str, objects: list[Object]) -> Object:
    """The one object of this kind and name."""
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def default_routing(objects: list[Object]) -> str:
    """What the definition of pools writes into those that say nothing of their routing."""
    crd = the("CustomResourceDefinition", "buildkitpools.buildpool.dev", objects)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return str(schema["properties"]["spec"]["properties"]["routing"]["default"])


@contextmanager
def second_release(api: Api, namespace: str) -> Iterator[str]:
    """A second installation, in a namespace of its own, for one watched namespace; its home."""
    home = f"{namespace}-operator"
    flags = flags_of("crds.install=false", f"watchNamespaces={{{namespace}}}")
    must_helm("install", SECOND, str(CHART), "-n", home, "--create-namespace", *flags)
    yield home
    must_helm("upgrade", SECOND, str(CHART), "-n", home, "--reuse-values", "--set", "replicas=2")
    must_helm("uninstall", SECOND, "-n", home)
    assert api.list("roles", namespace) == []
    api.must("delete", "namespace", home, "--wait=false")


def credentials_of(api: Api, account: str, home: str, *, like: Path, file: Path) -> Path:
    """A kubeconfig of a ServiceAccount, made from that of another."""
    own = yaml.safe_load(like.read_text())
    own["users"][0]["user"]["token"] = api.must("create", "token", account, "-n", home).strip()
    file.write_text(yaml.safe_dump(own))
    file.chmod(0o600)
    return file


def refused_in(log: Path) -> list[str]:
    """The lines of a program that was refused what its account may not do.

    A namespace that goes refuses everybody, whatever their rights, and those of tests that
    have ended are still going.
    """
    lines = log.read_text().splitlines()
    return [
        line
        for line in lines
        if "forbidden" in line.lower() and "because it is being terminated" not in line
    ]
