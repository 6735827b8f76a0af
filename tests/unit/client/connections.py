"""Connections as tests need them."""

from __future__ import annotations

from pathlib import PurePosixPath

from buildpool.client.values import Cluster, Connection, Node, Target, Via
from buildpool.core.naming import PoolKey

ROOT = PurePosixPath("/home/user/.config/buildpool/ci")
GATEWAY = Target("buildpool-system", "buildpool-gateway")


def a_node(name: str = "ci", **overrides: object) -> Node:
    """A node by a port-forward."""
    fields: dict[str, object] = {
        "pool": PoolKey("builds", name),
        "client": "anna",
        "platform": "linux/amd64",
        "via": Via.PORT_FORWARD,
        "host": "127.0.0.1",
        "port": 4001,
        "server_name": f"{name}.builds.svc",
        "target": GATEWAY,
    }
    return Node(**{**fields, **overrides})  # type: ignore[arg-type]


def a_connection(*nodes: Node) -> Connection:
    """A builder of these nodes."""
    cluster = Cluster("builds", "work", "/home/user/kube config", "https://api.example.com")
    return Connection("ci", cluster, nodes or (a_node(),))
