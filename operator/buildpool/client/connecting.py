"""``connect`` and ``disconnect``, step by step."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from buildpool.client import holding
from buildpool.client.buildx import Buildx
from buildpool.client.folder import Folder, names
from buildpool.client.forwarding import fetch
from buildpool.client.kubectl import Kubectl, is_in_a_pod
from buildpool.client.nodes import NodeReport
from buildpool.client.parsing import gateway_in, target_in
from buildpool.client.recipes import asked_via, needed, printed
from buildpool.client.refusals import one_line
from buildpool.client.reports import lasting, report
from buildpool.client.values import Certificate, Cluster, Connection, Form, Node, Target, Via
from buildpool.client.ways import (
    Reach,
    check_one_builder,
    client_of,
    connection_of,
    is_being_made,
    needs_gateway,
    via_of,
    way_of,
)
from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.errors import BuildpoolError, NotFoundError

_ANSWERS_WITHIN_SECONDS: Final = 5.0
"""How long a pool is looked at that does not answer: a builder may just have become Ready."""
_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for."""

    pools: tuple[str, ...]
    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""
    client: str = ""
    name: str = ""
    via: Via | None = None
    gateway: str = ""
    port: int = 0
    use: bool = False
    detach: bool = False
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be connected, and what was until now."""

    connection: Connection
    pools: tuple[Pool, ...]
    folder: Folder
    before: Connection | None
    is_held: bool
    """Whether a process holds what was connected until now."""


def connect(wish: Wish) -> None:
    """Connects to pools, says how, and keeps what has to be kept."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            # As by Ctrl-C, so that no process is left behind.
            signal.signal(number, signal.default_int_handler)
    kubectl = Kubectl.found()
    buildx = _buildx(wish.form)
    cluster = kubectl.cluster(
        namespace=wish.namespace, context=wish.context, kubeconfig=wish.kubeconfig
    )
    pools = tuple(_usable(kubectl, cluster, name) for name in dict.fromkeys(wish.pools))
    reaches = [reach_of(kubectl, cluster, pool, wish) for pool in pools]
    folder, process = Folder(wish.name or pools[0].key.name), None
    try:
        with folder.locked():
            plan = _planned(cluster, reaches, folder, wish)
            connection = plan.connection
            if wish.form is not Form.BUILDCTL:
                check_one_builder(connection)
            found = [(node, fetched(kubectl, cluster, node)) for node in connection.nodes]
            for node, certificate in found:
                folder.keep_certificate(node, certificate)
            if wish.form is not None:
                _print(wish.form, plan, buildx)
                return
            process, last = _make(buildx, plan, wish)
        if last:
            _say(last)
        if process is not None:
            holding.wait(process)
    except KeyboardInterrupt:
        if process is None:
            raise
        holding.end(process)  # that is how the port-forward is to end


def _buildx(form: Form | None) -> Buildx:
    """The user's buildx; what is only printed can do without."""
    try:
        return Buildx.found()
    except BuildpoolError:
        if form is None:
            raise
        return Buildx(("docker", "buildx"))


def _planned(cluster: Cluster, reaches: Sequence[Reach], folder: Folder, wish: Wish) -> _Plan:
    before = folder.connection()
    if before is not None and not _is_same(before.cluster, cluster):
        raise BuildpoolError(
            f"builder {before.name} is connected by context {before.cluster.context} "
            f"({one_line(before.cluster.server)}); give this one another --name, or end that one: "
            f"kubectl buildpool disconnect {before.name}"
        )
    is_held = folder.holder() is not None
    forwarded = [reach for reach in reaches if reach.way.target is not None]
    find = holding.free_ports if wish.form is None else holding.usual_ports
    ports = find(forwarded, asked=wish.port, before=before, is_held=is_held)
    connection = connection_of(
        folder.path.name, cluster, reaches, ports=ports, port=wish.port or naming.PORT
    )
    is_made = before is not None and before.is_made
    pools = tuple(reach.pool for reach in reaches)
    return _Plan(replace(connection, is_made=is_made), pools, folder, before, is_held)


def _is_same(before: Cluster, now: Cluster) -> bool:
    return (before.context, before.server) == (now.context, now.server)


def _print(form: Form, plan: _Plan, buildx: Buildx) -> None:
    """Prints how to connect; what has to run for that is for the user, and no part of it."""
    connection, before = plan.connection, plan.before
    if not connection.is_made:
        plan.folder.keep(connection)  # so that disconnect knows it
    if not form.is_elsewhere:
        is_held = bool(
            connection.forwards and plan.is_held and before and _is_held_alike(before, connection)
        )
        for line in needed(connection, is_held=is_held):
            sys.stderr.write(f"{line}\n")
    _say(printed(form, connection, plan.folder.path, buildx.command))


def _make(buildx: Buildx, plan: _Plan, wish: Wish) -> tuple[subprocess.Popen[bytes] | None, str]:
    """Makes the builder, with what it needs to be reached.

    Returns the process that a terminal has to keep, and what to say of how long.

    Until there is a builder, what is noted is in the end what was connected before.
    """
    folder, before, is_held = plan.folder, plan.before, plan.is_held
    if is_held and not (before and _is_held_alike(before, plan.connection)):
        holding.stop(folder)
        is_held = False
    is_detached = before.is_detached if is_held and before else wish.detach
    connection = replace(plan.connection, is_detached=is_detached)
    process, noted = None, before
    try:
        folder.keep(connection)
        if connection.forwards and not is_held:
            process = holding.start(connection, folder)
        buildx.make(connection, folder.path, before=before, use=wish.use)
        noted = connection = replace(connection, is_made=True)
        folder.keep(connection)
        found = _proven(buildx, connection, plan.pools, folder)
        _say(report(connection, found, buildx.command))
    except BaseException:
        if process is not None:
            holding.end(process)
        folder.keep(noted)
        raise
    last = lasting(connection, is_ours=process is not None) if connection.forwards else ""
    return None if is_detached else process, last


def _is_held_alike(before: Connection, now: Connection) -> bool:
    """Whether the process that holds a connection can stay: its end would cut builds."""
    return before.forwards == now.forwards and before.cluster.flags == now.cluster.flags


def disconnect(name: str) -> None:
    """Ends a connection, and removes its builder and its files; the pool does not notice."""
    there = names()
    listed = f"there are {', '.join(there)}; name one" if there else "there is none"
    if not name and len(there) != 1:
        raise BuildpoolError(f"which connection shall end? {listed}")
    folder = Folder(name or there[0])
    if folder.path.name not in there:
        raise BuildpoolError(f"there is no connection {name}; {listed}")
    with folder.locked():
        made = _made(folder)
        holding.stop(folder)
        name, gone, error = folder.path.name, False, None
        try:
            if made is not None:
                buildx = Buildx.found()
                gone = buildx.has_that_of(made) and buildx.remove(name)
        except BuildpoolError as refused:
            error = refused
        folder.remove()
    if error is not None:
        raise BuildpoolError(
            f"the files of connection {name} are removed, its builder is not ({error}): "
            f"docker buildx rm {name}"
        )
    _say(f"builder {name} and its files are removed" if gone else f"files of {name} are removed")


def _made(folder: Folder) -> Connection | None:
    """The connection whose builder connect has made; None, too, if it cannot be read."""
    try:
        found = folder.connection()
    except BuildpoolError as error:
        sys.stderr.write(f"{error}\n")
        return None
    return found if found is not None and found.is_made else None


def _usable(kubectl: Kubectl, cluster: Cluster, name: str) -> Pool:
    """The pool, once the operator has made what a connection needs, if it is about to."""
    is_said = False
    while True:
        seen = kubectl.pool(cluster, name)
        pool = seen.pool
        if seen.refusal is not None:
            raise BuildpoolError(f"pool {pool.key}: {seen.refusal.problems[0]}")
        if pool.deletion_timestamp is not None:
            raise BuildpoolError(f"pool {pool.key} is being deleted; connect to another one")
        if not is_being_made(pool, datetime.now(UTC)):
            return pool
        if not is_said:
            sys.stderr.write(f"pool {pool.key} is new: waiting for its certificates\n")
            is_said = True
        time.sleep(_PAUSE_SECONDS)


def reach_of(kubectl: Kubectl, cluster: Cluster, pool: Pool, wish: Wish) -> Reach:
    """How a pool is reached, by which client."""
    client = client_of(pool, wish.client)
    asked = asked_via(wish.form, wish.via, has_name=bool(pool.spec.gateway.hostnames))
    via = via_of(pool, asked=asked, is_inside=not cluster.context and is_in_a_pod())
    gateway = None
    if needs_gateway(pool, via):
        gateway = target_in(wish.gateway) if wish.gateway else _gateway(kubectl, cluster, pool)
    return Reach(pool, client, way_of(pool, via, gateway=gateway))


def _gateway(kubectl: Kubectl, cluster: Cluster, pool: Pool) -> Target | None:
    """The gateway's Service: the pool's own is another name of it."""
    name = naming.service(pool.key)
    path = f"/api/v1/namespaces/{pool.key.namespace}/services/{name}"
    try:
        return gateway_in(kubectl.get(cluster, path, f"Service {name}"))
    except NotFoundError:
        return None


def fetched(kubectl: Kubectl, cluster: Cluster, node: Node) -> Certificate:
    """The certificate of a node's client; a BuildpoolError, too, where it is not there yet."""
    try:
        return fetch(kubectl, cluster, node)
    except NotFoundError:
        pool = node.pool
        secret = naming.client_certificate(pool, node.client)
        raise BuildpoolError(
            f"Secret {pool.namespace}/{secret} is not there yet; the operator writes it when it "
            f"has accepted the pool: kubectl wait {naming.SHORT_NAME} {pool.name} "
            f"-n {pool.namespace} --for=condition=CertificatesReady"
        ) from None


def _proven(
    buildx: Buildx, connection: Connection, pools: Sequence[Pool], folder: Folder
) -> dict[str, NodeReport]:
    """What buildx says of each node, once all of them answer that are awake."""
    awake = [n for n in connection.nodes if n.pool in {p.key for p in pools if _is_awake(p)}]
    deadline = time.monotonic() + _ANSWERS_WITHIN_SECONDS
    while awake:
        # A handshake shows in a moment what buildx takes 20 s to notice.
        why = {node: said for node in awake if (said := holding.complaint(node, folder))}
        if not why:
            found = buildx.inspect(connection.name)
            reports = ((node, found.get(node.name, NodeReport())) for node in awake)
            why = {node: said.error for node, said in reports if not said.is_running}
            if not why:
                return found
        if time.monotonic() > deadline:
            node, said = next(iter(why.items()))
            raise BuildpoolError(
                f"pool {node.pool} does not answer at {node.address}{f' ({said})' if said else ''};"
                f" see how it is: kubectl buildpool explain {node.pool.name} "
                f"-n {node.pool.namespace}"
            )
        time.sleep(_PAUSE_SECONDS)
    return {}


def _is_awake(pool: Pool) -> bool:
    return bool(pool.status.ready_replicas)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
