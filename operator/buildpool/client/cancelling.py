"""``cancel``: has the gateway end a build, which takes the right to change its pool."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from buildpool.client.builds import Result, builds_in, chosen
from buildpool.client.buildx import Buildx
from buildpool.client.kubectl import Kubectl, reached
from buildpool.client.looking import builds_of, connection_named
from buildpool.client.refusals import one_line
from buildpool.client.values import Cluster
from buildpool.core import naming
from buildpool.core.api import Routing
from buildpool.core.api.cancellation import (
    CANCELS_FOR,
    MAX_REFS,
    REF,
    cancellation_in,
    request_for,
)
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import PoolKey

_ENDS_WITHIN_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 1.0


def cancel(ref: str, builder: str) -> str:
    """Ends a build of a connection, by its ref or by how that begins; waits until it has ended."""
    buildx, connection = Buildx.found(), connection_named(builder)
    build = chosen(builds_of(buildx, connection), ref)
    if not build.is_running:
        raise BuildpoolError(f"build {build.ref} has ended already")
    pool = next(node.pool for node in connection.nodes if node.name == build.pool)
    cancel_in(pool, build.ref, Kubectl.found(), connection.cluster)
    deadline = time.monotonic() + _ENDS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        found = builds_in(buildx.builds(connection.name))
        now = next((each for each in found if each.ref == build.ref), None)
        if now is not None and now.result is Result.COMPLETED:
            return f"build {build.ref} has succeeded before it could be cancelled"
        if now is not None and not now.is_running:
            return f"build {build.ref} is cancelled"
        time.sleep(_PAUSE_SECONDS)
    raise BuildpoolError(
        f"build {build.ref} is not known to have ended within {_ENDS_WITHIN_SECONDS:g} s; see "
        "whether the operator and the gateway run: "
        f"kubectl buildpool explain {pool.name} -n {pool.namespace}; if the gateway was restarted "
        "since the build began, only its client can end it"
    )


def cancel_of_pool(pool: str, ref: str, *, namespace: str, context: str, kubeconfig: str) -> str:
    """Ends a build of a pool, by its whole ref, without a connection."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    key = kubectl.pool(cluster, pool).pool.key
    cancel_in(key, ref, kubectl, cluster)
    return f"pool {key}: build {ref} is being ended, if it runs"


def cancel_in(key: PoolKey, ref: str, kubectl: Kubectl, cluster: Cluster) -> None:
    """Asks for it. What others have asked for meanwhile stays asked for."""
    if not REF.fullmatch(ref):
        raise BuildpoolError(f"{one_line(ref)!r} is no ref of a build")
    within = Cluster(key.namespace, cluster.context, cluster.kubeconfig, cluster.server)
    seen = kubectl.pool(within, key.name)
    if seen.refusal is None and seen.pool.spec.routing is not Routing.GATEWAY:
        raise BuildpoolError(
            f"pool {key} has no gateway, which alone can end a build; end its client instead"
        )
    now = kubectl.server_time(within) or datetime.now(UTC)
    before = cancellation_in(seen.annotation(naming.ANNOTATION_CANCEL), now)
    refs = {ref, *(before.refs if before else ())}
    if len(refs) > MAX_REFS:
        raise BuildpoolError(
            f"{MAX_REFS} builds of pool {key} are being ended already; try again in "
            f"{CANCELS_FOR.total_seconds():g} s"
        )
    asked = request_for(refs, now + CANCELS_FOR)
    kubectl.annotate(within, key, f"{naming.ANNOTATION_CANCEL}={asked}")
