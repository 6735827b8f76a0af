"""``buildpool explain``: reads one pool with the user's own rights and says what it is about."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from buildpool.core import naming
from buildpool.core.api import identify_pool, parse_pool
from buildpool.core.api.pool import NAME_RULE
from buildpool.core.errors import BuildpoolError, InvalidSpecError
from buildpool.core.explanation import explain
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object, Ref, pool_ref
from buildpool.kube.cluster import connect
from buildpool.kube.metrics import RequestMetrics
from buildpool.process import utc_now

_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the namespace it runs in."""


def explained(pool: str, namespace: str | None) -> str:
    """What the operator has decided about a pool, and why. BuildpoolError: it cannot be read."""
    if not NAME_RULE.holds(pool):
        raise BuildpoolError(f"{pool!r} is no name of a pool: {NAME_RULE.remedy}")
    # That there is no kubeconfig is said below, with what helps.
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    found = asyncio.run(_read(pool_ref(PoolKey(namespace or _namespace(), pool))))
    now = utc_now()
    try:
        return explain(parse_pool(found), now=now)
    except InvalidSpecError as error:
        return explain(identify_pool(found), now=now, refusal=error)


@contextmanager
def _a_known_cluster() -> Iterator[None]:
    """Around what reads the kubeconfig, which meets some files with whatever Python raises."""
    try:
        yield
    except Exception as error:
        raise BuildpoolError(
            f"no cluster is known ({error}); set KUBECONFIG to a kubeconfig with a current context"
        ) from error


async def _read(ref: Ref) -> Object:
    async with AsyncExitStack() as stack:
        with _a_known_cluster():
            cluster = await stack.enter_async_context(connect(RequestMetrics()))
        found = await cluster.get(ref)
    if found is None:
        raise BuildpoolError(
            f"namespace {ref.namespace} has no {naming.KIND} {ref.name}; "
            f"kubectl get {naming.SHORT_NAME} -A lists all there are; -n names another namespace"
        )
    return found


def _namespace() -> str:
    """That of the identity which ``connect`` takes."""
    try:
        config.load_incluster_config(client_configuration=Configuration())  # type: ignore[no-untyped-call]
    except config.ConfigException:
        with _a_known_cluster():
            _, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
            return current["context"].get("namespace") or "default"
    return _OWN_NAMESPACE.read_text().strip()
