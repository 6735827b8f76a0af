"""The handlers themselves, and how Kopf is set up for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any, Final

import kopf

from buildpool.core import naming
from buildpool.core.naming import PoolKey
from buildpool.manager.assembly import Operator

registry: Final = kopf.OperatorRegistry()
POOLS: Final = (naming.GROUP, naming.VERSION, naming.PLURAL)
CHILDREN: Final = (
    ("apps", "v1", "deployments"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("v1", "configmaps"),
    ("v1", "persistentvolumeclaims"),
    ("v1", "pods"),
    ("v1", "services"),
)
"""What is watched, by label, beside pools. Not Secrets: see ``controller.secret_poller``."""


class NoDiffs(kopf.DiffBaseStorage):
    """Spares Kopf the copy of each object it sees, for differences that no handler asks for."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of an object matters."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence:
        """Nothing ever did."""
        return kopf.BodyEssence()

    def store(self, **_: Any) -> None:
        """There is nothing to keep."""


class Pauses:
    """Seconds between Kopf's tries of one request, without end.

    When it gives up on one watch, it ends them all. The pauses stay short: an API server that
    overflows says itself (``Retry-After``) how long it needs, and Kopf never waits less.
    """

    def __iter__(self) -> Iterator[float]:
        """The pauses of one request."""
        return chain((1.0, 1.0, 2.0, 3.0), repeat(5.0))


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf's own settings."""
    own = kopf.OperatorSettings()
    own.process.ultimate_exiting_timeout = None  # it would kill us 10 min after a lost leadership
    own.peering.standalone = True  # leadership is a Lease, taken before Kopf runs
    # Kopf puts on no finalizer, for nothing here is a daemon. Ours must not have the name of
    # Kopf's: it drops that from every object that is deleted, at once (docs/adr/0024).
    own.persistence.diffbase_storage = NoDiffs()
    own.posting.enabled = False  # Events are told by kube.events, with our reasons
    own.scanning.disabled = True  # no CRD of others interests us; needs no right to list them
    own.networking.request_timeout = 30.0
    own.networking.connect_timeout = 10.0
    own.networking.error_backoffs = Pauses()
    # A connection can die in silence. The API server ends each watch after 25 s, and two seconds
    # before sends a bookmark if anything happened: a watch that is silent for 30 s is dead. Either
    # way the next one goes on where it ended, from the last resource version: one request, no list.
    # (Without an end, bookmarks come once a minute; the API server remembers events for 75 s.)
    own.watching.server_timeout = 25
    own.watching.inactivity_timeout = 30.0
    for resource in CHILDREN:
        own.watching.label_selectors[resource] = naming.LABEL_POOL
    return own


@kopf.on.login(registry=registry)
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Credentials for Kopf's own watches; the same as the rest of the process uses."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.event(*POOLS, registry=registry)
async def pool_changed(
    *,
    event: kopf.RawEvent,
    namespace: str | None,
    name: str,
    uid: str,
    meta: kopf.Meta,
    status: kopf.Status,
    memo: Any,
    **_: Any,
) -> None:
    """Has every pool tended that there is, those on their way out, too.

    And wakes one whose spec has changed, which is deleted, of which something is asked, or for
    which builds wait. Our own status writes change none of these.
    """
    operator: Operator = memo
    pool = PoolKey(namespace or "", name)
    wishes = tuple(map(meta.annotations.get, naming.REQUESTS))
    deleted = meta.get("deletionTimestamp")
    asked = (meta.get("generation"), deleted, wishes, status.get("gateways"))
    if event["type"] == "DELETED":
        operator.asked.pop(uid, None)
        operator.orphan_sweeper.ask(pool)
        operator.wakeups.wake(pool)  # somebody else may have taken the finalizer off
        return
    operator.loop.start(pool)
    if operator.asked.get(uid) != asked:
        operator.asked[uid] = asked
        operator.wakeups.wake(pool)


async def child_changed(
    *, event: kopf.RawEvent, namespace: str | None, labels: kopf.Labels, memo: Any, **_: Any
) -> None:
    """Wakes the pool of an object that was changed or deleted."""
    operator: Operator = memo
    pool = labels.get(naming.LABEL_POOL)
    if event["type"] is None or not isinstance(pool, str):
        return  # the first listing: each pool gets a first pass anyway. Or it is nobody's
    operator.wakeups.wake(PoolKey(namespace or "", pool))


for _resource in CHILDREN:
    kopf.on.event(*_resource, registry=registry)(child_changed)


@kopf.on.cleanup(registry=registry)
async def end(*, memo: Any, **_: Any) -> None:
    """Ends all tending with the term, before Kopf would: it waits for nobody, and asks nobody."""
    operator: Operator = memo
    await operator.loop.end()
