"""A connection as a file, so that later commands know what was made. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from buildpool.client.nodes import NAME
from buildpool.client.values import Cluster, Connection, Node, Target, Via
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey


def written(connection: Connection) -> bytes:
    """The content of the file."""
    return json.dumps(asdict(connection), indent=2).encode() + b"\n"


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
        Cluster(**_texts(content["cluster"])),
        tuple(_node(**node) for node in content["nodes"]),
        is_made=content["is_made"] is True,
        is_detached=content["is_detached"] is True,
    )


def _node(
    *, pool: list[object], via: str, port: int, target: dict[str, object] | None, **texts: object
) -> Node:
    namespace, name = pool
    return Node(
        pool=PoolKey(_text(namespace), _text(name)),
        via=Via(via),
        port=_number(port),
        target=None if target is None else Target(**_texts(target)),
        **_texts(texts),
    )


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


def _texts(values: dict[str, object]) -> dict[str, str]:
    return {key: _text(value) for key, value in values.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
