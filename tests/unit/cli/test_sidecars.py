"""The commands of pools' pods understand what the operator writes into these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from buildpool.cli.sidecars import COMMANDS

GOLDEN = Path(__file__).parents[1] / "golden" / "managed-cache.yaml"


def containers() -> list[dict[str, Any]]:
    """Those of all pods of a pool with a managed cache."""
    objects = yaml.safe_load_all(GOLDEN.read_text())
    pods = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"]
    return [c for pod in pods for c in (*pod.get("initContainers", ()), *pod["containers"])]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_operator_writes_into_pods_is_understood(command: str) -> None:
    (arguments,) = [c["args"][1:] for c in containers() if c.get("args", ())[:1] == [command]]
    # As far as the certificates, which are mounted there and not here.
    with pytest.raises(FileNotFoundError):
        COMMANDS[command](arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_that_is_missing_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        COMMANDS[command]([])
    assert end.value.code == 2
    assert "required: --" in capsys.readouterr().err


def test_a_duration_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        COMMANDS["cache-keeper"](["--retention", "a while"])
    assert end.value.code == 2
    assert "'a while' is not a duration such as 45s" in capsys.readouterr().err
