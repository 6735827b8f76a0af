"""The versions of Kubernetes and of Helm in README's table are those that the commands run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from devcluster import golang

PROJECT = Path(__file__).parents[3]
README = (PROJECT / "README.md").read_text()
HEAD = re.compile(r"^\| Kubernetes \| operator \| Helm (\S+) \| Helm (\S+) \|", re.MULTILINE)
ROW = re.compile(
    r"^\| (1\.\d+\.\d+) (?:\| (?:passed|not run yet) ){3}\| .* \| (.*) \|$", re.MULTILINE
)


def release_of(module: golang.GoModule, path: str = "k8s.io/kubernetes") -> str:
    return golang.version_of(module, path).removeprefix("v")


def test_the_table_of_versions_names_what_is_run() -> None:
    helm_3 = release_of(golang.HELM_3, "helm.sh/helm/v3")
    helm_4 = release_of(golang.TOOLS, "helm.sh/helm/v4")
    assert HEAD.findall(README) == [(helm_3, helm_4)]
    older = reversed(golang.OLDER.items())
    assert ROW.findall(README) == [
        (release_of(golang.KUBERNETES), "`make test`, `make compat-helm`"),
        *((release_of(module), f"`make compat-{version}`") for version, module in older),
    ]


def test_every_older_version_is_run() -> None:
    done = subprocess.run(
        ["make", "-n", "compat"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    (run,) = re.findall(r"-m tests\.timed (.*)", done.stdout)
    assert run.split() == ["compat-helm", *(f"compat-{version}" for version in golang.OLDER)]
