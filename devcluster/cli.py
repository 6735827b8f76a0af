"""The command line. Thin: reads options, calls the other modules, prints."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from devcluster import building, entering, golang, images, lifecycle, prerequisites
from devcluster.addresses import Family
from devcluster.control import Report, ask, require_box
from devcluster.errors import DevclusterError, last_lines
from devcluster.identity import Identity
from devcluster.layout import Layout, layout
from devcluster.plan import Plan

app = typer.Typer(
    name="devcluster",
    help="A real single-node Kubernetes on one Linux machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(stderr=True, highlight=False)

LINE_EVERY_SECONDS: Final = 30.0
"""Seconds between progress lines where the output is no terminal."""

Name = Annotated[str, typer.Option("--name", envvar="DEVCLUSTER_NAME", help="Which cluster.")]
PassThrough: Final = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}


class _Progress:
    """Says what is waited for: on one line that changes, or on a line now and then."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._printed = -LINE_EVERY_SECONDS
        self._stage = ""
        self._status = _console.status("") if _console.is_terminal else None

    def __call__(self, message: str) -> None:
        elapsed = time.monotonic() - self._started
        if self._status:
            self._status.start()
            self._status.update(escape(f"{message} ({elapsed:.0f} s)"))
            return
        stage = " ".join(message.split()[:2]).rstrip(":")
        if stage != self._stage or elapsed - self._printed >= LINE_EVERY_SECONDS:
            self._stage, self._printed = stage, elapsed
            _console.print(f"{elapsed:6.1f} s  {escape(message)}", soft_wrap=True)

    def stop(self) -> None:
        if self._status:
            self._status.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started


@contextmanager
def _progress() -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.stop()


def _layout(name: str) -> Layout:
    return layout(name, os.environ, Path.home())


def _running(name: str) -> tuple[Layout, Identity, Plan]:
    prerequisites.require_root()
    where = _layout(name)
    return where, require_box(where), Plan.read(where.plan)


@app.command()
def up(
    name: Name = "dev",
    control_plane: Annotated[
        bool, typer.Option("--control-plane", help="No node: nothing that runs a pod.")
    ] = False,
    family: Annotated[
        Family, typer.Option("--ip-family", help="Of all addresses; ipv6 only without a node.")
    ] = Family.IPV4,
    kubernetes: Annotated[
        str, typer.Option(help="An older control plane, such as 1.31; there are no nodes of it.")
    ] = "",
) -> None:
    """Start the cluster, or mend it; compiles and installs what is missing."""
    where = _layout(name)
    with _progress() as progress:
        outcome = lifecycle.up(
            where,
            with_node=not control_plane,
            kubernetes=kubernetes,
            progress=progress,
            family=family,
        )
    if outcome.was_up:
        _console.print(f"cluster {name} is already up")
        return
    how = "up again" if outcome.was_repaired else "up"
    _console.print(f"cluster {name} is {how} after {progress.elapsed:.1f} s")


@app.command()
def down(name: Name = "dev") -> None:
    """Remove the cluster and everything it has written (not the cache)."""
    where = _layout(name)
    with _progress() as progress:
        found = lifecycle.down(where, progress=progress)
    _console.print(f"cluster {name} is gone" if found else f"there is no cluster {name}")


@app.command()
def status(
    name: Name = "dev",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every component. Exit code 1 when the cluster is not up or not all is ready."""
    _, box, _ = _running(name)
    reports = ask(box, {"do": "status"})
    if as_json:
        print(json.dumps([dataclasses.asdict(report) for report in reports], indent=2))
    else:
        _print_reports(reports)
    if not all(report.settled for report in reports):
        raise typer.Exit(1)


def _print_reports(reports: tuple[Report, ...]) -> None:
    table = Table("component", "state", "for", "restarts", "memory", box=None)
    for report in reports:
        memory = f"{report.memory / 2**20:.0f} MiB" if report.memory else ""
        restarts = str(report.restarts or "")
        table.add_row(report.name, report.state, f"{report.seconds:.0f} s", restarts, memory)
    table.add_row("", "", "", "", f"{sum(report.memory for report in reports) / 2**20:.0f} MiB")
    Console().print(table)


@app.command()
def load(
    image: Annotated[
        str, typer.Argument(help="An image archive, or one of ours: registry, python, …")
    ],
    name: Name = "dev",
) -> None:
    """Import an image into the cluster."""
    where, box, plan = _running(name)
    if Path(image).is_file():
        building.load_archive(Path(image), box, plan)
        return
    known = [recipe.name for recipe in images.recipes()]
    if image not in known:
        raise DevclusterError(
            f"{image} is neither a file nor one of our images", remedy=f"Ours: {', '.join(known)}."
        )
    with _progress() as progress:
        folder = _assembler(where, plan, progress).image(image)
    building.load_folder(folder, box, plan)


@app.command()
def image(
    which: Annotated[str, typer.Argument(help="One of our images: python, registry, …")],
    name: Name = "dev",
) -> None:
    """Print the OCI layout folder of one of our images, made now if need be."""
    where, _, plan = _running(name)
    with _progress() as progress:
        folder = _assembler(where, plan, progress).image(which)
    print(folder)


def _assembler(where: Layout, plan: Plan, progress: _Progress) -> images.Assembler:
    return images.Assembler(plan.programs, where.cache, progress)


@app.command()
def build(
    tag: Annotated[str, typer.Option(help="Name of the image.")],
    file: Annotated[Path, typer.Option(help="The Dockerfile.")] = Path("Dockerfile"),
    context: Annotated[Path, typer.Option(help="The folder it copies from.")] = Path(),
    named: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER, NAME=oci-layout://FOLDER or NAME=image://python."),
    ] = None,
    argument: Annotated[list[str] | None, typer.Option("--build-arg", help="NAME=VALUE.")] = None,
    name: Name = "dev",
) -> None:
    """Build an image inside the box (steps have no network) and import it into the cluster."""
    where, box, plan = _running(name)
    if not plan.has_node:
        raise DevclusterError("a cluster without a node cannot build")
    request = building.Request(
        tag=tag,
        file=file.absolute(),
        context=context.absolute(),
        named=tuple(named or ()),
        arguments=tuple(argument or ()),
    )
    with _progress() as progress:
        assembler = _assembler(where, plan, progress)
        contexts = building.resolve(request.named, assembler.image)
    building.build(request, contexts, box, where, plan)


@app.command(context_settings=PassThrough)
def kubectl(context: typer.Context, name: Name = "dev") -> None:
    """Run kubectl as the cluster's administrator."""
    where, box, plan = _running(name)
    entering.become(box, where, plan, ("kubectl", *context.args))


@app.command("exec", context_settings=PassThrough)
def execute(context: typer.Context, name: Name = "dev") -> None:
    """Run any command in the cluster's network, with its programs on the PATH."""
    where, box, plan = _running(name)
    command = tuple(context.args) or (os.environ.get("SHELL", "sh"),)
    entering.become(box, where, plan, command)


@app.command()
def kubeconfig(name: Name = "dev") -> None:
    """Print the path of the administrator's kubeconfig (for use within `devcluster exec`)."""
    print(_layout(name).kubeconfig)


@app.command()
def restart(component: str, name: Name = "dev") -> None:
    """Ask a component to end, start it again, and wait until it is ready."""
    where, box, _ = _running(name)
    ask(box, {"do": "restart", "component": component})
    with _progress() as progress:
        lifecycle.wait_until_settled(where, box, progress)


@app.command()
def kill(
    component: str,
    number: Annotated[str, typer.Option("--signal", help="Such as KILL, STOP or CONT.")] = "KILL",
    name: Name = "dev",
) -> None:
    """Inject a fault: send a signal to a component, which is started again if it dies of it."""
    _, box, _ = _running(name)
    value = signal.Signals[f"SIG{number.upper().removeprefix('SIG')}"]
    _print_reports(ask(box, {"do": "signal", "component": component, "signal": value}))


@app.command()
def logs(
    component: str,
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
    name: Name = "dev",
) -> None:
    """Show the log of a component (or of: supervisor, audit)."""
    log = _layout(name).log(component)
    if not log.exists():
        known = ", ".join(sorted(path.stem for path in log.parent.glob("*.log")))
        raise DevclusterError(f"{component} has no log", remedy=f"These have: {known or 'none'}.")
    if follow:
        os.execvp("tail", ("tail", "-n", "50", "-F", str(log)))  # noqa: S606
    with log.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)


@app.command()
def program(
    which: Annotated[
        str, typer.Argument(help="Such as helm or buildctl; helm-3 is an older helm.")
    ],
) -> None:
    """Print the path of one of our programs, compiled now if need be. Needs no cluster."""
    cache = _layout("dev").cache
    with _progress() as progress:
        if which == golang.HELM_3.name:
            print(golang.compile_module(golang.HELM_3, cache, progress) / "helm")
            return
        programs = lifecycle.compile_programs(cache, progress)
    path = shutil.which(which, path=programs.path)
    if path is None:
        raise DevclusterError(f"there is no program {which}")
    print(path)


@app.command()
def doctor() -> None:
    """Say what this machine lacks to run a cluster."""
    prerequisites.require_root()
    _console.print(f"Go: {golang.find_go()}")
    missing = prerequisites.missing_packages()
    if missing:
        command = shlex.join(prerequisites.install_command(missing))
        raise DevclusterError(
            f"missing packages: {' '.join(missing)}",
            remedy=f"Run `{command}`, or let `devcluster up` do it.",
        )
    _console.print("nothing is missing")


def main() -> None:
    """Run the command line; an error that explains itself is printed without a traceback."""
    try:
        app()
    except DevclusterError as error:
        _console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        if error.log:
            _console.print(escape(f"{last_lines(error.log)}\n(log: {error.log})"), soft_wrap=True)
        if error.remedy:
            _console.print(escape(error.remedy), soft_wrap=True)
        raise SystemExit(1) from None
