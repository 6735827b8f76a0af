"""`doctor`, `builds` and `logs` on their user's machine: each thing that can be wrong is made so.

The port-forward leads nowhere here. What a pool answers is asked in tests/e2e/test_doctor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from buildpool.core import naming
from integration.machines import CLOCK, NAMESPACE, Machine, a_kubeconfig, a_machine

POOL = f"/apis/{naming.API_VERSION}/namespaces/{NAMESPACE}/buildkitpools/ci"
WHERE = f"/api/v1/namespaces/{NAMESPACE}"
SETTLED = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Asleep",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine, and a pool that sleeps."""
    with a_machine(tmp_path) as found:
        found.add("ci")
        found.objects[POOL]["status"] = SETTLED
        yield found


def looked_at(machine: Machine, *arguments: str) -> dict[str, tuple[str, str]]:
    """What doctor says: by what it is about, how it is, and the text."""
    done = machine.run("doctor", *arguments)
    assert done.returncode == 1, "the port-forward leads nowhere"
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, tuple[str, str]] = {}
    about = ""
    for line in done.stdout.splitlines():
        if line.startswith((" " * 7, "pool ")) or not line:
            if about and line.startswith(" "):
                answer, text = found[about]
                found[about] = (answer, f"{text} {line.strip()}")
            continue
        answer, about, text = line[:7].strip(), line[7:21].strip(), line[21:]
        found[about] = (answer, text)
    return found


def test_the_first_thing_that_is_wrong_is_the_only_one(machine: Machine) -> None:
    found = looked_at(machine, "ci")
    assert {about for about, (answer, _) in found.items() if answer == "ok"} == {
        *("buildx", "kubectl", "cluster", "API server", "clock"),
        *("pool", "operator", "way", "rights", "certificate", "connections"),
    }
    assert found["API server"][1] == "Kubernetes v1.37.0"
    assert found["operator"][1] == "the pool is asleep, and the first build wakes it"
    assert found["way"][1] == "a port-forward to service/buildpool-gateway in buildpool-system"
    assert found["certificate"][1].startswith("client default, expires in ")
    assert found["reach"][0] == "wrong"
    assert "does not answer" in found["reach"][1]
    assert found["build"] == ("-", "not asked: reach comes first")
    assert (machine.builders, list(machine.files.glob("*"))) == ({}, []), "it leaves nothing"


def without(machine: Machine, *programs: str) -> None:
    for program in programs:
        (machine.bin / program).unlink()


def no_cluster(machine: Machine) -> None:
    (machine.home / "kubeconfig").write_text("{}")


def no_server(machine: Machine) -> None:
    a_kubeconfig(machine.home / "kubeconfig", "https://127.0.0.1:1", namespace=NAMESPACE)


def no_pool(machine: Machine) -> None:
    del machine.objects[POOL]


def a_refused_pool(machine: Machine) -> None:
    machine.objects[POOL]["spec"]["scaling"] = {"min": 2, "max": 1}


def a_pool_with_trouble(machine: Machine) -> None:
    (ready,) = SETTLED["conditions"]
    bad = {**ready, "status": "False", "reason": "ImagePullFailed", "message": "no such image"}
    machine.objects[POOL]["status"] = {**SETTLED, "conditions": [bad]}


def no_gateway(machine: Machine) -> None:
    del machine.objects[f"{WHERE}/services/ci"]


def no_secret(machine: Machine) -> None:
    del machine.objects[f"{WHERE}/secrets/ci-client-default"]


def half_a_secret(machine: Machine) -> None:
    del machine.objects[f"{WHERE}/secrets/ci-client-default"]["data"]["key.pem"]


def an_unknown_host(machine: Machine) -> None:
    machine.objects[POOL]["spec"]["gateway"] = {"hostnames": ["ci.builds.invalid"]}


def a_dead_connection(machine: Machine) -> None:
    machine.must("connect", "ci", "--detach")


@pytest.mark.parametrize(
    ("make", "about", "says"),
    [
        (lambda machine: without(machine, "buildx"), "buildx", "install it"),
        (lambda machine: without(machine, "kubectl"), "kubectl", "kubectl"),
        (no_cluster, "cluster", "set KUBECONFIG"),
        (no_server, "API server", "kubectl get --raw=/version"),
        (no_pool, "pool", "namespace builds has no BuildKitPool ci"),
        (a_refused_pool, "pool", "spec.scaling"),
        (a_pool_with_trouble, "operator", "ImagePullFailed: no such image. See kubectl buildpool"),
        (no_gateway, "way", "name it: --gateway="),
        (an_unknown_host, "way", "ci.builds.invalid is not known here"),
        (no_secret, "certificate", "Secret builds/ci-client-default is not there yet"),
        (half_a_secret, "certificate", "has no key.pem"),
        (a_dead_connection, "connections", "ci does not reach tcp://127.0.0.1:"),
    ],
)
def test_what_is_wrong_is_named_with_what_helps(
    machine: Machine, make: object, about: str, says: str
) -> None:
    assert callable(make)
    make(machine)
    found = looked_at(machine, "ci")
    assert found[about][0] == "wrong", found
    assert says in found[about][1]
    wrong = [name for name, (answer, _) in found.items() if answer == "wrong"]
    # What does not depend on it is asked all the same, and only the way leads nowhere here.
    assert wrong in ([about], [about, "reach"]), found


def test_a_clock_that_is_wrong_is_named(machine: Machine) -> None:
    machine.objects[CLOCK] = {"ahead": 600}
    answer, text = looked_at(machine, "ci")["clock"]
    assert answer == "wrong"
    assert "10m behind the API server" in text or "9m behind the API server" in text


def test_without_a_pool_it_is_about_those_that_are_connected(machine: Machine) -> None:
    assert "pool ci" not in machine.run("doctor").stdout
    machine.must("connect", "ci", "--detach")
    machine.must("connect", "ci", "--name=again", "--detach")
    assert machine.run("doctor").stdout.count("\npool ci\n") == 1


def test_builds_need_a_connection_that_answers(machine: Machine) -> None:
    assert "there is no connection; connect to the pool" in machine.fails("builds")
    machine.must("connect", "ci", "--detach")
    assert "is not reached at tcp://127.0.0.1:" in machine.fails("builds")
    assert "kubectl buildpool doctor ci -n builds" in machine.fails("logs", "abc")
    assert "there is no builder other" in machine.fails("builds", "other")
    machine.buildx("rm", "ci")
    assert "is no longer the one that connect has made" in machine.fails("builds")
