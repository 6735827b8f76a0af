"""``devcluster build``: a real buildkitd in the box builds an image, straight into the cluster."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devcluster import oci
from devcluster.control import ask, inside
from devcluster.errors import DevclusterError
from devcluster.identity import Identity
from devcluster.importing import import_images
from devcluster.layout import BUILDKIT_SOCKET, CONTAINERD_SOCKET, Layout
from devcluster.plan import Plan
from devcluster.store import locked

PATIENCE_SECONDS: Final = 30.0
LAYOUT: Final = "oci-layout://"
ASSEMBLED: Final = "image://"


@dataclass(frozen=True, slots=True)
class Request:
    """What to build."""

    tag: str
    file: Path
    context: Path
    named: tuple[str, ...] = ()
    """``NAME=FOLDER``, ``NAME=oci-layout://FOLDER`` or ``NAME=image://NAME-OF-OURS``."""
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """One named context: a folder, or an image in an OCI layout folder."""

    name: str
    folder: Path
    digest: str = ""
    """Of the image; empty for a plain folder."""

    def options(self) -> tuple[str, ...]:
        """As buildctl takes it."""
        key = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        if self.digest:
            source = f"{LAYOUT}{key}@{self.digest}"
            return (f"--oci-layout={key}={self.folder}", f"--opt=context:{self.name}={source}")
        return (f"--local={key}={self.folder}", f"--opt=context:{self.name}=local:{key}")


def full_reference(tag: str) -> str:
    """The name as Kubernetes looks it up: with registry and version."""
    name, _, version = tag.partition(":") if "/" not in tag else _split_version(tag)
    first = name.partition("/")[0]
    if "/" not in name:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    return f"{name}:{version or 'latest'}"


def _split_version(tag: str) -> tuple[str, str, str]:
    path, slash, last = tag.rpartition("/")
    name, colon, version = last.partition(":")
    return f"{path}{slash}{name}", colon, version


def resolve(named: tuple[str, ...], assembled: Callable[[str], Path]) -> tuple[Context, ...]:
    """What the named contexts mean; assembles images of ours that are among them."""
    return tuple(_resolve(option, assembled) for option in named)


def _resolve(option: str, assembled: Callable[[str], Path]) -> Context:
    name, equals, value = option.partition("=")
    if not (name and equals and value):
        raise DevclusterError(f"{option!r} is no named context", remedy="Write NAME=FOLDER.")
    if value.startswith(ASSEMBLED):
        folder, is_image = assembled(value.removeprefix(ASSEMBLED)), True
    else:
        folder, is_image = Path(value.removeprefix(LAYOUT)).absolute(), value.startswith(LAYOUT)
    if not folder.is_dir():
        raise DevclusterError(f"the named context {name} is no folder: {folder}")
    return Context(name, folder, oci.manifests(folder)[0]["digest"] if is_image else "")


def build_command(
    request: Request, contexts: tuple[Context, ...], archive: Path, socket: Path
) -> tuple[str, ...]:
    """The command line of buildctl, without the program."""
    parts = [
        f"--addr=unix://{socket}",
        "build",
        "--frontend=dockerfile.v0",
        f"--local=context={request.context}",
        f"--local=dockerfile={request.file.parent}",
        f"--opt=filename={request.file.name}",
        f"--output=type=oci,name={full_reference(request.tag)},dest={archive}",
    ]
    for context in contexts:
        parts += context.options()
    parts += (f"--opt=build-arg:{argument}" for argument in request.arguments)
    return tuple(parts)


def build(
    request: Request, contexts: tuple[Context, ...], box: Identity, layout: Layout, plan: Plan
) -> None:
    """Build the image and import it into the cluster."""
    with (
        locked(layout.state / "build.lock", print),
        tempfile.TemporaryDirectory(dir=layout.data) as scratch,
        _daemon(box, layout),
    ):
        archive = Path(scratch) / "image.tar"
        options = build_command(request, contexts, archive, inside(box, BUILDKIT_SOCKET))
        if subprocess.run((f"{plan.programs.tools}/buildctl", *options), check=False).returncode:
            raise DevclusterError(f"the build of {request.tag} failed")
        load_archive(archive, box, plan)


def load_archive(archive: Path, box: Identity, plan: Plan) -> None:
    """Import an archive, of OCI or Docker format, into the cluster's containerd."""
    socket = inside(box, CONTAINERD_SOCKET)
    command = (f"{plan.programs.tools}/ctr", f"--address={socket}", "--namespace=k8s.io")
    done = subprocess.run((*command, "images", "import", str(archive)), check=False)
    if done.returncode:
        raise DevclusterError(f"{archive} cannot be imported")


def load_folder(folder: Path, box: Identity, plan: Plan) -> None:
    """Import an image of ours into the cluster's containerd."""
    import_images(plan.programs.tools / "ctr", (folder,), inside(box, CONTAINERD_SOCKET))


@contextmanager
def _daemon(box: Identity, layout: Layout) -> Iterator[None]:
    """The box's own buildkitd, for as long as it is needed."""
    request = {"component": "buildkitd"}
    ask(box, {"do": "start", **request})
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ask(box, {"do": "start", **request})[0].state != "ready":
            if time.monotonic() > deadline:
                raise DevclusterError("buildkitd does not start", log=layout.log("buildkitd"))
            time.sleep(0.1)
        yield
    finally:
        ask(box, {"do": "stop", **request})
