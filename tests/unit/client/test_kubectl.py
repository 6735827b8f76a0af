from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from buildpool.client.kubectl import Kubectl
from buildpool.client.values import Cluster
from buildpool.core.errors import BuildpoolError
from samples import a_raw_pool

CLUSTER = Cluster("builds", "work")


def a_kubectl(folder: Path, *lines: str, **options: float) -> Kubectl:
    """A program in the place of kubectl."""
    program = folder / "kubectl"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)
    return Kubectl(str(program), **options)


def that_answers(folder: Path, answer: dict[str, Any]) -> Kubectl:
    """A kubectl that has one answer to everything."""
    (folder / "answer").write_text(json.dumps(answer))
    return a_kubectl(folder, f"cat {folder}/answer")


def test_an_answer_that_never_comes_is_waited_for_no_longer(tmp_path: Path) -> None:
    kubectl = a_kubectl(tmp_path, "exec sleep 60", most_seconds=0.1)
    with pytest.raises(BuildpoolError, match=r"kubectl was ended: no answer within 0\.1 s"):
        kubectl.get(CLUSTER, "/version", "the version")


def test_a_kubectl_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildpoolError, match="kubectl cannot be run: No such file"):
        Kubectl(f"{tmp_path}/kubectl").get(CLUSTER, "/version", "the version")


def test_another_pool_than_that_which_is_asked_for_is_no_answer(tmp_path: Path) -> None:
    """Names of files and arguments of programs follow from it."""
    kubectl = that_answers(tmp_path, a_raw_pool(name="ci"))
    assert kubectl.pool(CLUSTER, "ci").pool.key.name == "ci"
    for raw in (a_raw_pool(name="other"), a_raw_pool(namespace="other")):
        with pytest.raises(BuildpoolError, match="BuildKitPool ci cannot be read: the answer is"):
            that_answers(tmp_path, raw).pool(CLUSTER, "ci")


def test_a_list_without_an_end_is_refused(tmp_path: Path) -> None:
    kubectl = that_answers(tmp_path, {"metadata": {"continue": "more"}, "items": []})
    with pytest.raises(BuildpoolError, match="the list of BuildKitPools does not end"):
        kubectl.pools(CLUSTER, everywhere=False)


def test_a_prompt_is_seen_and_an_error_is_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ("echo 'E1201 12:00 a.go:1] expired' >&2", "printf 'Code: ' >&2", "exit 1")
    with pytest.raises(BuildpoolError, match="the version cannot be read"):
        a_kubectl(tmp_path, *said).get(CLUSTER, "/version", "the version")
    assert capfd.readouterr().err == "Code: "


def test_it_gets_no_flag_of_which_a_pod_would_lose_its_identity(tmp_path: Path) -> None:
    """Kubectl uses a pod's own identity only if no flag says anything of the cluster."""
    kubectl = a_kubectl(tmp_path, f'echo "$@" > {tmp_path}/arguments', "echo {}")
    kubectl.get(Cluster("builds"), "/version", "the version")
    assert (tmp_path / "arguments").read_text() == "get --raw /version\n"
