"""Which pools there are to serve, and which builders: what the operator tells, and the pods.

Mirrors of the gateway's Secrets in its own namespace and of the builders' pods. What they mean is
read here once, when they change; the rest of the gateway asks this and never the API server.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple

from pydantic import ValidationError

from buildpool.core import naming
from buildpool.core.api.brief import BRIEF_KEY, Brief, acknowledgement
from buildpool.core.naming import PoolKey
from buildpool.core.objects.pods import (
    DELETED,
    VANISHED,
    address_of,
    ending_of,
    has_daemon,
    has_had_daemon,
    is_ready,
    name_of_builder,
    restarts_of,
    serves,
)
from buildpool.core.objects.refs import Object, is_terminating, text_at
from buildpool.core.pki import KeyPair
from buildpool.core.routing.values import Target
from buildpool.gateway.pools.config import PoolConfig
from buildpool.kube.cluster import Cluster
from buildpool.kube.informer import Informer

REMEMBERED_SECONDS: Final = 60.0
"""Seconds for which it is known what became of a builder."""
log: Final = logging.getLogger(__name__)


class _Trouble(NamedTuple):
    since: float
    uid: str
    name: str
    words: str


class Directory:
    """All pools and builders. For one event loop."""

    def __init__(self, cluster: Cluster, *, home: str, namespaces: tuple[str, ...]) -> None:
        self.synced = asyncio.Event()
        self._subscribers: list[Callable[[PoolKey], None]] = []
        self._home = home
        self._tenants: dict[PoolKey, PoolConfig] = {}
        self._builders: dict[PoolKey, dict[str, Target]] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._restarts: dict[str, int] = {}
        """Of daemons, by the uids of their pods."""
        labels = naming.installation_selector(naming.COMPONENT_GATEWAY)
        self._secrets = Informer(cluster, "Secret", home, labels, self._secret_changed)
        labels = naming.installation_selector(naming.COMPONENT_BUILDER)
        self._pods = [
            Informer(cluster, "Pod", namespace, labels, self._pod_changed)
            for namespace in namespaces or ("",)
        ]

    @property
    def configs(self) -> Mapping[PoolKey, PoolConfig]:
        """The pools to be served."""
        return self._tenants

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        """The builders of a pool, those that take no new builds included, by name."""
        found = self._builders.get(pool, {}).values()
        return tuple(sorted(found, key=lambda builder: (builder.name, builder.uid)))

    def trouble(self, address: str) -> tuple[str, str] | None:
        """The builder that had this address, and what became of it; None where all is well."""
        found = self._troubles.get(address)
        return None if found is None else (found.name, found.words)

    def subscribe(self, callback: Callable[[PoolKey], None]) -> None:
        """Calls this for each pool of which something has changed."""
        self._subscribers.append(callback)

    async def run(self) -> None:
        """Goes on for ever."""
        async with asyncio.TaskGroup() as group:
            mirrors = [self._secrets, *self._pods]
            for mirror in mirrors:
                group.create_task(mirror.run())
            for mirror in mirrors:
                await mirror.synced.wait()
            self.synced.set()

    def _secret_changed(self, secret: Object) -> None:
        pool = pool_of(secret)
        if pool is None:
            return
        server = self._secrets.objects.get((self._home, naming.gateway_certificate(pool)))
        upstream = self._secrets.objects.get((self._home, naming.gateway_upstream(pool)))
        if server is None:
            self._tenants.pop(pool, None)
        elif upstream is not None:
            try:
                self._tenants[pool] = tenant_of(server, upstream)
            except (KeyError, ValueError) as error:
                # What was readable before serves on.
                log.warning("%s: what the gateway is told cannot be read: %s", pool, _words(error))
        self._tell(pool)

    def _pod_changed(self, pod: Object) -> None:
        pool, metadata = pool_of(pod), pod["metadata"]
        # Labels are anybody's: a pod elsewhere is no builder of the pool that it names.
        if pool is None or pool.namespace != metadata["namespace"]:
            return
        uid = metadata["uid"]
        mirror = next(m for m in self._pods if m.covers(metadata["namespace"]))
        present = mirror.objects.get((metadata["namespace"], metadata["name"]))
        is_gone = present is None or present["metadata"]["uid"] != uid
        known = self._builders.setdefault(pool, {})
        builder = builder_of(pod)
        # Of a pod that has ended, the kubelet may say no more than that.
        if (seen := builder or known.get(uid)) is not None:
            # A daemon that is started again at once is not seen while it is gone.
            ending = ending_of(pod, restarts=self._restarts.get(uid))
            if ending is None and is_gone:
                ending = DELETED if uid in known and known[uid].is_leaving else VANISHED
            self._restarts[uid] = restarts_of(pod)
            self._note(seen, str(ending or ""))
        if builder is None or is_gone:
            known.pop(uid, None)
            self._restarts.pop(uid, None)
        else:
            known[uid] = builder
        self._tell(pool)

    def _note(self, builder: Target, trouble: str) -> None:
        """Remembers what became of a builder; forgets what became of others long ago."""
        now = monotonic()
        if trouble:
            self._troubles[builder.address] = _Trouble(now, builder.uid, builder.name, trouble)
        elif (old := self._troubles.get(builder.address)) and old.uid != builder.uid:
            del self._troubles[builder.address]  # the address is another one's now
        for address, old in tuple(self._troubles.items()):
            if now - old.since > REMEMBERED_SECONDS:
                del self._troubles[address]

    def _tell(self, pool: PoolKey) -> None:
        for callback in self._subscribers:
            callback(pool)


def pool_of(obj: Object) -> PoolKey | None:
    """The pool that an object belongs to; None where its labels do not say."""
    namespace = text_at(obj, "metadata", "labels", naming.LABEL_POOL_NAMESPACE)
    name = text_at(obj, "metadata", "labels", naming.LABEL_POOL)
    return PoolKey(namespace, name) if namespace and name else None


def tenant_of(server: Object, upstream: Object) -> PoolConfig:
    """A pool out of its two Secrets. Raises KeyError or ValueError, which may quote neither."""
    trust = _decoded(server, "ca.pem")
    return PoolConfig(
        brief=Brief.read(_decoded(server, BRIEF_KEY)),
        server=KeyPair(_decoded(server, "tls.crt"), _decoded(server, "tls.key")),
        upstream=KeyPair(_decoded(upstream, "tls.crt"), _decoded(upstream, "tls.key")),
        trust=trust,
        cancel=text_at(server, "metadata", "annotations", naming.ANNOTATION_CANCEL),
        acknowledgement=acknowledgement(server, upstream),
    )


def builder_of(pod: Object) -> Target | None:
    """A builder out of its pod; None where no daemon ever ran in it."""
    address = address_of(pod)
    if not address or not has_had_daemon(pod):
        return None
    trouble = str(ending_of(pod) or "")
    is_leaving = is_terminating(pod) or not has_daemon(pod)
    return Target(
        name=name_of_builder(pod),
        uid=pod["metadata"]["uid"],
        address=naming.authority_form(address, naming.PORT),
        # The end of a daemon is seen before its pod is said not to be ready.
        is_serving=is_ready(pod) and serves(pod) and not is_leaving and not trouble,
        is_leaving=is_leaving,
        trouble=trouble,
    )


def _decoded(secret: Object, key: str) -> bytes:
    value = base64.b64decode(secret["data"][key], validate=True)
    if not value:
        raise ValueError(f"{key} is empty")
    return value


def _words(error: Exception) -> str:
    """What is wrong, without what was read."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        )
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
