"""`kubectl buildpool doctor`, `builds` and `logs` where nothing but the API server is reached."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from buildpool.gateway.ext_proc.running import CANCELLED_WORDS
from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e import gateways
from e2e.clients import BASE, base_context, context
from e2e.outside import ACCOUNT, FORWARDING, Outside, a_user_of, may, role_of
from limits import patience

if "DEVCLUSTER_NAME" not in os.environ:
    pytest.skip("this needs the node of a devcluster", allow_module_level=True)
PLUGIN = ("kubectl", "buildpool")
QUESTIONS = (
    *("buildx", "kubectl", "cluster", "API server", "clock"),
    *("pool", "operator", "way", "rights", "certificate", "connections", "reach", "build"),
)
SLOW = f"FROM {BASE}\nRUN echo begun; sleep 15; echo over\n"
FOREVER = f"FROM {BASE}\nRUN echo begun; while true; do sleep 1; done\n"
BROKEN = f"FROM {BASE}\nRUN echo that is no program; /none\n"


@pytest.fixture
def outside(api: Api, namespace: str, tmp_path: Path) -> Iterator[Outside]:
    """A user outside who may use one pool, which sleeps."""
    gateways.deploy(api, "ci", namespace, scaling={"min": 0})
    with a_user_of(api, namespace, tmp_path, "ci") as user:
        yield user


def answers(printed: str) -> dict[str, str]:
    """How each question was answered."""
    lines = (line for line in printed.splitlines() if line[:7].strip() in ("ok", "wrong", "-"))
    return {line[7:21].strip(): line[:7].strip() for line in lines}


def listed(outside: Outside) -> list[dict[str, Any]]:
    """The builds of the only connection."""
    found: list[dict[str, Any]] = json.loads(outside.buildpool("builds", "-o", "json"))
    return found


def running(outside: Outside) -> dict[str, Any]:
    """The build that runs, once it is listed."""

    def found() -> list[dict[str, Any]]:
        return [build for build in listed(outside) if build["result"] == "Running"]

    first: dict[str, Any] = eventually(found, within=60, what="it is listed as running")[0]
    return first


@contextmanager
def a_build(outside: Outside, dockerfile: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """A build by the connection, which ends with the block."""
    source = context(outside.home / name, dockerfile)
    options = ("--builder=ci", "--no-cache", "--progress=plain", "--output=type=cacheonly")
    with (
        (outside.home / f"{name}.log").open("w") as log,
        subprocess.Popen(
            [*outside.within, "buildx", "build", *options, *base_context(), str(source)],
            env=outside.environment,
            stdout=log,
            stderr=log,
            text=True,
        ) as build,
    ):
        try:
            yield build
        finally:
            if build.poll() is None:
                build.kill()


def test_all_that_is_asked_between_a_machine_and_a_build_is_well_or_named(
    api: Api, outside: Outside
) -> None:
    done = outside.run(*PLUGIN, "doctor", "ci")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert answers(done.stdout) == dict.fromkeys(QUESTIONS, "ok")
    assert "a build wakes the pool" in done.stderr
    assert not list(outside.files.glob("*")), "nothing stays of it"

    # Without the right to forward, nothing that needs it is asked.
    forward = f"{role_of(outside.namespace)}-{len(FORWARDING) - 1}"
    api.must("delete", "rolebinding", forward, "-n", OPERATOR_NAMESPACE)
    done = outside.run(*PLUGIN, "doctor", "ci")
    print(done.stdout)
    assert done.returncode == 1
    found = answers(done.stdout)
    assert {about for about, answer in found.items() if answer == "wrong"} == {"rights"}
    assert (found["reach"], found["build"]) == ("-", "-")
    may_not = f"you may not create pods/portforward in namespace {OPERATOR_NAMESPACE}"
    assert may_not in " ".join(done.stdout.split())


def test_builds_and_their_logs_are_shown_and_a_build_is_ended(api: Api, outside: Outside) -> None:
    outside.buildpool("connect", "ci", "--detach")
    with a_build(outside, BROKEN, "broken") as broken:
        assert broken.wait(timeout=patience(120)) != 0
    (failed,) = eventually(lambda: listed(outside), within=30, what="it is listed")
    assert (failed["result"], failed["pool"]) == ("Error", "ci")
    log = outside.run(*PLUGIN, "logs", failed["ref"][:12])
    assert log.returncode == 0, log.stderr
    assert "that is no program" in log.stdout + log.stderr

    with a_build(outside, SLOW, "slow") as slow:
        ref = running(outside)["ref"]
        eventually(
            lambda: f"  {ref[:12]} " in outside.buildpool("top", "ci"),
            within=20,
            what="it is watched",
        )
        refused = outside.run(*PLUGIN, "logs", ref)
        assert "still runs; -f shows its log until it ends" in refused.stderr
        # Builds that end meanwhile, and break off their connections, end no other.
        for number in range(4):
            with a_build(outside, BROKEN, f"broken-{number}") as broken:
                assert broken.wait(timeout=patience(60)) != 0
        followed = outside.run(*PLUGIN, "logs", "-f", ref)
        assert "over" in (followed.stdout + followed.stderr).split(), followed
        assert slow.wait(timeout=patience(60)) == 0
    table = outside.buildpool("builds")
    print(table)
    listed_refs = [line.split()[0] for line in table.splitlines()]
    assert {ref, failed["ref"]} <= set(listed_refs)
    assert len(listed_refs) == 1 + 6
    completed = outside.run("kubectl", "__complete", "buildpool", "logs", ref[:4])
    assert completed.stdout.splitlines() == [ref, ":4"], completed

    with a_build(outside, FOREVER, "forever") as endless:
        ref = running(outside)["ref"]
        refused = outside.run(*PLUGIN, "cancel", ref[:12])
        assert "you may not change BuildKitPool ci" in refused.stderr, refused
        who = f"{outside.namespace}:{ACCOUNT}"
        may(api, outside.namespace, who, "cancel", "patch buildkitpools.buildpool.dev")
        assert outside.buildpool("cancel", ref[:12]) == f"build {ref} is cancelled\n"
        assert endless.wait(timeout=patience(30)) != 0
        assert CANCELLED_WORDS in (outside.home / "forever.log").read_text()
    again = outside.run(*PLUGIN, "cancel", ref)
    assert f"build {ref} has ended already" in again.stderr
