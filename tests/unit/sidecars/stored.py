"""A registry's storage on disk, made with real digests and times that a test says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from buildpool.sidecars.keeper.storage import RegistryStorage

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.buildkit.cacheconfig.v0"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(content: bytes, media_type: str = LAYER) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def an_image_manifest(layers: Iterable[bytes], config: bytes = b"{}") -> bytes:
    """As BuildKit exports a cache."""
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
    }
    return json.dumps(body).encode()


def an_index(*children: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()


@dataclass
class Stored:
    """The storage, filled as the registry would."""

    root: Path

    @property
    def storage(self) -> RegistryStorage:
        return RegistryStorage(self.root)

    def blob(self, content: bytes, *repositories: str, age: timedelta = DAY) -> str:
        """Stores a blob and links it into repositories."""
        digest = digest_of(content)
        file = self.storage.data(digest)
        if not file.exists():
            put(file, content, age)
        for repository in repositories:
            put(self.storage.link_folder(repository, digest) / "link", digest.encode(), age)
        return digest

    def manifest(
        self, content: bytes, repository: str, tag: str | None = None, *, age: timedelta = DAY
    ) -> str:
        """Stores a manifest as a revision of a repository, and perhaps its tag."""
        digest, storage = self.blob(content, age=age), self.storage
        put(storage.revision_folder(repository, digest) / "link", digest.encode(), age)
        if tag is not None:
            folder = storage.tag_folder(repository, tag)
            hexadecimal = digest.removeprefix("sha256:")
            put(folder / "index/sha256" / hexadecimal / "link", digest.encode(), age)
            put(folder / "current/link", digest.encode(), age)
        return digest

    def cache(
        self,
        ref: str = "caches/app:main",
        layers: Iterable[bytes] = (b"one", b"two"),
        *,
        age: timedelta = DAY,
    ) -> str:
        """Stores a whole cache as BuildKit exports it, and returns its digest."""
        repository, _, tag = ref.partition(":")
        config = f"of {ref} with {layers}".encode()
        for content in (*layers, config):
            self.blob(content, repository, age=age)
        return self.manifest(an_image_manifest(layers, config), repository, tag or None, age=age)

    def has(self, content: bytes | str) -> bool:
        digest = content if isinstance(content, str) else digest_of(content)
        return self.storage.data(digest).parent.exists()

    def tags(self) -> set[str]:
        """All tags that the registry would know."""
        home = self.storage.repositories
        links = home.rglob("_manifests/tags/*/current/link")
        return {f"{link.parents[4].relative_to(home)}:{link.parents[1].name}" for link in links}

    def revisions(self) -> set[tuple[str, str]]:
        """All manifests by repository that the registry would know."""
        home = self.storage.repositories
        return {
            (str(link.parents[4].relative_to(home)), f"sha256:{link.parents[0].name}")
            for link in home.rglob("_manifests/revisions/sha256/*/link")
        }

    def size(self) -> int:
        files = (self.root / "docker").rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())


def put(file: Path, content: bytes, age: timedelta = timedelta(0)) -> None:
    """Writes a file of that age, in folders of that age."""
    seconds = (NOW - age).timestamp()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (seconds, seconds))
    for folder in list(file.parents)[:6]:
        os.utime(folder, (seconds, seconds))
