"""``status``, ``explain``, ``rotate`` and ``warm``: what needs no connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from buildpool.client.kubectl import reached
from buildpool.client.overview import output, table
from buildpool.client.refusals import unmoving
from buildpool.client.values import Output
from buildpool.core import naming
from buildpool.core.api.duration import parse_duration
from buildpool.core.api.warmth import MAX_WARMTH, Warmth, request_for
from buildpool.core.errors import BuildpoolError
from buildpool.core.explanation import explain
from buildpool.core.naming import PoolKey
from buildpool.core.words import counted


def explained(pool: str, *, namespace: str, context: str, kubeconfig: str) -> str:
    """What the operator has decided about a pool, and why."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    seen = kubectl.pool(cluster, pool)
    return unmoving(explain(seen.pool, now=datetime.now(UTC), refusal=seen.refusal))


def overview(
    *, namespace: str, context: str, kubeconfig: str, everywhere: bool, form: Output | None
) -> str:
    """All pools of a namespace, or of all namespaces."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    pools = kubectl.pools(cluster, everywhere=everywhere)
    if form is not None:
        return output(pools, form)
    if not pools:
        where = "the cluster" if everywhere else f"namespace {cluster.namespace}"
        return f"There is no {naming.KIND} in {where}."
    return table(pools, with_namespace=everywhere)


def rotate(pool: str, *, namespace: str, context: str, kubeconfig: str, authority: bool) -> str:
    """Asks the operator for new certificates, or for a new authority."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    key: PoolKey = kubectl.pool(cluster, pool).pool.key
    what = "authority" if authority else "certificates"
    kubectl.annotate(cluster, key, f"{naming.ANNOTATION_ROTATE}={what}")
    return f"pool {key}: its {what} {'is' if authority else 'are'} being replaced"


def warm(
    pool: str, *, namespace: str, context: str, kubeconfig: str, builders: int, span: str
) -> str:
    """Asks the operator to have so many builders for a while, whatever builds run."""
    try:
        length = parse_duration(span)
    except ValueError as error:
        raise BuildpoolError(f"--for: {error}") from None
    if not timedelta(0) < length <= MAX_WARMTH:
        raise BuildpoolError("--for: give a time of up to 24h; for longer, raise scaling.min")
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    seen = kubectl.pool(cluster, pool)
    key, spec = seen.pool.key, seen.pool.spec
    if seen.refusal is not None:
        raise BuildpoolError(f"pool {key}: {seen.refusal.problems[0]}")
    if spec.replicas is not None:
        raise BuildpoolError(
            f"pool {key} has as many builders as spec.replicas says; change that, or take it out"
        )
    if builders > spec.scaling.max:
        raise BuildpoolError(
            f"pool {key} may have {counted(spec.scaling.max, 'builder')}; ask for no more, or "
            "raise scaling.max"
        )
    # The operator goes by the cluster's clock, and this one may be wrong.
    until = (kubectl.server_time(cluster) or datetime.now(UTC)) + length
    asked = request_for(Warmth(builders, until))
    kubectl.annotate(cluster, key, f"{naming.ANNOTATION_WARM}={asked}")
    many = counted(builders, "builder")
    return f"pool {key} has {many} or more until {until:%Y-%m-%d %H:%M:%S} UTC"


def cool(pool: str, *, namespace: str, context: str, kubeconfig: str) -> str:
    """Takes back what ``warm`` has asked for."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    key = kubectl.pool(cluster, pool).pool.key
    kubectl.annotate(cluster, key, f"{naming.ANNOTATION_WARM}-")
    return f"pool {key} has as many builders as builds need"


def names(*, namespace: str, context: str, kubeconfig: str) -> list[str]:
    """The names of all pools of a namespace."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)
    return [seen.pool.key.name for seen in kubectl.pools(cluster, everywhere=False)]
