"""The versions of Kubernetes and of Helm in README's table are those that the commands run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from devcluster import golang

PROJECT = Path(__file__).parents[3]
README = (PROJECT / "README.md").read_text()
ROW = re.compile(
    r"^\| (1\.\d+\.\d+) \| (?:passed|not run yet) \| Helm (.+) \| (passed|no) \| `make (\w+)` \|$",
    re.MULTILINE,
)

NEWEST_HELM = golang.version_of(golang.TOOLS, "helm.sh/helm/v4").removeprefix("v")
OLDER_HELM = golang.version_of(golang.HELM_3, "helm.sh/helm/v3").removeprefix("v")


def release_of(module: golang.GoModule) -> str:
    return golang.version_of(module, "k8s.io/kubernetes").removeprefix("v")


def test_the_table_of_versions_says_what_is_run() -> None:
    older = reversed(golang.OLDER.values())
    assert ROW.findall(README) == [
        (release_of(golang.KUBERNETES), NEWEST_HELM, "passed", "test"),
        *((release_of(each), f"{OLDER_HELM} and {NEWEST_HELM}", "no", "compat") for each in older),
    ]


def test_every_older_version_is_run() -> None:
    done = subprocess.run(
        ["make", "-n", "compat"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    (run,) = re.findall(r"-m tests\.timed (.*)", done.stdout)
    assert run.split() == [f"compat-{version}" for version in golang.OLDER]
