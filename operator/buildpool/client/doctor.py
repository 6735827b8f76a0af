"""``doctor``: all that can be wrong between this machine and a build, asked in order.

It leaves nothing behind: what it connects is in a folder of its own, for as long as it runs.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from buildpool.client import holding
from buildpool.client.buildx import Buildx
from buildpool.client.certificates import facts_of, fetched_again_at, is_due
from buildpool.client.checks import Answer, Check, Line, answered, shown
from buildpool.client.connecting import Wish, connect, disconnect, fetched, reach_of
from buildpool.client.folder import Folder, names
from buildpool.client.kubectl import Kubectl
from buildpool.client.looking import connections
from buildpool.client.overview import troubles
from buildpool.client.values import Cluster, Node, Via
from buildpool.client.ways import connection_of
from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.errors import BuildpoolError
from buildpool.core.explanation.layout import rough
from buildpool.core.naming import PoolKey

MAX_CLOCK_ERROR: Final = timedelta(seconds=60)
"""By which a clock may be wrong: a certificate counts from a moment before it is issued."""
_FORWARDING: Final = (
    ("get", "services"),
    ("get", "pods"),
    ("list", "pods"),
    ("create", "pods/portforward"),
)
"""The rights that a port-forward needs, in the namespace of what is forwarded."""
_NAME: Final = "doctor"
"""Of the connection that is made for a look, in a folder of its own."""


def diagnose(wish: Wish, *, build: bool) -> bool:
    """Prints a line for each question; whether all is well. ``build``: whether to build, too.

    Without a pool in the wish, it is about those of the connections there are.
    """
    machine = _Machine(wish)
    lines = [_told(line) for line in answered(machine.checks())]
    known = {line.about for line in lines if line.answer is Answer.OK}
    for name, cluster in machine.pools():
        sys.stdout.write(f"\npool {name}\n")
        with _Visit(machine, replace(wish, pools=(name,)), cluster, build=build) as visit:
            lines += [_told(line) for line in answered(visit.checks(), known=known)]
    return not any(line.is_wrong for line in lines)


def _told(line: Line) -> Line:
    sys.stdout.write(f"{shown(line)}\n")
    sys.stdout.flush()
    return line


def clock_error(there: datetime, *, before: datetime, after: datetime) -> timedelta:
    """How much a clock is ahead of another one that, asked meanwhile, said a full second."""
    if there > after:
        return after - there
    return max(before - there - timedelta(seconds=1), timedelta(0))


class _Machine:
    """The machine of the user, and the cluster that it asks."""

    kubectl: Kubectl
    buildx: Buildx
    cluster: Cluster

    def __init__(self, wish: Wish) -> None:
        self._wish = wish

    def checks(self) -> Iterator[Check]:
        """The questions that have nothing to do with a pool."""
        yield Check("buildx", self._find_buildx)
        yield Check("kubectl", self._find_kubectl)
        yield Check("cluster", self._find_cluster, needs=("kubectl",))
        yield Check("API server", self._ask, needs=("cluster",))
        yield Check("clock", self._compare_clocks, needs=("API server",))

    def pools(self) -> Iterable[tuple[str, Cluster | None]]:
        """The pools to look at, each once, and their clusters; None: the one that is asked."""
        if self._wish.pools:
            return [(name, None) for name in dict.fromkeys(self._wish.pools)]
        found: dict[tuple[str, PoolKey], Cluster] = {}
        for connection in connections():
            for node in connection.nodes:
                cluster = replace(connection.cluster, namespace=node.pool.namespace)
                found.setdefault((cluster.server, node.pool), cluster)
        return [(key.name, cluster) for (_, key), cluster in found.items()]

    def _find_buildx(self) -> str:
        self.buildx = Buildx.found()
        return f"{' '.join(self.buildx.command)}: {self.buildx.version}"

    def _find_kubectl(self) -> str:
        self.kubectl = Kubectl.found()
        return self.kubectl.program

    def _find_cluster(self) -> str:
        wish = self._wish
        self.cluster = self.kubectl.cluster(
            namespace=wish.namespace, context=wish.context, kubeconfig=wish.kubeconfig
        )
        context = f"context {self.cluster.context}" if self.cluster.context else "that of this pod"
        return f"{context}, namespace {self.cluster.namespace}, {self.cluster.server}"

    def _ask(self) -> str:
        version = self.kubectl.get(self.cluster, "/version", "its version").get("gitVersion")
        return f"Kubernetes {version}"

    def _compare_clocks(self) -> str:
        before = datetime.now(UTC)
        there = self.kubectl.server_time(self.cluster)
        if there is None:
            return "the API server does not say what time it is"
        error = clock_error(there, before=before, after=datetime.now(UTC))
        if abs(error) > MAX_CLOCK_ERROR:
            word = "behind" if error < timedelta(0) else "ahead of"
            raise BuildpoolError(
                f"this machine is {rough(abs(error))} {word} the API server, so certificates are "
                "not valid yet, or no more; set its clock"
            )
        return "as the API server's"


class _Visit:
    """One pool, and the connection that is made to it for a look."""

    pool: Pool
    node: Node

    def __init__(
        self, machine: _Machine, wish: Wish, cluster: Cluster | None, *, build: bool
    ) -> None:
        self._machine = machine
        self._wish = wish
        self._known_cluster = cluster
        self._is_to_build = build
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def checks(self) -> Iterator[Check]:
        """The questions about the pool."""
        yield Check("pool", self._find, needs=("API server",))
        yield Check("operator", self._look, needs=("pool",))
        yield Check("way", self._find_way, needs=("pool",))
        yield Check("rights", self._ask_for_rights, needs=("way",))
        yield Check("certificate", self._read_certificate, needs=("way",))
        yield Check("connections", self._look_at_connections, needs=("pool",))
        yield Check("reach", self._connect, needs=("buildx", "rights", "certificate"))
        if self._is_to_build:
            yield Check("build", self._build, needs=("reach",))

    def _find(self) -> str:
        cluster = self._cluster
        seen = self._machine.kubectl.pool(cluster, self._wish.pools[0])
        self.pool = seen.pool
        if seen.refusal is not None:
            raise BuildpoolError(f"{seen.refusal.problems[0]}")
        self._troubles = [each.text for each in troubles(seen)]
        return f"{seen.pool.key}, {seen.pool.spec.routing}"

    @property
    def _cluster(self) -> Cluster:
        return self._known_cluster or self._machine.cluster

    def _look(self) -> str:
        status = self.pool.status
        if self._troubles:
            raise BuildpoolError(f"{self._troubles[0]} See {self._explain}")
        if not status.ready_replicas:
            return "the pool is asleep, and the first build wakes it"
        return f"{status.ready} builders are ready, {status.waiting} builds wait"

    @property
    def _explain(self) -> str:
        return f"kubectl buildpool explain {self.pool.key.name} -n {self.pool.key.namespace}"

    def _find_way(self) -> str:
        reach = reach_of(self._machine.kubectl, self._cluster, self.pool, self._wish)
        ports = {self.pool.key: naming.PORT}
        port = self._wish.port or naming.PORT
        self.node = connection_of(_NAME, self._cluster, (reach,), ports=ports, port=port).nodes[0]
        if (target := self.node.target) is not None:
            return f"a port-forward to service/{target.service} in {target.namespace}"
        try:
            found = socket.getaddrinfo(self.node.host, self.node.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise BuildpoolError(
                f"{self.node.host} is not known here ({error.strerror}); have the name lead to the "
                f"gateway, or go another way: --via={Via.PORT_FORWARD}"
            ) from None
        return f"{self.node.host}, {found[0][4][0]}"

    def _ask_for_rights(self) -> str:
        if (target := self.node.target) is None:
            return "nothing has to be forwarded"
        for verb, resource in _FORWARDING:
            if not self._machine.kubectl.may(self._cluster, verb, resource, target.namespace):
                raise BuildpoolError(
                    f"you may not {verb} {resource} in namespace {target.namespace}, which a "
                    "port-forward needs; docs/how-to/connect.md has a Role with all such rights"
                )
        return f"ports of namespace {target.namespace} may be forwarded"

    def _read_certificate(self) -> str:
        facts = facts_of(fetched(self._machine.kubectl, self._cluster, self.node))
        now = datetime.now(UTC)
        expires = f"client {self.node.client}, expires in {rough(facts.not_after - now)}"
        if now >= fetched_again_at(facts):
            raise BuildpoolError(f"{expires}, and was not renewed; see why: {self._explain}")
        return expires

    def _look_at_connections(self) -> str:
        ours = {each.name: each for each in connections()}
        found = [
            (name, node)
            for name, each in ours.items()
            for node in each.nodes
            if node.pool == self.pool.key and each.cluster.server == self._cluster.server
        ]
        for name, node in found:
            folder = Folder(name)
            again = f"connect again: kubectl buildpool connect {node.pool.name} --name {name}"
            if is_due(folder.certificate(node), now=datetime.now(UTC)):
                raise BuildpoolError(f"{name} has a certificate that expires soon; {again}")
            if said := holding.complaint(node, folder):
                raise BuildpoolError(f"{name} does not reach {node.address} ({said}); {again}")
        return ", ".join(name for name, _ in found) or "there is none yet"

    def _connect(self) -> str:
        begun = time.monotonic()
        self._stack.enter_context(_elsewhere())
        self._stack.callback(_end)
        cluster = self._cluster
        wish = replace(
            self._wish,
            namespace=cluster.namespace,
            context=cluster.context,
            kubeconfig=cluster.kubeconfig,
            name=_NAME,
            detach=True,
            form=None,
        )
        # Another port, since that of a connection is taken.
        wish = replace(wish, port=wish.port if self.node.target is None else 0)
        with redirect_stdout(io.StringIO()) as said:
            connect(wish)
        made = Folder(_NAME)
        connection = made.connection()
        for node in connection.nodes if connection else ():
            if why := holding.complaint(node, made):  # of a pool that sleeps, too
                raise BuildpoolError(f"{node.address} does not answer ({why}); see {self._explain}")
        state = said.getvalue().partition("\n")[0].partition(": ")[2].partition(", at tcp")[0]
        return f"{state}; answers after {time.monotonic() - begun:.1f} s"

    def _build(self) -> str:
        begun = time.monotonic()
        if not self.pool.status.ready_replicas:
            sys.stderr.write("a build wakes the pool; --no-build leaves that out\n")
        with tempfile.TemporaryDirectory() as context:
            (Path(context) / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
            if said := self._machine.buildx.try_out(_NAME, Path(context)):
                raise BuildpoolError(f"{said}; see {self._explain}")
        return f"one step, after {time.monotonic() - begun:.1f} s"


@contextmanager
def _elsewhere() -> Iterator[None]:
    """What is connected and made meanwhile is in a folder of its own, and ends with the block."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="buildpool-doctor-") as folder:
        os.environ["XDG_CONFIG_HOME"] = f"{folder}/config"
        os.environ["BUILDX_CONFIG"] = f"{folder}/buildx"
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _end() -> None:
    with redirect_stdout(io.StringIO()), suppress(BuildpoolError):
        if _NAME in names():
            disconnect(_NAME)
