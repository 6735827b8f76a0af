from __future__ import annotations

import csv
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.nodes import NAME, NodeReport, creations, is_of, reports_in
from buildpool.client.values import Connection
from unit.client.connections import ROOT, a_connection, a_node

PAIR = a_connection(a_node(), a_node("arm", platform="linux/arm64", port=4002))


def test_the_first_node_makes_the_builder_and_the_others_are_appended() -> None:
    first, second = creations(PAIR, ROOT, use=True)
    folder = f"{ROOT}/builds.ci.anna"
    options = (
        f"cacert={folder}/ca.pem,cert={folder}/cert.pem,key={folder}/key.pem,"
        "servername=ci.builds.svc"
    )
    assert first == [
        *("create", "--name", "ci", "--node", "ci", "--driver", "remote", "--use"),
        *("--platform", "linux/amd64", "--driver-opt", options, "tcp://127.0.0.1:4001"),
    ]
    assert second[:8] == [
        "create",
        "--name",
        "ci",
        "--node",
        "arm",
        "--driver",
        "remote",
        "--append",
    ]
    assert "--use" not in second
    assert second[-1] == "tcp://127.0.0.1:4002"


FOLDERS = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@given(FOLDERS)
def test_whatever_a_folder_is_called_buildx_gets_its_path(name: str) -> None:
    root = PurePosixPath("/home") / name
    ((*_, options, _),) = creations(a_connection(), root)
    (fields,) = csv.reader([options], strict=True)
    assert fields[0] == f"cacert={root}/builds.ci.anna/ca.pem"
    assert len(fields) == 4


INSPECTED = """\
Name:          pair
Driver:        remote
Last Activity: 2026-12-01 03:35:56 +0000 UTC

Nodes:
Name:             ci
Endpoint:         tcp://127.0.0.1:4001
Driver Options:   cacert="/tmp/ca.pem"
Status:           running
BuildKit version: v0.34.2
Platforms:        linux/amd64*, linux/386
Labels:
 org.mobyproject.buildkit.worker.hostname: ci-builder-0
GC Policy rule#0:
 All:            true

Name:           arm
Endpoint:       tcp://127.0.0.1:4002
Error:          no such host: x
Platforms:      linux/arm64*
"""


def test_what_buildx_says_of_nodes_is_read() -> None:
    assert reports_in(INSPECTED) == {
        "ci": NodeReport("running", "v0.34.2", "linux/amd64*, linux/386"),
        "arm": NodeReport("unknown", "", "linux/arm64*", "no such host: x"),
    }


@given(st.text())
def test_whatever_buildx_says_is_read(text: str) -> None:
    reports_in(f"\nNodes:\n{text}")


def is_none_running(connection: Connection, inspected: str) -> bool:
    found = reports_in(inspected)
    return not any(found.get(n.name, NodeReport()).is_running for n in connection.nodes)


def test_what_is_not_said_to_run_does_not_run() -> None:
    assert is_none_running(PAIR, "")
    assert is_none_running(PAIR, "Status: running\n")


def test_two_builders_have_two_names_for_buildx_too() -> None:
    """It knows no capitals."""
    assert NAME.fullmatch("my.builder_1-x")
    assert not NAME.fullmatch("Mine")


ONE_NODE = """\
Name:          ci
Driver:        remote
Last Activity: 2026-12-01 10:50:48 +0000 UTC

Nodes:
Name:     ci
Endpoint: {}
Status:   inactive
"""


@pytest.mark.parametrize(
    ("inspected", "is_it"),
    [
        (ONE_NODE.format(a_connection().nodes[0].address), True),
        (ONE_NODE.format("tcp://127.0.0.1:9"), False),
        (ONE_NODE.format(a_connection().nodes[0].address).replace("remote", "kubernetes"), False),
        ("", False),
    ],
)
def test_a_builder_of_the_same_name_may_be_another_one(inspected: str, is_it: bool) -> None:
    assert is_of(a_connection(), inspected) is is_it
