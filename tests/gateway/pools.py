"""A pool as the operator configures it for the gateway, with all that its authority issues."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from buildpool.core import naming
from buildpool.core.api import AffinityKey
from buildpool.core.api.brief import Brief, CacheBrief, ClientBrief
from buildpool.core.naming import PoolKey
from buildpool.core.pki import Bundle, CertificateRequest, KeyPair, Use, issue, issue_authority
from buildpool.gateway.pools.config import PoolConfig
from buildpool.process import utc_now

DAY = timedelta(days=1)


@dataclass
class PoolLab:
    """One pool: its authority, and what it issues."""

    name: str = "ci"
    namespace: str = "builds"
    slots: int = 1
    max_wait: timedelta = timedelta(minutes=5)
    cache: CacheBrief | None = None
    clients: tuple[ClientBrief, ...] = ()
    hostnames: tuple[str, ...] = ()
    authority: KeyPair = field(
        default_factory=lambda: issue_authority("an authority", now=utc_now(), lifetime=10 * DAY)
    )

    @property
    def key(self) -> PoolKey:
        return PoolKey(self.namespace, self.name)

    def bundle(
        self,
        use: Use,
        *,
        names: tuple[str, ...] = (),
        uri: str = "",
        lifetime: timedelta = DAY,
        ago: timedelta = timedelta(0),
    ) -> Bundle:
        request = CertificateRequest(
            use=use,
            common_name="somebody",
            lifetime=lifetime,
            dns_names=names,
            uris=(uri,) if uri else (),
        )
        return issue(self.authority, request, now=utc_now() - ago)

    def client(self, name: str = "ann", **how: Any) -> Bundle:
        """What a client shows."""
        return self.bundle(Use.CLIENT, uri=naming.client_identity(self.key, name), **how)

    def config(self, **changes: Any) -> PoolConfig:
        """What the operator writes for the gateway."""
        names = naming.gateway_names(self.name, self.namespace, naming.USUAL_DOMAIN)
        brief = Brief(
            **{
                "namespace": self.namespace,
                "name": self.name,
                "uid": "uid",
                "server_names": (*names, *self.hostnames),
                "upstream_name": names[-2],
                "slots": self.slots,
                "max_wait": self.max_wait,
                "affinity": tuple(AffinityKey),
                "clients": self.clients
                or tuple(
                    ClientBrief(identity=naming.client_identity(self.key, name), name=name)
                    for name in ("ann", "bob")
                ),
                "cache": self.cache,
                **changes,
            }
        )
        return PoolConfig(
            brief,
            server=self.bundle(Use.SERVER, names=brief.server_names).pair,
            upstream=self.bundle(Use.CLIENT, uri=naming.gateway_identity(self.key)).pair,
            trust=self.authority.certificate,
        )
