"""What lies in a registry's storage, as values, and what a manifest says it refers to.

Pure: ``storage`` reads and removes, ``retention`` decides. A digest is always spelt in full,
``sha256:`` and 64 hexadecimal digits: registries know other algorithms, BuildKit uses none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from buildpool.sidecars.names import is_digest

_MANIFEST_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
    }
)


class Identity(NamedTuple):
    """Tells whether a file is still the same one with the same content."""

    inode: int
    size: int
    changed_ns: int
    """The file's ctime, which no program can set."""


class Verdict(NamedTuple):
    """A blob was read and found sound."""

    identity: Identity
    at: datetime


class Key(NamedTuple):
    """A manifest in a repository: the same one may be in several."""

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One blob that a manifest refers to."""

    digest: str
    size: int
    is_manifest: bool
    """Whether clients ask for it as a manifest. An index may list plain blobs: BuildKit's do."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name of a manifest."""

    repository: str
    name: str
    digest: str | None
    """None: what is written there is no digest."""
    used: datetime

    @property
    def ref(self) -> str:
        """As people write it, without the registry's host."""
        return f"{self.repository}:{self.name}"


@dataclass(frozen=True, slots=True)
class Revision:
    """A manifest that a repository has, with or without a tag."""

    repository: str
    digest: str
    used: datetime
    refers: tuple[Descriptor, ...] | None
    """None: it cannot be read, or is not what it was."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return Key(self.repository, self.digest)


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob, which all repositories share."""

    digest: str
    identity: Identity | None
    """Of its data; None: there is none."""
    size: int
    """Bytes that go with it: of its data and of what an interrupted write may have left."""
    changed: datetime


@dataclass(frozen=True, slots=True)
class Link:
    """A repository's right to a blob; without one the registry denies having the blob."""

    repository: str
    digest: str
    is_sound: bool
    """Whether its content names the blob. It is written at once, so it is never half done."""
    changed: datetime
    """When the blob was last uploaded to, or mounted into, this repository."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return Key(self.repository, self.digest)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that holds nothing of use: empty, or without the link that gives it a meaning."""

    path: str
    changed: datetime


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that lies in the storage. Never quite one moment's state: the registry is at work."""

    tags: tuple[Tag, ...] = ()
    revisions: tuple[Revision, ...] = ()
    links: tuple[Link, ...] = ()
    blobs: Mapping[str, Blob] = field(default_factory=dict)
    """By digest."""
    leftovers: tuple[Leftover, ...] = ()
    uploads: tuple[Leftover, ...] = ()
    """Blobs that are being uploaded, or were when an export broke off."""
    used: int = 0
    """Bytes of all files, uploads that are under way among them."""

    def youngest(self) -> datetime | None:
        """When the last of all this was used, uploaded or left; None if there is nothing."""
        used = [*(tag.used for tag in self.tags), *(each.used for each in self.revisions)]
        found = [*(link.changed for link in self.links), *(u.changed for u in self.uploads)]
        stored = (blob.changed for blob in self.blobs.values())
        return max((*used, *found, *stored), default=None)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a manifest must not be handed out."""

    digest: str | None
    """Of the blob or manifest at fault; None: it is a tag, which leads to none."""
    what: str
    """For people; a sentence without a full stop."""
    repository: str | None = None
    """The only one where it is at fault; None: everywhere."""
    identity: Identity | None = None
    """Of the data that was found at fault; None: there was none."""


def references(content: bytes) -> tuple[Descriptor, ...] | None:
    """All that a manifest or index refers to, each once; None if it is neither."""
    try:
        body = json.loads(content)
        if not isinstance(body, dict) or body.get("schemaVersion") != 2:
            return None
        return tuple(dict.fromkeys(_descriptor(raw) for raw in _listed(body)))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None


def _listed(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if body.get("config") is not None:
        yield body["config"]
    for name in ("layers", "manifests"):
        yield from body.get(name) or ()


def _descriptor(raw: Mapping[str, Any]) -> Descriptor:
    digest, size = raw["digest"], raw["size"]
    if not is_digest(digest) or not isinstance(size, int):
        raise ValueError(raw)
    return Descriptor(digest, size, raw.get("mediaType") in _MANIFEST_TYPES)
