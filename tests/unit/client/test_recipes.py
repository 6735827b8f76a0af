from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml

from buildpool.client.recipes import asked_via, needed, printed
from buildpool.client.values import Form, Via
from buildpool.core.errors import BuildpoolError
from unit.client.connections import ROOT, a_connection, a_node

BUILDX = ("docker", "buildx")
NAMED = {"via": Via.HOSTNAME, "host": "build.example.com", "port": 1234, "target": None}
PAIR = a_connection(a_node(**NAMED), a_node("ci-arm", platform="linux/arm64", **NAMED))
FORWARD = (
    "kubectl '--kubeconfig=/home/user/kube config' --context=work port-forward --address=127.0.0.1 "
    "-n buildpool-system service/buildpool-gateway 4001:1234"
)


@pytest.mark.parametrize("form", Form)
def test_what_has_to_run_is_no_part_of_what_other_programs_read(form: Form) -> None:
    assert "port-forward" not in printed(form, a_connection(), ROOT, BUILDX)


def test_what_has_to_run_is_said_unless_it_runs() -> None:
    (line,) = needed(a_connection(), is_held=False)
    assert line == f"This has to run, in a terminal of its own: {FORWARD}"
    (line,) = needed(a_connection(), is_held=True)
    assert line == "The port-forwards are those of connection ci, which run."
    assert not list(needed(PAIR, is_held=False))


@pytest.mark.parametrize("form", [form for form in Form if form.is_elsewhere])
def test_another_machine_is_led_to_no_port_of_this_one(form: Form) -> None:
    assert asked_via(form, None, has_name=True) is Via.HOSTNAME
    assert asked_via(form, None, has_name=False) is Via.SERVICE
    with pytest.raises(BuildpoolError, match=f"--print={form} is for another machine"):
        asked_via(form, Via.PORT_FORWARD, has_name=True)


def test_buildctl_gets_its_flags() -> None:
    (line,) = printed(Form.BUILDCTL, a_connection(), ROOT, BUILDX).splitlines()
    folder = f"{ROOT}/builds.ci.anna"
    assert line == (
        "buildctl --addr tcp://127.0.0.1:4001 --tlsservername ci.builds.svc "
        f"--tlscacert {folder}/ca.pem --tlscert {folder}/cert.pem --tlskey {folder}/key.pem"
    )


def test_buildx_gets_a_command_for_each_node() -> None:
    lines = printed(Form.BUILDX, PAIR, ROOT, BUILDX).splitlines()
    assert [shlex.split(line)[:3] for line in lines] == [["docker", "buildx", "create"]] * 2


def test_the_environment_names_builder_address_and_certificates() -> None:
    lines = printed(Form.ENV, a_connection(), ROOT, BUILDX).splitlines()
    assert lines == [
        "export BUILDKIT_HOST=tcp://127.0.0.1:4001",
        "export BUILDPOOL_SERVER_NAME=ci.builds.svc",
        f"export BUILDPOOL_CERTIFICATES={ROOT}/builds.ci.anna",
    ]
    made = replace(a_connection(), is_made=True)
    assert "export BUILDX_BUILDER=ci" in printed(Form.ENV, made, ROOT, BUILDX).splitlines()


def test_github_gets_a_step_with_every_node() -> None:
    text = printed(Form.GITHUB, PAIR, ROOT, BUILDX)
    assert f"gh secret set BUILDPOOL_CI_ARM_KEY < {ROOT}/builds.ci-arm.anna/key.pem" in text
    ((step),) = yaml.safe_load(text)
    given: dict[str, Any] = step["with"]
    assert (given["driver"], given["endpoint"]) == ("remote", "tcp://build.example.com:1234")
    (other,) = yaml.safe_load(given["append"])
    assert (other["name"], other["platforms"]) == ("ci-arm", "linux/arm64")
    secrets = {f"BUILDER_NODE_{n}_AUTH_TLS_{p}" for n in (0, 1) for p in ("CACERT", "CERT", "KEY")}
    assert step["env"].keys() == secrets
    assert step["env"]["BUILDER_NODE_1_AUTH_TLS_KEY"] == "${{ secrets.BUILDPOOL_CI_ARM_KEY }}"


def test_gitlab_gets_a_job_with_every_node() -> None:
    job = yaml.safe_load(printed(Form.GITLAB, PAIR, ROOT, BUILDX))["build"]
    first, second, build = job["script"]
    assert "cacert=$BUILDPOOL_CI_CA," in first
    assert "--append" in second
    assert "--builder ci" in build
