"""``spec``: what a user can say about a pool.

Pure data with defaults and limits; the one source of the CRD and of the reference. What CEL cannot
judge is in ``validation``.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from buildpool.core.api.builders import Builders
from buildpool.core.api.cache import (
    MAX_LOCATION_CHARACTERS,
    Cache,
    Frontends,
    Inject,
    Layout,
)
from buildpool.core.api.fields import (
    HOST,
    DataKey,
    DurationText,
    ObjectName,
    ReadableHost,
    UniqueBy,
)
from buildpool.core.api.model import Model, Rule, exactly_one

MAX_CLIENT_NAME_CHARACTERS: Final = 40
CLIENT_NAME: Final = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
"""How clients may be called, as a regular expression for the whole name."""


class Routing(StrEnum):
    """How a client's connection finds a builder."""

    DIRECT = "Direct"
    GATEWAY = "Gateway"


class AffinityKey(StrEnum):
    """What of a build says that it is like another one, so that both go to one builder."""

    SOURCE = "Source"
    """Its repository: ``vcs:source``, or a context that is a URL."""
    IMAGE = "Image"
    """The name of the image that it exports."""
    CONTEXT = "Context"
    """The key by which its client shares what it uploads: the name of the context's folder."""
    CLIENT = "Client"
    """Who builds."""


class Gateway(Model):
    """How builds wait and which builder takes them, with `Gateway` routing."""

    max_wait: Annotated[
        timedelta, DurationText(minimum=timedelta(seconds=1), maximum=timedelta(minutes=55))
    ] = timedelta(minutes=30)
    """How long a build waits for a slot before it is refused."""
    affinity: Annotated[tuple[AffinityKey, ...], Field(max_length=4)] = (
        AffinityKey.SOURCE,
        AffinityKey.IMAGE,
        AffinityKey.CONTEXT,
        AffinityKey.CLIENT,
    )
    """What keeps builds of one project on one builder, whose own cache they find: the first of
    these that a build has counts. Empty: builds go where most slots are free."""
    hostnames: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
                    max_length=253,
                ),
            ],
            ...,
        ],
        Field(max_length=16),
    ] = ()
    """More names under which clients reach the pool, such as that of a load balancer in front of
    the gateway. They stand in its certificate; no two pools can have the same."""


class Scaling(Model):
    """How many builders the pool has, by the builds that run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.min) || !has(self.max) || self.min <= self.max",
            holds=lambda scaling: scaling.min is None or scaling.min <= scaling.max,
            message="scaling.min is above scaling.max",
            remedy="raise scaling.max or lower scaling.min",
            field="max",
        ),
    )

    min: Annotated[int, Field(ge=0, le=100)] | None = None
    """Number of builders that the pool always has. Absent: 0 with `Gateway` routing, where a build
    wakes the pool, and 1 with `Direct`."""
    max: Annotated[int, Field(ge=1, le=100)] = 8
    """Number of builders that the pool never exceeds, but for those that a rollout replaces."""
    target_utilization: Annotated[int, Field(ge=1, le=100)] = 80
    """Percentage of the slots that builds may take; with more, builders are added at once."""
    idle_after: Annotated[
        timedelta, DurationText(minimum=timedelta(seconds=1), maximum=timedelta(days=7))
    ] = timedelta(minutes=10)
    """How long fewer builders must have been enough before idle ones are removed."""


class BundleKey(Model):
    """A PEM bundle of certificates in one key of a Secret or ConfigMap in the pool's namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: DataKey = "ca.crt"
    """Key within it."""


class CaBundle(Model):
    """Private authorities that may vouch for the registry, besides those that the image knows."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("secret", "configMap", remedy="keep one source of the bundle"),
    )

    secret: BundleKey | None = None
    """A key of a Secret."""
    config_map: BundleKey | None = None
    """A key of a ConfigMap."""

    @property
    def kind(self) -> str:
        """Kind of the object that has the bundle."""
        return "ConfigMap" if self.secret is None else "Secret"

    @property
    def source(self) -> BundleKey:
        """Where in it the bundle is."""
        source = self.secret or self.config_map
        assert source is not None  # noqa: S101 - one of the two must be set
        return source


class Registry(Model):
    """How builders reach one registry."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(self.http && has(self.caBundle))",
            holds=lambda registry: not registry.http or registry.ca_bundle is None,
            message="http and caBundle exclude each other",
            remedy="plain HTTP has no certificate to check; remove one of them",
        ),
    )

    host: Annotated[str, Field(pattern=f"^{HOST}$", min_length=1, max_length=253), ReadableHost()]
    """The registry as image names spell it: `host` or `host:port`, without a scheme."""
    mirrors: Annotated[
        tuple[
            Annotated[
                str, Field(pattern=f"^{HOST}(/[A-Za-z0-9._/-]*)?$", min_length=1, max_length=253)
            ],
            ...,
        ],
        Field(max_length=8),
    ] = ()
    """Mirrors asked before the registry, in this order: `host[:port][/path]`. A mirror without an
    entry of its own is reached as the registry is: by plain HTTP, or with the same CA."""
    http: bool = False
    """Whether the registry speaks plain HTTP."""
    ca_bundle: CaBundle | None = None


class Client(Model):
    """Somebody who may build, with a certificate and a Secret of their own."""

    name: Annotated[
        str,
        Field(pattern=f"^{CLIENT_NAME}$", min_length=1, max_length=MAX_CLIENT_NAME_CHARACTERS),
    ]
    """Name of the client; its Secret is `<pool>-client-<name>`."""
    weight: Annotated[int, Field(ge=1, le=100)] = 1
    """Its share of the slots when builds wait, in proportion to the weights of the others."""
    inject: Inject | None = None
    """What the gateway adds to its builds, in place of `cache.inject`. With `Import`, it may not
    export to the shared cache by itself either: right for builds of code that nobody has
    reviewed."""


class Access(Model):
    """Who may build on the pool."""

    clients: Annotated[tuple[Client, ...], Field(min_length=1, max_length=64), UniqueBy("name")] = (
        Client(name="default"),
    )
    """The clients of the pool. One that is removed gets no new certificate. The gateway refuses it
    at once; with `Direct` routing, a copy of its certificate is good until it expires."""
    certificate_duration: Annotated[
        timedelta, DurationText(minimum=timedelta(hours=1), maximum=timedelta(days=825))
    ] = timedelta(days=90)
    """How long a certificate is valid. It is renewed in good time."""
    authority_overlap: Annotated[
        timedelta, DurationText(minimum=timedelta(0), maximum=timedelta(days=90))
    ] = timedelta(hours=1)
    """How long clients get to read their Secrets again in each phase of a change of authority."""


LOCATION_RULE: Final = Rule(
    cel="self.routing != 'Gateway' || !has(self.cache.registry) "
    "|| !has(self.cache.registry.ref) || self.cache.registry.layout == 'Tags' "
    f"|| size(self.cache.registry.ref) <= {MAX_LOCATION_CHARACTERS}",
    holds=lambda spec: (
        spec.routing is not Routing.GATEWAY
        or spec.cache.registry is None
        or spec.cache.registry.layout is Layout.TAGS
        or len(spec.cache.registry.ref or "") <= MAX_LOCATION_CHARACTERS
    ),
    message="with Gateway routing, cache.registry.ref has at most "
    f"{MAX_LOCATION_CHARACTERS} characters: the repositories below it would have names "
    "that are too long",
    remedy="shorten it, or set cache.registry.layout to Tags",
    field="cache.registry.ref",
    spares_stored=True,
)
"""Builds of a pool that breaks it have no shared cache, and all else works."""


class PoolSpec(Model):
    """What the pool is to be."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.routing != 'Direct' || !has(self.scaling.min) || self.scaling.min >= 1",
            holds=lambda spec: spec.routing is not Routing.DIRECT or spec.least >= 1,
            message="with Direct routing nothing can wake a pool without builders",
            remedy="set scaling.min to 1 or more",
            field="scaling.min",
        ),
        Rule(
            cel="self.routing != 'Direct' || !has(self.gateway.hostnames) "
            "|| size(self.gateway.hostnames) == 0",
            holds=lambda spec: spec.routing is not Routing.DIRECT or not spec.gateway.hostnames,
            message="with Direct routing nobody answers to gateway.hostnames",
            remedy="set routing to Gateway or remove them",
            field="gateway.hostnames",
        ),
        LOCATION_RULE,
    )

    replicas: Annotated[int, Field(ge=0, le=100)] | None = None
    """Number of builders, set by `kubectl scale` or an autoscaler; then `scaling` rests."""
    builders: Builders = Builders()
    scaling: Scaling = Scaling()
    routing: Routing = Routing.GATEWAY
    """How a client's connection finds a builder. `Gateway`: by the gateway of this installation,
    where builds wait for a slot, wake a pool that has no builders, and find their cache. `Direct`:
    a Service in front of the builders. What is written into a pool that has none is Direct where
    the chart is installed without its gateway."""
    gateway: Gateway = Gateway()
    registries: Annotated[tuple[Registry, ...], Field(max_length=64), UniqueBy("host")] = ()
    """How builders reach registries that are not plain public ones."""
    cache: Cache = Cache()
    frontends: Frontends = Frontends()
    access: Access = Access()

    @property
    def least(self) -> int:
        """How many builders the pool always has, where `replicas` does not say it."""
        if self.scaling.min is not None:
            return self.scaling.min
        return 0 if self.routing is Routing.GATEWAY else 1

    @property
    def builder_count(self) -> int:
        """How many builders the pool shall have where no build runs or waits."""
        return self.least if self.replicas is None else self.replicas
