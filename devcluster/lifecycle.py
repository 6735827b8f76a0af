"""Brings a cluster up, and down without a trace; both in any state, and even twice at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from devcluster import config, golang, images, wheels
from devcluster.addresses import Family
from devcluster.control import Report, ask, running_box
from devcluster.errors import DevclusterError
from devcluster.identity import (
    Identity,
    in_network,
    is_alive,
    kill,
    network_of,
    read_identity,
)
from devcluster.layout import PROJECT, Layout
from devcluster.pki import create_pki
from devcluster.plan import Plan
from devcluster.prerequisites import (
    install_command,
    install_packages,
    missing_packages,
    require_root,
)
from devcluster.store import Progress, locked

BOX_PATIENCE_SECONDS: Final = 10.0
"""Seconds for the box to be made and its supervisor to answer."""
GIVES_UP_AFTER: Final = 6
"""Restarts of one component, while we wait, after which waiting longer is pointless."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `up` found and did."""

    was_up: bool = False
    was_repaired: bool = False


def up(
    layout: Layout,
    *,
    with_node: bool,
    progress: Progress,
    kubernetes: str = "",
    family: Family = Family.IPV4,
) -> Outcome:
    """Make sure that the cluster runs and everything in it is ready.

    ``kubernetes`` is a version of the control plane, such as ``1.31``; empty is the newest, and
    the only one of which there are nodes.
    """
    if with_node and family is not Family.IPV4:
        raise DevclusterError(
            "a node speaks IPv4 only", remedy="Add --control-plane, for a cluster without one."
        )
    require_root()
    kubernetes = kubernetes or golang.newest()
    if with_node and kubernetes != golang.newest():
        raise DevclusterError(
            f"there are no nodes of Kubernetes {kubernetes}", remedy="Add --control-plane."
        )
    with locked(layout.lock, progress):
        if box := _answering_box(layout):
            found = Plan.read(layout.plan)
            wanted = (with_node, family, kubernetes)
            if (found.has_node, found.family, found.kubernetes) != wanted:
                kind = "with" if found.has_node else "without"
                raise DevclusterError(
                    f"the cluster {layout.name} is up {kind} a node, "
                    f"with Kubernetes {found.kubernetes} and {found.family}",
                    remedy="Remove it first with `devcluster down`.",
                )
            was_up = all(report.settled for report in ask(box, {"do": "status"}))
            wait_until_settled(layout, box, progress)
            return Outcome(was_up=was_up)
        was_repaired = read_identity(layout.identity) is not None
        if was_repaired:
            progress("the last run ended without `down`: starting again with its data")
        plan = prepare(
            layout, with_node=with_node, kubernetes=kubernetes, progress=progress, family=family
        )
        _write_files(layout, plan)
        box = _start_box(layout, progress)
        wait_until_settled(layout, box, progress)
        return Outcome(was_repaired=was_repaired)


def down(layout: Layout, *, progress: Progress) -> bool:
    """Remove the cluster and all it has written. False when there was nothing."""
    require_root()
    with locked(layout.lock, progress):
        identity = read_identity(layout.identity)
        if identity:
            is_there = is_alive(identity)
            # With what `exec` has brought there, such as tests that were killed.
            others = in_network(network_of(identity.pid)) if is_there else []
            for each in (identity, *others):
                if not kill(each):
                    raise DevclusterError(f"process {each.pid} cannot be ended; is a disk stuck?")
        if not layout.state.exists():
            return False
        shutil.rmtree(layout.state)
        return True


def prepare(
    layout: Layout, *, with_node: bool, kubernetes: str, progress: Progress, family: Family
) -> Plan:
    """Everything that can be made ahead of the start: packages, programs, images."""
    if missing := missing_packages():
        log = layout.cache / "logs" / "apt.log"
        progress(f"{' '.join(install_command(missing))} (log: {log})")
        install_packages(missing, log)
    programs = compile_programs(layout.cache, progress, kubernetes)
    assembler = images.Assembler(programs, layout.cache, progress)
    folders = tuple(map(assembler.image, images.AT_START)) if with_node else ()
    return Plan(programs=programs, images=folders, kubernetes=kubernetes, family=family)


def compile_programs(cache: Path, progress: Progress, kubernetes: str = "") -> config.Programs:
    """The programs of all Go modules, and those that come ready-made.

    ``kubernetes`` is the version of the control plane; empty is the newest.
    """
    plane = golang.control_plane(kubernetes or golang.newest())
    return config.Programs(
        **{
            module.name.replace("-", "_"): golang.compile_module(module, cache, progress)
            for module in golang.MODULES
        },
        control_plane=golang.compile_module(plane, cache, progress),
        envoy=wheels.envoy(cache, progress),
    )


def _write_files(layout: Layout, plan: Plan) -> None:
    for folder in (layout.state, layout.logs, layout.data, layout.volumes):
        folder.mkdir(parents=True, exist_ok=True)
    layout.state.chmod(0o711)  # volumes below are used by any user
    if not layout.pki.exists():
        create_pki(layout.pki, layout.name, datetime.now(UTC))
    for name, content in config.render(layout, plan.programs, plan.family).items():
        file = layout.config / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o600)
    (layout.config / "resolv.conf").chmod(0o644)
    shutil.copy(layout.config / "admin.kubeconfig", layout.kubeconfig)
    plan.write(layout.plan)


def _answering_box(layout: Layout) -> Identity | None:
    """The box, if its supervisor answers. One that is ending or stuck is ended for good."""
    box = running_box(layout)
    if not box:
        return None
    try:
        ask(box, {"do": "status"})
    except OSError:
        if not kill(box):
            raise DevclusterError(f"process {box.pid} is stuck and cannot be ended") from None
        return None
    return box


def _start_box(layout: Layout, progress: Progress) -> Identity:
    """Start the supervisor and wait until it answers."""
    progress("making the namespaces")
    layout.identity.unlink(missing_ok=True)
    log = layout.log("supervisor")
    command = (sys.executable, "-m", "devcluster.supervisor")
    with log.open("ab") as output:
        done = subprocess.run(
            (*command, layout.name, str(layout.state), str(layout.cache)),
            env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise DevclusterError("the namespaces cannot be made", log=log)
    deadline = time.monotonic() + BOX_PATIENCE_SECONDS
    while box := running_box(layout):
        try:
            ask(box, {"do": "status"})
        except OSError:
            if time.monotonic() > deadline:
                raise DevclusterError("the supervisor does not answer", log=log) from None
            time.sleep(0.05)
        else:
            return box
    raise DevclusterError("the supervisor ended at once", log=log)


def wait_until_settled(layout: Layout, box: Identity, progress: Progress) -> None:
    """Wait until everything is ready, as long as there is hope."""
    restarts_before: dict[str, int] = {}
    while True:
        try:
            reports = ask(box, {"do": "status"})
        except OSError:
            log = layout.log("supervisor")
            raise DevclusterError("the supervisor ended or is stuck", log=log) from None
        restarts_before = restarts_before or {one.name: one.restarts for one in reports}
        if hopeless := find_hopeless(reports, restarts_before):
            raise DevclusterError(
                f"{hopeless.name} does not get ready: {hopeless.state} for "
                f"{hopeless.seconds:.0f} s after {hopeless.restarts} restarts",
                log=layout.log(hopeless.name),
            )
        waiting = [report.name for report in reports if not report.settled]
        if not waiting:
            return
        progress(f"waiting for {', '.join(waiting)}")
        time.sleep(0.1)


def find_hopeless(reports: Sequence[Report], restarts_before: Mapping[str, int]) -> Report | None:
    """The first component that waiting longer will not make ready."""
    for report in reports:
        too_slow = report.state == "starting" and report.seconds > report.patience
        restarts = report.restarts - restarts_before.get(report.name, 0)
        if too_slow or (not report.settled and restarts >= GIVES_UP_AFTER):
            return report
    return None
