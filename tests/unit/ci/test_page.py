"""What docs/how-to/ci.md tells people to write is what the files in ci/ take."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from unit.ci import kit

PAGE = (kit.PROJECT / "docs" / "how-to" / "ci.md").read_text()
VERSION = tomllib.loads((kit.PROJECT / "pyproject.toml").read_text())["project"]["version"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def of(key: str, value: str = "") -> dict[str, Any]:
    """The one document of the page that has this key at its top, and this value, if any."""
    documents = (d for block in blocks("yaml") for d in yaml.safe_load_all(block))
    (found,) = (d for d in documents if key in d and value in ("", d[key]))
    assert isinstance(found, dict)
    return found


def a_shell_reads(command: str) -> None:
    subprocess.run(["dash", "-n"], input=command, text=True, check=True)


def test_the_job_of_github_names_our_actions_and_their_inputs() -> None:
    steps = of("jobs")["jobs"]["build"]["steps"]
    ours = [step for step in steps if "buildpool" in step.get("uses", "")]
    assert len(ours) == 2
    for step in ours:
        folder, version = step["uses"].removeprefix("example/buildpool/ci/").split("@")
        assert version == f"v{VERSION}"
        (action,) = kit.documents(f"{folder}/action.yml")
        given, inputs = set(step.get("with", {})), action.get("inputs", {})
        assert given <= set(inputs)
        assert {name for name, each in inputs.items() if each.get("required")} <= given
    assert ours[-1] is steps[-1]
    assert steps[-1]["if"] == "always()"


def test_the_job_of_gitlab_fills_the_component() -> None:
    pipeline = of("include")
    (include,) = pipeline["include"]
    head, body = kit.documents("gitlab/templates/buildpool.yml")
    inputs = head["spec"]["inputs"]
    assert include["component"].endswith(f"/buildpool@{VERSION}")
    given = set(include["inputs"])
    assert {name for name, each in inputs.items() if "default" not in each} <= given <= set(inputs)
    assert pipeline["build"]["extends"] in body
    for command in pipeline["build"]["script"]:
        a_shell_reads(command)


def test_the_run_of_tekton_fills_the_task() -> None:
    run = of("kind", "TaskRun")["spec"]
    (task,) = kit.documents("tekton/task.yaml")
    assert run["taskRef"]["name"] == task["metadata"]["name"]
    for kind in ("params", "workspaces"):
        assert [e["name"] for e in run[kind]] == [e["name"] for e in task["spec"][kind]]


@pytest.mark.parametrize("block", blocks("console"))
def test_a_shell_can_read_what_is_typed(block: str) -> None:
    a_shell_reads(re.sub(r"^\$ ", "", block, flags=re.MULTILINE))
    for file in re.findall(r"\bci/\S+", block):
        assert (kit.PROJECT / file).is_file()


def test_the_commands_of_skaffold_and_tilt_build_and_push() -> None:
    (artifact,) = of("apiVersion", "skaffold/v4beta11")["build"]["artifacts"]
    (tilt,) = (ast.parse(block).body for block in blocks("python"))
    (call,) = (node for node in tilt if isinstance(node, ast.Expr))
    assert isinstance(call.value, ast.Call)
    command = ast.literal_eval(call.value.args[1])
    for each in (artifact["custom"]["buildCommand"], command):
        assert each.startswith("docker buildx build --push ")
        a_shell_reads(each)


def test_the_inputs_and_variables_are_on_the_page() -> None:
    script = (kit.CI / "shell" / "buildpool.sh").read_text()
    for name in set(re.findall(r"\bBUILDPOOL_[A-Z]+", script)):
        assert f"`{name}`" in PAGE
    (action,) = kit.documents("github/action.yml")
    for name in action["inputs"]:
        assert f"`{name}`" in PAGE or f"        {name}: " in PAGE
