"""What is said of a connection that was made, and of versions. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from buildpool.client.nodes import NodeReport
from buildpool.client.refusals import one_line
from buildpool.client.values import Connection, Node, Structure
from buildpool.core.naming import PoolKey


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


@dataclass(frozen=True, slots=True)
class PoolVersion:
    """The BuildKit of a pool that is connected."""

    pool: PoolKey
    version: str
    """Empty: it is not known."""
    why: str
    """Why it is not known."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of all that a build needs."""

    client: str
    operators: Mapping[str, str]
    """That of each operator, by its namespace."""
    why: str
    """Why no operator's is known."""
    pools: tuple[PoolVersion, ...]


def version_text(found: Versions, form: Structure | None) -> str:
    """The versions, for a terminal or for other programs."""
    if form is None:
        return "\n".join(_version_lines(found))
    listed = {
        "client": found.client,
        "operators": [
            {"namespace": namespace, "version": version}
            for namespace, version in sorted(found.operators.items())
        ],
        "pools": [
            {
                "namespace": each.pool.namespace,
                "name": each.pool.name,
                "buildkit": each.version or None,
            }
            for each in found.pools
        ],
    }
    return (
        json.dumps(listed, indent=4) if form is Structure.JSON else yaml.safe_dump(listed).rstrip()
    )


def _version_lines(found: Versions) -> Iterator[str]:
    yield f"client: {found.client}"
    for namespace, version in sorted(found.operators.items()):
        yield one_line(f"operator in {namespace}: {version}")
    if not found.operators:
        yield one_line(f"operator: unknown ({found.why})")
    for each in found.pools:
        told = f"BuildKit {each.version}" if each.version else f"unknown ({each.why})"
        yield one_line(f"pool {each.pool}: {told}")
