"""A cluster as kubectl knows it, a connection to pools of it, and the words of flags.

Pure: values only. The command line imports it always, so it must import nothing that is large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from buildpool.core.naming import PoolKey


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and a namespace of it, as flags of kubectl name them."""

    namespace: str
    """The namespace that is meant where none is named."""
    context: str = ""
    """Name of the kubeconfig's context; empty in a pod, which has none."""
    kubeconfig: str = ""
    """Path of the kubeconfig; empty: the one that kubectl finds."""
    server: str = ""
    """The API server's URL, by which two contexts of one name are told apart; empty in a pod."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags by which kubectl asks this cluster, whatever the current context becomes."""
        given = {"--kubeconfig": self.kubeconfig, "--context": self.context}
        return tuple(f"{flag}={value}" for flag, value in given.items() if value)


class Form(StrEnum):
    """What a connection is printed for."""

    BUILDCTL = "buildctl"
    BUILDX = "buildx"
    ENV = "env"
    GITHUB = "github"
    GITLAB = "gitlab"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is used on another machine, where no port of this one leads."""
        return self in (Form.GITHUB, Form.GITLAB)


class Output(StrEnum):
    """How a list is printed, as kubectl spells it."""

    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Structure(StrEnum):
    """How what is no list of objects is printed for other programs."""

    JSON = "json"
    YAML = "yaml"


class Via(StrEnum):
    """How a client reaches a pool."""

    SERVICE = "service"
    HOSTNAME = "hostname"
    PORT_FORWARD = "port-forward"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A Service that is forwarded."""

    namespace: str
    service: str


@dataclass(frozen=True, slots=True)
class Way:
    """How a client reaches one pool, before a port-forward has a port."""

    via: Via
    server_name: str
    """The name that the pool's certificate has to be for."""
    host: str = ""
    """Where to connect; empty for a port-forward."""
    target: Target | None = None
    """What to forward; None where nothing has to be."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of this machine that leads to a Service."""

    target: Target
    port: int
    """Port on this machine's loopback."""


@dataclass(frozen=True, slots=True)
class Node:
    """One pool as a node of a builder."""

    pool: PoolKey
    client: str
    """Name of the client that builds."""
    platform: str
    """What the pool builds for, such as ``linux/amd64``; several are separated by commas."""
    via: Via
    host: str
    port: int
    server_name: str
    target: Target | None = None
    """What is forwarded to ``port`` of this machine; None where nothing is."""

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.pool.name

    @property
    def address(self) -> str:
        """Where buildctl and buildx connect to."""
        return f"tcp://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Connection:
    """One builder of buildx, with pools as its nodes."""

    name: str
    cluster: Cluster
    nodes: tuple[Node, ...]
    is_made: bool = False
    """Whether ``connect`` has made its builder, which only then may be changed and removed."""
    is_detached: bool = False
    """Whether its port-forwards run in the background, and not for as long as a terminal."""

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """The port-forwards: one for each node that needs one, for buildx takes no port twice."""
        return tuple(Forward(node.target, node.port) for node in self.nodes if node.target)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of a client, as files."""

    ca: bytes = field(repr=False)
    cert: bytes = field(repr=False)
    key: bytes = field(repr=False)


FILES: Final = ("ca.pem", "cert.pem", "key.pem")
"""Keys of a client's Secret, and names of the files that are made of it."""
MAX_FILE_BYTES: Final = 65536
"""Of a certificate, its key, or the authorities: many times what there ever is."""
