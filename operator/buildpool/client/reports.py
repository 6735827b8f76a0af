"""What is said of a connection that was made. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from buildpool.client.nodes import NodeReport
from buildpool.client.refusals import one_line
from buildpool.client.values import Connection, Node, Via


def report(
    connection: Connection,
    found: Mapping[str, NodeReport],
    buildx: Sequence[str],
    *,
    is_current: bool,
) -> str:
    """A line for each pool, and how to build."""
    lines = [
        f"pool {node.pool}: {_state(found.get(node.name))}, {_way(node, connection)}"
        for node in connection.nodes
    ]
    named = () if is_current else ("--builder", connection.name)
    lines.append(f"Build: {shlex.join([*buildx, 'build', *named])} .")
    return "\n".join(lines)


def _state(found: NodeReport | None) -> str:
    if found is None or not found.is_running:
        return "asleep, the first build wakes it"
    version = (f"BuildKit {found.version}",) if found.version else ()
    return one_line(", ".join(("running", *version, *_plain(found.platforms))))


def _plain(platforms: str) -> Iterator[str]:
    """Platforms without their variants, such as those of amd64, and each once."""
    names = (platform.strip(" *") for platform in platforms.split(","))
    yield from dict.fromkeys("/".join(name.split("/")[:2]) for name in names if name)


def _way(node: Node, connection: Connection) -> str:
    if node.via is not Via.PORT_FORWARD:
        return f"at {node.address}"
    (target,) = (each.target for each in connection.forwards if each.port == node.port)
    return f"at {node.address}, a port-forward to service/{target.service} in {target.namespace}"
