"""Writes container images: layers as tar files, images as OCI layout folders, archives to import.

Reproducible: the same content gives the same digests. Knows nothing of what is in an image.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

_MEDIA_TYPE: Final = "application/vnd.oci.image"
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
CONTAINERD_NAME: Final = "io.containerd.image.name"
REFERENCE_NAME: Final = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, link or folder of a layer."""

    path: str
    mode: int = 0o755
    source: Path | None = None
    """The file whose content it gets."""
    content: bytes | None = None
    """Or the content itself. With neither it is a folder."""
    target: str | None = None
    """Or a symbolic link to there."""
    owner: int = 0
    capability: bytes | None = None
    """The extended attribute ``security.capability``."""


def write_layer(entries: Iterable[Entry], file: Path) -> None:
    """A layer of these entries."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
            if entry.capability is not None:
                value = entry.capability.decode("utf-8", "surrogateescape")
                info.pax_headers = {"SCHILY.xattr.security.capability": value}
            if entry.target is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                tar.addfile(info)
            elif entry.source is not None:
                info.size = entry.source.stat().st_size
                with entry.source.open("rb") as source:
                    tar.addfile(info, source)
            elif entry.content is not None:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
            else:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a container of the image runs."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    user: str = ""
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    folder: str = "/"
    labels: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the OCI image specification spells it; what is empty is left out."""
        fields = {
            "Cmd": [*self.command],
            "Entrypoint": [*self.entrypoint],
            "Env": [*self.environment],
            "ExposedPorts": {port: {} for port in self.ports},
            "Labels": self.labels,
            "User": self.user,
            "Volumes": {volume: {} for volume in self.volumes},
            "WorkingDir": self.folder,
        }
        return {name: value for name, value in fields.items() if value}


def write_image(
    reference: str, config: ImageConfig, layers: tuple[Path, ...], folder: Path
) -> None:
    """An OCI layout folder with one image; the layers are linked, not copied, where possible."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    described = []
    for layer in layers:
        digest = _file_digest(layer)
        _link(layer, blobs / digest)
        described.append(_descriptor("layer.v1.tar", digest, layer.stat().st_size))
    image_config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": config.to_json(),
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA_TYPE}.manifest.v1+json",
        "config": _add(blobs, "config.v1+json", image_config),
        "layers": described,
    }
    head = _add(blobs, "manifest.v1+json", manifest)
    head["annotations"] = {
        CONTAINERD_NAME: reference,
        REFERENCE_NAME: reference.rpartition(":")[2],
    }
    (folder / "oci-layout").write_bytes(_LAYOUT)
    (folder / "index.json").write_bytes(_index([head]))


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The images that an OCI layout folder holds."""
    found: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())["manifests"]
    return found


def names(folder: Path) -> tuple[tuple[str, str], ...]:
    """(reference, digest) of each image in an OCI layout folder."""
    return tuple(
        (manifest["annotations"][CONTAINERD_NAME], manifest["digest"])
        for manifest in manifests(folder)
    )


def write_archive(folders: tuple[Path, ...], output: IO[bytes]) -> None:
    """One archive of several layouts, to be streamed; a layer they share is in it once."""
    heads = [manifest for folder in folders for manifest in manifests(folder)]
    blobs = {blob.name: blob for folder in folders for blob in (folder / "blobs/sha256").iterdir()}
    with tarfile.open(fileobj=output, mode="w|") as tar:
        for name, content in (("oci-layout", _LAYOUT), ("index.json", _index(heads))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for digest, blob in sorted(blobs.items()):
            info = tarfile.TarInfo(f"blobs/sha256/{digest}")
            info.size = blob.stat().st_size
            with blob.open("rb") as source:
                tar.addfile(info, source)


def _index(heads: list[dict[str, Any]]) -> bytes:
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA_TYPE}.index.v1+json",
        "manifests": heads,
    }
    return json.dumps(index).encode()


def _add(blobs: Path, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return _descriptor(kind, digest, len(content))


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA_TYPE}.{kind}", "digest": f"sha256:{digest}", "size": size}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError:
        destination.write_bytes(source.read_bytes())


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
