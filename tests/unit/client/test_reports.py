from __future__ import annotations

import json
from dataclasses import replace

import yaml

from buildpool.client.nodes import NodeReport
from buildpool.client.reports import PoolVersion, Versions, lasting, report, version_text
from buildpool.client.values import Structure, Via
from buildpool.core.naming import PoolKey
from unit.client.connections import a_connection, a_node

RUNS = NodeReport("running", "v0.34.2", "linux/amd64*, linux/amd64/v2, linux/386")


def test_each_pool_says_how_it_is_and_which_way_leads_there() -> None:
    named = a_node("b", via=Via.HOSTNAME, host="build.example.com", port=443, target=None)
    pair = a_connection(a_node("a"), named)
    service = "service/buildpool-gateway in buildpool-system"
    forward = f"at tcp://127.0.0.1:4001, a port-forward to {service}"
    assert report(pair, {"a": RUNS}, ("docker", "buildx")).splitlines() == [
        f"pool builds/a: running, BuildKit v0.34.2, linux/amd64, linux/386, {forward}",
        "pool builds/b: asleep, the first build wakes it, at tcp://build.example.com:443",
        "Build: docker buildx build --builder ci .",
    ]


def test_what_buildx_says_moves_no_cursor() -> None:
    odd = replace(RUNS, version="\x1b[31m")
    assert "\x1b" not in report(a_connection(), {"ci": odd}, ("buildx",))


def test_it_is_said_how_long_a_port_forward_lasts() -> None:
    kept, open_ = replace(a_connection(), is_detached=True), a_connection()
    assert "until: kubectl buildpool disconnect ci" in lasting(kept, is_ours=True)
    assert "until: kubectl buildpool disconnect ci" in lasting(kept, is_ours=False)
    assert "until Ctrl-C; --detach keeps it" in lasting(open_, is_ours=True)
    assert "of another terminal, and runs until Ctrl-C there" in lasting(open_, is_ours=False)


def test_versions_are_said_as_far_as_they_are_known() -> None:
    pools = (
        PoolVersion(PoolKey("builds", "a"), "v0.34.2", ""),
        PoolVersion(PoolKey("builds", "b"), "", "it sleeps"),
    )
    known = Versions("0.1.0", {"buildpool-system": "0.2.0"}, "", pools)
    assert version_text(known, None).splitlines() == [
        "client: 0.1.0",
        "operator in buildpool-system: 0.2.0",
        "pool builds/a: BuildKit v0.34.2",
        "pool builds/b: unknown (it sleeps)",
    ]
    unknown = replace(known, operators={}, why="you may\x1b not", pools=())
    assert version_text(unknown, None).splitlines()[1] == "operator: unknown (you may? not)"
    for form, read in ((Structure.JSON, json.loads), (Structure.YAML, yaml.safe_load)):
        assert read(version_text(known, form)) == {
            "client": "0.1.0",
            "operators": [{"namespace": "buildpool-system", "version": "0.2.0"}],
            "pools": [
                {"namespace": "builds", "name": "a", "buildkit": "v0.34.2"},
                {"namespace": "builds", "name": "b", "buildkit": None},
            ],
        }
