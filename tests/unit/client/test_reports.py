from __future__ import annotations

from dataclasses import replace

from buildpool.client.nodes import NodeReport
from buildpool.client.reports import report
from buildpool.client.values import Via
from unit.client.connections import a_connection, a_node

RUNS = NodeReport("running", "v0.34.2", "linux/amd64*, linux/amd64/v2, linux/386")


def test_each_pool_says_how_it_is_and_which_way_leads_there() -> None:
    named = a_node("b", via=Via.HOSTNAME, host="build.example.com", port=443)
    pair = a_connection(a_node("a"), named)
    service = "service/buildpool-gateway in buildpool-system"
    forward = f"at tcp://127.0.0.1:4001, a port-forward to {service}"
    assert report(pair, {"a": RUNS}, ("docker", "buildx"), is_current=False).splitlines() == [
        f"pool builds/a: running, BuildKit v0.34.2, linux/amd64, linux/386, {forward}",
        "pool builds/b: asleep, the first build wakes it, at tcp://build.example.com:443",
        "Build: docker buildx build --builder ci .",
    ]


def test_what_buildx_says_moves_no_cursor() -> None:
    odd = replace(RUNS, version="\x1b[31m")
    assert "\x1b" not in report(a_connection(), {"ci": odd}, ("buildx",), is_current=True)
