"""What is said of a connection that was made. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from buildpool.client.nodes import NodeReport
from buildpool.client.refusals import one_line
from buildpool.client.values import Connection, Node


def report(
    connection: Connection,
    found: Mapping[str, NodeReport],
    buildx: Sequence[str],
) -> str:
    """A line for each pool, and how to build."""
    lines = [
        f"pool {node.pool}: {_state(found.get(node.name))}, {_way(node)}"
        for node in connection.nodes
    ]
    lines.append(f"Build: {shlex.join([*buildx, 'build', '--builder', connection.name])} .")
    return "\n".join(lines)


def lasting(connection: Connection, *, is_ours: bool) -> str:
    """How long the port-forwards run; ``is_ours``: they were started by this command."""
    end = f"kubectl buildpool disconnect {connection.name}"
    if connection.is_detached:
        return f"The port-forward runs until: {end}"
    if is_ours:
        return "The port-forward runs until Ctrl-C; --detach keeps it in the background."
    return (
        "The port-forward is that of another terminal, and runs until Ctrl-C there. To have it in "
        f"the background: {end}, then connect with --detach"
    )


def _state(found: NodeReport | None) -> str:
    if found is None or not found.is_running:
        return "asleep, the first build wakes it"
    version = (f"BuildKit {found.version}",) if found.version else ()
    return one_line(", ".join(("running", *version, *_plain(found.platforms))))


def _plain(platforms: str) -> Iterator[str]:
    """Platforms without their variants, such as those of amd64, and each once."""
    names = (platform.strip(" *") for platform in platforms.split(","))
    yield from dict.fromkeys("/".join(name.split("/")[:2]) for name in names if name)


def _way(node: Node) -> str:
    if (target := node.target) is None:
        return f"at {node.address}"
    return f"at {node.address}, a port-forward to service/{target.service} in {target.namespace}"
