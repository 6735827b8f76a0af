"""``status``, ``explain`` and ``rotate``: what needs no connection."""

from __future__ import annotations

from datetime import UTC, datetime

from buildpool.client.kubectl import Kubectl
from buildpool.client.overview import output, table
from buildpool.client.refusals import unmoving
from buildpool.client.values import Output
from buildpool.core import naming
from buildpool.core.explanation import explain
from buildpool.core.naming import PoolKey


def explained(pool: str, *, namespace: str, context: str, kubeconfig: str) -> str:
    """What the operator has decided about a pool, and why."""
    kubectl = Kubectl.found()
    cluster = kubectl.cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)
    seen = kubectl.pool(cluster, pool)
    return unmoving(explain(seen.pool, now=datetime.now(UTC), refusal=seen.refusal))


def overview(
    *, namespace: str, context: str, kubeconfig: str, everywhere: bool, form: Output | None
) -> str:
    """All pools of a namespace, or of all namespaces."""
    kubectl = Kubectl.found()
    cluster = kubectl.cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)
    pools = kubectl.pools(cluster, everywhere=everywhere)
    if form is not None:
        return output(pools, form)
    if not pools:
        where = "the cluster" if everywhere else f"namespace {cluster.namespace}"
        return f"There is no {naming.KIND} in {where}."
    return table(pools, with_namespace=everywhere)


def rotate(pool: str, *, namespace: str, context: str, kubeconfig: str, authority: bool) -> str:
    """Asks the operator for new certificates, or for a new authority."""
    kubectl = Kubectl.found()
    cluster = kubectl.cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)
    key: PoolKey = kubectl.pool(cluster, pool).pool.key
    what = "authority" if authority else "certificates"
    kubectl.annotate(cluster, key, f"{naming.ANNOTATION_ROTATE}={what}")
    return f"pool {key}: its {what} {'is' if authority else 'are'} being replaced"


def names(*, namespace: str, context: str, kubeconfig: str) -> list[str]:
    """The names of all pools of a namespace."""
    kubectl = Kubectl.found()
    cluster = kubectl.cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)
    return [seen.pool.key.name for seen in kubectl.pools(cluster, everywhere=False)]
