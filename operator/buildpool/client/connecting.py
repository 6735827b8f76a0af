"""``connect`` and ``disconnect``, step by step."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from buildpool.client import holding
from buildpool.client.buildx import Buildx
from buildpool.client.folder import Folder, names
from buildpool.client.forwarding import fetch
from buildpool.client.kubectl import Kubectl, is_in_a_pod
from buildpool.client.nodes import NodeReport
from buildpool.client.parsing import gateway_in, target_in
from buildpool.client.recipes import asked_via, printed
from buildpool.client.reports import report
from buildpool.client.values import Certificate, Cluster, Connection, Form, Node, Target, Via
from buildpool.client.ways import (
    Reach,
    client_of,
    connection_of,
    needs_gateway,
    targets_of,
    via_of,
    way_of,
)
from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.errors import BuildpoolError, NotFoundError

_TRIES: Final = 5
"""How often a pool is looked at that does not answer: a builder may just have become Ready."""
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
    kubectl = Kubectl.found()
    buildx = Buildx.found() if wish.form is None else None
    plan = _planned(kubectl, wish)
    connection, folder = plan.connection, plan.folder
    for node in connection.nodes:
        folder.keep_certificate(node, _fetched(kubectl, connection.cluster, node))
    if buildx is not None:
        _make(buildx, plan, wish)
        return
    assert wish.form is not None  # noqa: S101 - or buildx was looked for
    if plan.before is None:
        folder.keep(connection)  # so that disconnect knows it
    _say(printed(wish.form, connection, folder.path, ("docker", "buildx")))


def _planned(kubectl: Kubectl, wish: Wish) -> _Plan:
    cluster = kubectl.cluster(
        namespace=wish.namespace, context=wish.context, kubeconfig=wish.kubeconfig
    )
    pools = tuple(_usable(kubectl, cluster, name) for name in dict.fromkeys(wish.pools))
    folder = Folder(wish.name or pools[0].key.name)
    before = folder.connection()
    if before is not None and before.cluster.context != cluster.context:
        raise BuildpoolError(
            f"builder {before.name} is connected by context {before.cluster.context}; give this "
            f"one another --name, or end that one: kubectl buildpool disconnect {before.name}"
        )
    reaches = [_reach(kubectl, cluster, pool, wish) for pool in pools]
    targets, is_held = targets_of(reaches), folder.holder() is not None
    if wish.form is None:
        old = before.forwards if before else ()
        ports = holding.free_ports(targets, asked=wish.port, before=old, is_held=is_held)
    else:
        ports = holding.usual_ports(targets, asked=wish.port)
    port = wish.port or naming.PORT
    connection = connection_of(folder.path.name, cluster, reaches, ports=ports, port=port)
    return _Plan(connection, pools, folder, before, is_held)


def _make(buildx: Buildx, plan: _Plan, wish: Wish) -> None:
    """Makes the builder, with what it needs to be reached."""
    connection, folder, before = plan.connection, plan.folder, plan.before
    is_held = plan.is_held
    if is_held and not (before and _is_held_alike(before, connection)):
        holding.stop(folder)
        is_held = False
    folder.keep(connection)
    process = None
    if connection.forwards and not is_held:
        process = holding.start(connection, folder, in_background=wish.detach)
    try:
        buildx.make(connection, folder.path, before=before.nodes if before else (), use=wish.use)
        found = _proven(buildx, connection, plan.pools, folder)
        _say(report(connection, found, buildx.command, is_current=wish.use))
    except BaseException:
        if process is not None:
            process.terminate()
            process.wait()
        raise
    if process is not None and not wish.detach:
        _say("The port-forward runs until Ctrl-C; --detach keeps it in the background.")
        holding.wait(process)
    elif connection.forwards:
        _say(f"The port-forward runs until: kubectl buildpool disconnect {connection.name}")


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
    holding.stop(folder)
    with suppress(BuildpoolError):  # without buildx there is no builder either
        Buildx.found().remove(folder.path.name)
    folder.remove()
    _say(f"builder {folder.path.name} and its files are removed")


def _usable(kubectl: Kubectl, cluster: Cluster, name: str) -> Pool:
    seen = kubectl.pool(cluster, name)
    if seen.refusal is not None:
        raise BuildpoolError(f"pool {seen.pool.key}: {seen.refusal.problems[0]}")
    if seen.pool.deletion_timestamp is not None:
        raise BuildpoolError(f"pool {seen.pool.key} is being deleted; connect to another one")
    return seen.pool


def _reach(kubectl: Kubectl, cluster: Cluster, pool: Pool, wish: Wish) -> Reach:
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


def _fetched(kubectl: Kubectl, cluster: Cluster, node: Node) -> Certificate:
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
    awake = {pool.key for pool in pools if pool.status.ready_replicas}
    for _ in range(_TRIES):
        found = buildx.inspect(connection.name)
        silent = [
            node
            for node in connection.nodes
            if node.pool in awake and not found.get(node.name, NodeReport()).is_running
        ]
        if not silent:
            return found
        time.sleep(_PAUSE_SECONDS)
    node = silent[0]
    why = holding.complaint(node, folder) or found.get(node.name, NodeReport()).error
    raise BuildpoolError(
        f"pool {node.pool} does not answer at {node.address}{f' ({why})' if why else ''}; see how "
        f"it is: kubectl buildpool explain {node.pool.name} -n {node.pool.namespace}"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
