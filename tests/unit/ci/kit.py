"""How the files in ci/ are run by tests, as the systems that they are for would run them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[3]
CI = PROJECT / "ci"


def documents(path: str) -> list[Any]:
    """The YAML documents of a file in ci/."""
    return list(yaml.safe_load_all((CI / path).read_text()))


def run(
    script: str, environment: Mapping[str, str], at: Path, *arguments: str, shell: str = "dash"
) -> subprocess.CompletedProcess[str]:
    """Runs a script as a file; the exit code is the caller's to judge."""
    file = at / "script.sh"
    file.write_text(script)
    return subprocess.run(
        [*shell.split(), str(file), *arguments],
        cwd=at,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def github(
    path: str, environment: Mapping[str, str], at: Path, **inputs: str
) -> subprocess.CompletedProcess[str]:
    """Runs the one step of a composite action; its files of GitHub are in ``at``."""
    (action,) = documents(path)
    declared = action.get("inputs", {})
    assert set(inputs) <= set(declared)
    given = {name: inputs.get(name, each.get("default")) for name, each in declared.items()}
    (step,) = action["runs"]["steps"]
    assert action["runs"]["using"] == "composite"
    assert step["shell"] == "sh"
    assert "${{" not in step["run"], "an input would be code"
    known = {
        "RUNNER_TEMP": str(at),
        "GITHUB_ACTION_PATH": str((CI / path).parent),
        **{name: str(at / name) for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")},
    }
    step_environment = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: given[found[1]], value)
        for name, value in step.get("env", {}).items()
    }
    variables = {**environment, **known, **step_environment}
    return run(step["run"], variables, at, shell="dash -e")


def gitlab(
    environment: Mapping[str, str], at: Path, script: str, **inputs: str
) -> list[subprocess.CompletedProcess[str]]:
    """Runs a job that extends the component: before_script and script, then after_script."""
    head, body = (CI / "gitlab/templates/buildpool.yml").read_text().split("\n---\n")
    declared = yaml.safe_load(head)["spec"]["inputs"]
    assert set(inputs) <= set(declared)
    given = {name: inputs.get(name, each.get("default")) for name, each in declared.items()}
    for name, rules in declared.items():
        if "regex" in rules:
            assert re.search(rules["regex"], given[name]), name
    filled = re.sub(r"\$\[\[ inputs\.(\w+) \]\]", lambda found: given[found[1]], body)
    job = yaml.safe_load(filled)[".buildpool"]
    ci = {"CI_JOB_ID": "17", "CI_PROJECT_DIR": str(at / "project")}
    variables = {**environment, **ci, **job["variables"]}
    variables["BUILDX_BUILDER"] = variables["BUILDX_BUILDER"].replace("$CI_JOB_ID", "17")
    main = "\n".join(["set -e", *job["before_script"], script])
    return [
        run(main, variables, at),
        run("\n".join(job["after_script"]), variables, at),
    ]


def tekton(
    environment: Mapping[str, str], at: Path, pools: list[str], **params: str
) -> subprocess.CompletedProcess[str]:
    """Runs the one step of the Task with its parameters filled in."""
    (task,) = documents("tekton/task.yaml")
    spec = task["spec"]
    declared = {each["name"] for each in spec["params"]}
    assert {"pools", *params} == declared
    (step,) = spec["steps"]
    assert "$(" not in step["script"], "a parameter would be code"
    assert step["args"] == ["$(params.pools[*])"]
    variables = {
        each["name"]: re.sub(r"\$\(params\.(\w+)\)", lambda m: params[m[1]], each["value"])
        for each in step["env"]
        if each["name"] != "HOME"
    }
    return run(step["script"], {**environment, **variables}, at, *pools)


def path_before(folder: Path) -> str:
    """A PATH on which the programs of a folder come first."""
    return f"{folder}:{os.environ['PATH']}"
