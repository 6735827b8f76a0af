"""What one Envoy wants, has and has answered to: the state of one stream of delta ADS.

Knows types, names and versions of resources, and nothing of what they mean. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

_TYPE: Final = "type.googleapis.com/envoy."
CLUSTER: Final = f"{_TYPE}config.cluster.v3.Cluster"
SECRET: Final = f"{_TYPE}extensions.transport_sockets.tls.v3.Secret"
LISTENER: Final = f"{_TYPE}config.listener.v3.Listener"
ORDER: Final = (CLUSTER, SECRET, LISTENER)
"""The order in which types are sent: what is referred to comes before what refers to it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, ready to be sent."""

    version: str
    content: any_pb2.Any

    @classmethod
    def of(cls, kind: str, message: Message) -> Resource:
        """A resource of this type."""
        return cls.of_content(kind, message.SerializeToString(deterministic=True))

    @classmethod
    def of_content(cls, kind: str, content: bytes) -> Resource:
        """The same, of a message that is written already."""
        version = sha256(content).hexdigest()[:16]
        return cls(version, any_pb2.Any(type_url=kind, value=content))


Snapshot = Mapping[str, Mapping[str, Resource]]
"""All that Envoy shall have: resources by type and name."""


@dataclass(slots=True)
class _Subscription:
    """What one Envoy wants and has of one type."""

    everything: bool = False
    names: set[str] = field(default_factory=set)
    has: dict[str, str] = field(default_factory=dict)
    """Versions by name."""
    is_answered: bool = False

    def wants(self, name: str) -> bool:
        """Whether it asked for this one."""
        return self.everything or name in self.names


@dataclass(frozen=True, slots=True)
class Rejection:
    """What an Envoy refuses to take, and why."""

    kind: str
    """The last part of the type."""
    names: tuple[str, ...]
    """Of all that was sent together."""
    why: str
    """In Envoy's own words."""


class Subscriptions:
    """The state of one Envoy."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, _Subscription] = {}
        self._open: dict[str, Mapping[str, str | None]] = {}
        """The versions, by name, of what was sent and neither taken nor refused yet, by nonce; None
        of what is gone."""
        self._taken: dict[tuple[str, str], str | None] = {}
        """The versions that it took last, by type and name: those that it serves with."""
        self._is_serving = False
        self._nonces = count(1)

    def read(self, request: discovery_pb2.DeltaDiscoveryRequest) -> Rejection | None:
        """Takes what Envoy says it wants and has; returns what it refuses."""
        kind = request.type_url
        sent = self._open.pop(request.response_nonce, {})
        rejection = None
        if request.HasField("error_detail"):
            why = request.error_detail.message.strip()
            rejection = Rejection(kind.rpartition(".")[2], tuple(sent), why)
        else:
            taken = {**request.initial_resource_versions, **sent}
            self._taken |= {(kind, name): version for name, version in taken.items()}
            if kind == LISTENER and taken:
                self._is_serving = True
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            subscription = self._subscriptions[kind] = _Subscription()
            # What it has from a stream before is not sent again.
            subscription.has = dict(request.initial_resource_versions)
            subscription.everything = not request.resource_names_subscribe
        for name in request.resource_names_subscribe:
            if name == "*":
                subscription.everything = True
            else:
                subscription.names.add(name)
                if name not in request.initial_resource_versions:
                    subscription.has.pop(name, None)
        for name in request.resource_names_unsubscribe:
            if name == "*":
                subscription.everything = False
            subscription.names.discard(name)
            subscription.has.pop(name, None)
            self._taken.pop((kind, name), None)
        return rejection

    def has(self, resources: Snapshot) -> bool:
        """Whether Envoy took all of these, and nothing else of their names since."""
        return all(
            self._taken.get((kind, name)) == resource.version
            for kind, found in resources.items()
            for name, resource in found.items()
        )

    def has_taken(self, snapshot: Snapshot) -> bool:
        """Whether Envoy serves, was sent the listener of a snapshot, and has answered to it."""
        listeners = self._subscriptions.get(LISTENER)
        wanted = {name: resource.version for name, resource in snapshot[LISTENER].items()}
        is_sent = listeners is not None and listeners.has == wanted
        return self._is_serving and is_sent and not self._open

    def due(self, snapshot: Snapshot) -> Iterator[discovery_pb2.DeltaDiscoveryResponse]:
        """What Envoy wants of a snapshot and lacks: it has it once it was sent."""
        for kind in ORDER:
            subscription = self._subscriptions.get(kind)
            if subscription is None:
                continue
            there = snapshot.get(kind, {})
            new = {
                name: resource
                for name, resource in there.items()
                if subscription.wants(name) and subscription.has.get(name) != resource.version
            }
            gone = [name for name in subscription.has if name not in there]
            if not new and not gone and subscription.is_answered:
                continue
            subscription.is_answered = True  # a first answer is waited for, though it be empty
            subscription.has |= {name: resource.version for name, resource in new.items()}
            for name in gone:
                del subscription.has[name]
            # An Envoy that refuses one secret drops those that came with it, of other pools too.
            batches = [{name: new[name]} for name in sorted(new)] if kind == SECRET else [new]
            for batch in batches or [{}]:
                yield self._answer(kind, batch, gone)
                gone = []

    def _answer(
        self, kind: str, new: Mapping[str, Resource], gone: list[str]
    ) -> discovery_pb2.DeltaDiscoveryResponse:
        nonce = str(next(self._nonces))
        versions = {name: new[name].version for name in sorted(new)}
        self._open[nonce] = {**versions, **dict.fromkeys(gone)}
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=kind,
            nonce=nonce,
            removed_resources=gone,
            resources=[
                discovery_pb2.Resource(
                    name=name, version=resource.version, resource=resource.content
                )
                for name, resource in sorted(new.items())
            ],
        )
