"""The images of the cluster, assembled here under the names that production manifests use.

Each is a recipe of layers; a layer or image is made once per content and shared.
"""

from __future__ import annotations

import platform
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devcluster import oci, rootfs
from devcluster.config import PAUSE_IMAGE, Programs
from devcluster.golang import DOCKERFILE_FRONTEND, MOCKERFILE, TOOLS, compile_module, version_of
from devcluster.oci import Entry, ImageConfig
from devcluster.store import Progress, content_key, ensure
from devcluster.wheels import ENVOY_VERSION

_COMMON: Final = (
    "base-files",
    "busybox-static",
    "ca-certificates",
    "libc-bin",
    "netbase",
    "passwd",
)
RUNTIME_PACKAGES: Final = (
    *_COMMON,
    "fuse-overlayfs",
    "git",
    "openssh-client",
    "pigz",
    "uidmap",
    "util-linux",  # for flock, which is part of upstream's base image
    "xz-utils",
)
PYTHON_PACKAGES: Final = (
    *_COMMON,
    "dash",
    "coreutils",
    "libstdc++6",  # gRPC is C++
    "python3",
    "python3-pip",
    "python3-venv",
)

_CAPABILITY_HEADER: Final = bytes.fromhex("01000002")
"""Version 2 of the attribute, with the effective bit."""


def file_capability(number: int) -> bytes:
    """The extended attribute that gives a program this one capability (below 32)."""
    return _CAPABILITY_HEADER + (1 << number).to_bytes(4, "little") + bytes(12)


CAP_SETGID: Final = file_capability(6)
CAP_SETUID: Final = file_capability(7)

_FRONTEND_LABELS: Final = {
    "moby.buildkit.frontend.network.none": "true",
    "moby.buildkit.frontend.caps": ",".join(
        f"moby.buildkit.frontend.{capability}"
        for capability in ("inputs", "subrequests", "contexts", "gitquerystring", "contexts.zstd")
    ),
}
"""What upstream's image of the Dockerfile frontend says of itself. All is the work of BuildKit's
``dockerui``, hence true of every frontend that is written with it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A recipe."""

    name: str
    """What ``devcluster load`` calls it."""
    reference: str
    config: ImageConfig
    layers: tuple[str, ...]
    """Names of layers, lowest first."""


def recipes() -> tuple[Image, ...]:
    """All images there are."""
    buildkit = version_of(TOOLS, "github.com/moby/buildkit")
    registry = version_of(TOOLS, "github.com/distribution/distribution/v3").lstrip("v")
    home = "/home/user"
    return (
        Image("pause", PAUSE_IMAGE, ImageConfig(entrypoint=("/pause",)), ("pause",)),
        Image(
            "buildkit",
            f"docker.io/moby/buildkit:{buildkit}",
            ImageConfig(
                entrypoint=("buildkitd",),
                environment=(
                    *ImageConfig().environment,
                    "BUILDKIT_HOST=unix:///run/buildkit/buildkitd.sock",
                ),
                volumes=("/var/lib/buildkit",),
            ),
            ("runtime", "buildkit"),
        ),
        Image(
            "buildkit-rootless",
            f"docker.io/moby/buildkit:{buildkit}-rootless",
            ImageConfig(
                entrypoint=("rootlesskit", "buildkitd"),
                environment=(
                    *ImageConfig().environment,
                    f"HOME={home}",
                    "USER=user",
                    "XDG_RUNTIME_DIR=/run/user/1000",
                    f"TMPDIR={home}/.local/tmp",
                    "BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock",
                ),
                user="1000:1000",
                volumes=(f"{home}/.local/share/buildkit",),
            ),
            ("runtime", "buildkit", "rootless"),
        ),
        Image(
            "registry",
            f"docker.io/library/registry:{registry}",
            ImageConfig(
                entrypoint=("/entrypoint.sh",),
                command=("/etc/distribution/config.yml",),
                environment=(*ImageConfig().environment, "OTEL_TRACES_EXPORTER=none"),
                volumes=("/var/lib/registry",),
                ports=("5000/tcp",),
            ),
            ("runtime", "registry"),
        ),
        Image(
            "envoy",
            f"docker.io/envoyproxy/envoy:v{ENVOY_VERSION}",
            # The official image begins as root and becomes user 101; nothing here needs root.
            ImageConfig(entrypoint=("envoy",), user="101:101"),
            ("busybox", "envoy"),
        ),
        Image(
            "busybox",
            "docker.io/library/busybox:1.37",
            ImageConfig(command=("sh",)),
            ("busybox",),
        ),
        Image(
            "python",
            "docker.io/library/python:3.11-slim-bookworm",
            ImageConfig(command=("python3",)),
            ("python", "python-names"),
        ),
        *(
            Image(
                frontend,
                reference,
                ImageConfig(entrypoint=(f"/bin/{frontend}",), labels=_FRONTEND_LABELS),
                (frontend,),
            )
            for frontend, reference in (
                ("dockerfile-frontend", "docker.io/docker/dockerfile:1"),
                ("mockerfile", "docker.io/library/mockerfile:1"),
            )
        ),
    )


AT_START: Final = ("pause", "buildkit", "buildkit-rootless", "registry", "envoy")
"""Images that every node has from the start."""


_USERS: Final = (
    b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
)
_GROUPS: Final = b"root:x:0:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class Assembler:
    """Makes images and layers out of compiled programs and Debian packages."""

    programs: Programs
    cache: Path
    progress: Progress

    def image(self, name: str) -> Path:
        """The OCI layout folder of an image, made now if need be."""
        image = next(image for image in recipes() if image.name == name)
        layers = tuple(map(self.layer, image.layers))
        key = content_key(repr(image), *(layer.parent.name for layer in layers), *_SOURCES)

        def make(folder: Path) -> None:
            self.progress(f"assembling {image.reference}")
            oci.write_image(image.reference, image.config, layers, folder)

        return ensure(self.cache, f"images/{name}", key, make, self.progress)

    def layer(self, name: str) -> Path:
        """The tar file of a layer. Programs are known by the folder they were compiled into."""
        if packages := _PACKAGES.get(name):
            log = self.cache / "logs" / f"layer-{name}.log"

            def unpack(folder: Path) -> None:
                self.progress(f"unpacking Debian packages for the layer {name} (log: {log})")
                rootfs.write_debian_layer(packages, folder / "layer.tar", log)

            key = content_key(platform.machine(), " ".join(packages), Path(rootfs.__file__))
            return ensure(self.cache, f"layers/{name}", key, unpack, self.progress) / "layer.tar"

        if module := _FRONTENDS.get(name):
            program = compile_module(module, self.cache, self.progress) / name
            return self._write(name, str(program), lambda: (Entry(f"bin/{name}", source=program),))
        return self._write(name, str(self.programs), lambda: _ENTRIES[name](self))

    def _write(self, name: str, programs: str, entries: Callable[[], tuple[Entry, ...]]) -> Path:
        def write(folder: Path) -> None:
            oci.write_layer(entries(), folder / "layer.tar")

        key = content_key(name, programs, *_SOURCES)
        return ensure(self.cache, f"layers/{name}", key, write, self.progress) / "layer.tar"


def _pause(assembler: Assembler) -> tuple[Entry, ...]:
    return (Entry("pause", source=assembler.programs.pause / "pause"),)


def _buildkit(assembler: Assembler) -> tuple[Entry, ...]:
    programs = assembler.programs
    return (
        Entry("usr/local/bin/buildctl", source=programs.tools / "buildctl"),
        Entry("usr/local/bin/buildkitd", source=programs.tools / "buildkitd"),
        Entry("usr/local/bin/buildkit-runc", source=programs.runc / "runc"),
        Entry("etc/passwd", 0o644, content=_USERS),
        Entry("etc/group", 0o644, content=_GROUPS),
        Entry("tmp", 0o1777),
        Entry("root", 0o700),
    )


def _rootless(assembler: Assembler) -> tuple[Entry, ...]:
    users = _USERS + b"user:x:1000:1000::/home/user:/bin/sh\n"
    share = "home/user/.local/share"
    folders = ("home/user", "home/user/.local", "home/user/.local/tmp", share, f"{share}/buildkit")
    # Debian's have the setuid bit, which does not suffice in a pod; a file capability does.
    with tarfile.open(assembler.layer("runtime")) as runtime:
        maps = tuple(
            Entry(name, content=rootfs.content(runtime, name), capability=capability)
            for name, capability in (
                ("usr/bin/newuidmap", CAP_SETUID),
                ("usr/bin/newgidmap", CAP_SETGID),
            )
        )
    return (
        *maps,
        Entry("usr/local/bin/rootlesskit", source=assembler.programs.tools / "rootlesskit"),
        Entry("etc/passwd", 0o644, content=users),
        Entry("etc/group", 0o644, content=_GROUPS + b"user:x:1000:\n"),
        Entry("etc/subuid", 0o644, content=b"user:100000:65536\n"),
        Entry("etc/subgid", 0o644, content=b"user:100000:65536\n"),
        *(Entry(folder, owner=1000) for folder in folders),
        Entry("run/user"),
        Entry("run/user/1000", 0o700, owner=1000),
    )


def _registry(assembler: Assembler) -> tuple[Entry, ...]:
    entrypoint = b"""\
#!/bin/sh
set -e
case "$1" in
    *.yaml|*.yml) set -- registry serve "$@" ;;
    serve|garbage-collect|help|-*) set -- registry "$@" ;;
esac
exec "$@"
"""
    config = b"""\
version: 0.1
log: {fields: {service: registry}}
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000", headers: {X-Content-Type-Options: [nosniff]}}
health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}
"""
    return (
        Entry("usr/bin/registry", source=assembler.programs.tools / "registry"),
        Entry("entrypoint.sh", content=entrypoint),
        Entry("etc/distribution/config.yml", 0o644, content=config),
        Entry("etc/passwd", 0o644, content=_USERS),
        Entry("etc/group", 0o644, content=_GROUPS),
        Entry("tmp", 0o1777),
    )


def _envoy(assembler: Assembler) -> tuple[Entry, ...]:
    return (
        Entry("usr/local/bin/envoy", source=assembler.programs.envoy / "envoy"),
        Entry(
            "etc/passwd",
            0o644,
            content=_USERS + b"envoy:x:101:101::/nonexistent:/usr/sbin/nologin\n",
        ),
        Entry("etc/group", 0o644, content=_GROUPS + b"envoy:x:101:\n"),
        Entry("tmp", 0o1777),
    )


def _python_names(_: Assembler) -> tuple[Entry, ...]:
    """Names that the image this one stands in for has in /usr/local/bin, and users."""
    return (
        Entry("usr/local/bin/python", target="/usr/bin/python3"),
        Entry("usr/local/bin/python3", target="/usr/bin/python3"),
        Entry("usr/local/bin/pip", target="/usr/bin/pip3"),
        Entry("etc/passwd", 0o644, content=_USERS),
        Entry("etc/group", 0o644, content=_GROUPS),
        Entry("tmp", 0o1777),
    )


_ENTRIES: Final[dict[str, Callable[[Assembler], tuple[Entry, ...]]]] = {
    "pause": _pause,
    "buildkit": _buildkit,
    "rootless": _rootless,
    "registry": _registry,
    "envoy": _envoy,
    "python-names": _python_names,
}
_FRONTENDS: Final = {module.name: module for module in (DOCKERFILE_FRONTEND, MOCKERFILE)}
"""Programs that no cluster needs; compiled when their layer is asked for."""
_PACKAGES: Final = {"busybox": _COMMON, "runtime": RUNTIME_PACKAGES, "python": PYTHON_PACKAGES}
_SOURCES: Final = tuple(
    Path(__file__).with_name(f"{name}.py") for name in ("images", "oci", "rootfs")
)
"""A change of how images are made makes new ones."""
