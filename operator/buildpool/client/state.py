"""A connection as a file, so that later commands know what was made. Pure."""

from __future__ import annotations

import json
from typing import Any

from buildpool.client.nodes import NAME
from buildpool.client.values import Cluster, Connection, Forward, Node, Target, Via
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey


def written(connection: Connection) -> bytes:
    """The content of the file."""
    cluster = connection.cluster
    content = {
        "name": connection.name,
        "cluster": {
            "namespace": cluster.namespace,
            "context": cluster.context,
            "kubeconfig": cluster.kubeconfig,
        },
        "nodes": [
            {
                "namespace": node.pool.namespace,
                "pool": node.pool.name,
                "client": node.client,
                "platform": node.platform,
                "via": node.via.value,
                "host": node.host,
                "port": node.port,
                "serverName": node.server_name,
            }
            for node in connection.nodes
        ],
        "forwards": [
            {
                "namespace": forward.target.namespace,
                "service": forward.target.service,
                "port": forward.port,
            }
            for forward in connection.forwards
        ],
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def read(content: bytes, path: str) -> Connection:
    """The connection in a file; a BuildpoolError for what is none."""
    try:
        return _connection(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BuildpoolError(f"{path} cannot be read; remove it, and connect again") from None


def _connection(content: dict[str, Any]) -> Connection:
    name = content["name"]
    if not NAME.fullmatch(name):
        raise ValueError(name)
    return Connection(
        name,
        Cluster(**{key: _text(value) for key, value in content["cluster"].items()}),
        tuple(
            Node(
                PoolKey(_text(node["namespace"]), _text(node["pool"])),
                _text(node["client"]),
                _text(node["platform"]),
                Via(node["via"]),
                _text(node["host"]),
                int(node["port"]),
                _text(node["serverName"]),
            )
            for node in content["nodes"]
        ),
        tuple(
            Forward(
                Target(_text(forward["namespace"]), _text(forward["service"])),
                int(forward["port"]),
            )
            for forward in content["forwards"]
        ),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
