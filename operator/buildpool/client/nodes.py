"""A connection becomes commands of buildx, and what buildx says of it becomes values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from buildpool.client.values import FILES, Connection, Node

NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
"""How a builder can be called. It is the name of a folder, too, and buildx knows no capitals."""
_OPTIONS: Final = ("cacert", "cert", "key")


def folder_of(node: Node, root: PurePath) -> PurePath:
    """Where the certificate files of a node are, below the folder of its connection."""
    return root / f"{node.pool.namespace}.{node.pool.name}.{node.client}"


def creation(
    connection: Connection, node: Node, root: PurePath, *, is_first: bool, use: bool = False
) -> list[str]:
    """Arguments of buildx that make a node, and with the first one the builder."""
    folder = folder_of(node, root)
    given = {option: str(folder / file) for option, file in zip(_OPTIONS, FILES, strict=True)}
    options = ",".join(
        _field(f"{k}={v}") for k, v in {**given, "servername": node.server_name}.items()
    )
    return [
        *("create", "--name", connection.name, "--node", node.name, "--driver", "remote"),
        *(() if is_first else ("--append",)),
        *(("--use",) if use else ()),
        *("--platform", node.platform, "--driver-opt", options, node.address),
    ]


def creations(connection: Connection, root: PurePath, *, use: bool = False) -> Iterator[list[str]]:
    """The commands that make the whole builder, one for each node."""
    for number, node in enumerate(connection.nodes):
        yield creation(connection, node, root, is_first=number == 0, use=use and number == 0)


def _field(text: str) -> str:
    """A field of buildx's comma-separated options."""
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(each in text for each in ',"\n\r') else text


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What ``buildx inspect`` says of one node."""

    status: str = "unknown"
    version: str = ""
    platforms: str = ""
    error: str = ""

    @property
    def is_running(self) -> bool:
        """Whether a builder answers there."""
        return self.status == "running"


def is_of(connection: Connection, inspected: str) -> bool:
    """Whether a builder is that of a connection, and not another one that got its name later."""
    drivers = re.findall(r"^Driver: +(\S+)", inspected, re.MULTILINE)
    endpoints = re.findall(r"^Endpoint: +(\S+)", inspected, re.MULTILINE)
    addresses = {node.address for node in connection.nodes}
    return drivers == ["remote"] and addresses.issuperset(endpoints)


def reports_in(inspected: str) -> dict[str, NodeReport]:
    """What is said of each node, by its name."""
    _, _, nodes = inspected.partition("\nNodes:\n")
    found: dict[str, NodeReport] = {}
    for block in re.split(r"\n(?=Name: )", f"\n{nodes}"):
        said: dict[str, str] = {}
        for line in block.splitlines():
            key, _, value = line.partition(":")
            said.setdefault(key.strip(), value.strip())
        if name := said.get("Name"):
            found[name] = NodeReport(
                status=said.get("Status", "unknown"),
                version=said.get("BuildKit version", ""),
                platforms=said.get("Platforms", ""),
                error=said.get("Error", ""),
            )
    return found
