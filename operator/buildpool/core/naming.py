"""Every name, label, annotation and address this project uses, in one place.

Pure: functions of a pool's namespace and name. Change nothing here lightly: these strings are how a
restarted operator finds again what it made. ``docs/reference/labels.md`` lists them for users; a
test compares.
"""

from __future__ import annotations

from typing import Final, NamedTuple

GROUP: Final = "buildpool.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "BuildKitPool"
PLURAL: Final = "buildkitpools"
SINGULAR: Final = "buildkitpool"
SHORT_NAME: Final = "bkp"

FIELD_MANAGER: Final = "buildpool"
"""Our name in ``metadata.managedFields``: server-side apply owns exactly what we applied."""
FINALIZER: Final = f"{GROUP}/drain"
"""Holds a deleted pool until its builders are drained and all that it consists of is removed.

Put on and taken off by us, never by Kopf, which drops its own as soon as it starts."""

LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_POOL_NAMESPACE: Final = f"{GROUP}/pool-namespace"
LABEL_BUILDER: Final = f"{GROUP}/builder"
LABEL_SERVING: Final = f"{GROUP}/serving"
"""On builders' pods: ``false`` takes the pod out of its pool's Service."""
LABEL_BUSY: Final = f"{GROUP}/busy"
"""On builders' pods: ``true`` while builds run, which evictions then respect."""
ANNOTATION_RETIRED: Final = f"{GROUP}/retired"
"""On a builder's Deployment: since when it takes no new builds."""
ANNOTATION_REVISION: Final = f"{GROUP}/revision"
ANNOTATION_APPLIED: Final = f"{GROUP}/applied"
ANNOTATION_CLIENTS: Final = f"{GROUP}/clients"
ANNOTATION_POOL_UID: Final = f"{GROUP}/pool-uid"
ANNOTATION_ACKNOWLEDGES: Final = f"{GROUP}/acknowledges"
"""On pods of the gateway that say, in the status of pools, what they serve them with."""
ANNOTATION_ROTATE: Final = f"{GROUP}/rotate"
"""On a pool, by its users: ``authority`` or ``certificates`` are to be replaced now."""
ANNOTATION_ROTATED: Final = f"{GROUP}/rotated"
ANNOTATION_WARM: Final = f"{GROUP}/warm"
"""On a pool, by its users: how many builders it shall have at least, and until when."""
ANNOTATION_CANCEL: Final = f"{GROUP}/cancel"
"""On a pool, by its users, and for the gateway on its Secret: builds that are to end now."""
REQUESTS: Final = (ANNOTATION_ROTATE, ANNOTATION_WARM, ANNOTATION_CANCEL)
"""By which users ask for something beside the spec."""
ANNOTATION_PHASE_SINCE: Final = f"{GROUP}/phase-since"
"""On an authority that is being replaced: since when all Secrets follow the present phase."""

COMPONENT_AUTHORITY: Final = "authority"
COMPONENT_BUILDER: Final = "builder"
COMPONENT_CACHE: Final = "cache"
COMPONENT_CLIENT: Final = "client"
COMPONENT_ENDPOINT: Final = "endpoint"
COMPONENT_GATEWAY: Final = "gateway"
COMPONENT_OPERATOR: Final = "operator"
USUAL_DOMAIN: Final = "cluster.local"
"""The domain of a cluster of which nobody says another (``domains``)."""
PORT: Final = 1234
"""The TCP port of buildkitd by convention of BuildKit's own examples."""

CACHE_PORT: Final = 5000
"""The TCP port of the managed cache registry, by convention of registries."""
KEEPER_PORT: Final = 5001
"""The TCP port of its keeper, in the same pod."""
GUARD_PORT: Final = 1235
"""The TCP port of the guard of the cache, in each builder's pod: build steps share its ports."""

MAX_POOL_NAME_CHARACTERS: Final = 40
"""Leaves room for ``-builder-NNN`` and the suffix of a pod within a label's 63 characters."""


class PoolKey(NamedTuple):
    """What identifies a pool: its namespace and its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Installation(NamedTuple):
    """The operator that tends a pool: where it is installed, and what it runs."""

    namespace: str
    """Its own namespace: authorities and what the gateway is told lie there."""
    image: str
    """Its own image, of which some containers of pools are."""
    gateway: str = ""
    """Name of the gateway's Service in that namespace; empty where there is none."""
    domain: str = USUAL_DOMAIN
    """The cluster's: what the full names of its Services end with."""

    @property
    def gateway_host(self) -> str:
        """The name under which the cluster knows the gateway's Service, where there is one."""
        return before_domain(self.gateway, self.namespace) + self.domain


def pool_labels(pool: PoolKey) -> dict[str, str]:
    """Labels of every object of a pool, wherever it lies."""
    return {
        "app.kubernetes.io/name": "buildpool",
        "app.kubernetes.io/instance": pool.name,
        "app.kubernetes.io/managed-by": "buildpool",
        LABEL_POOL: pool.name,
        LABEL_POOL_NAMESPACE: pool.namespace,
    }


def detached_labels(pool: PoolKey) -> dict[str, str]:
    """Labels of what has no owner.

    No ``instance``: GitOps tools track what they deploy by it, and a tool that has deployed the
    pool would take these for its own and remove them.
    """
    labels = pool_labels(pool)
    del labels["app.kubernetes.io/instance"]
    return labels


KEPT: Final = {
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    "argocd.argoproj.io/sync-options": "Prune=false",
}
"""Annotations of what has no owner, by which Argo CD leaves it alone whatever it tracks by."""


def builder_selector(pool: PoolKey) -> dict[str, str]:
    """Labels that select all builder pods of a pool within its namespace."""
    return {"app.kubernetes.io/component": COMPONENT_BUILDER, LABEL_POOL: pool.name}


def cache_selector(pool: PoolKey) -> dict[str, str]:
    """Labels that select the pod of a pool's managed cache registry within its namespace."""
    return {"app.kubernetes.io/component": COMPONENT_CACHE, LABEL_POOL: pool.name}


def installation_selector(component: str) -> dict[str, str]:
    """Labels that select the pods of the operator or the gateway, as the chart labels them."""
    return {"app.kubernetes.io/name": "buildpool", "app.kubernetes.io/component": component}


def home_selector(component: str) -> dict[str, str]:
    """Labels that select what pools have in the operator's own namespace, and nobody else's."""
    return {**installation_selector(component), "app.kubernetes.io/managed-by": "buildpool"}


MADE: Final = {"app.kubernetes.io/name": "buildpool", "app.kubernetes.io/managed-by": "buildpool"}
"""Labels that select all that pools have made, and nothing that was installed."""


def pool_of(labels: object) -> PoolKey | None:
    """Whose an object is by its labels; None where they do not say, for anybody may change them."""
    if not isinstance(labels, dict):
        return None
    namespace, name = labels.get(LABEL_POOL_NAMESPACE), labels.get(LABEL_POOL)
    if not (isinstance(namespace, str) and isinstance(name, str) and namespace and name):
        return None
    return PoolKey(namespace, name)


def format_selector(labels: dict[str, str]) -> str:
    """A label selector as the API and ``kubectl -l`` write it."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def service(pool: PoolKey) -> str:
    """The Service clients connect to."""
    return pool.name


def builder(pool: PoolKey, index: int) -> str:
    """One builder: the name of its Deployment."""
    return f"{pool.name}-builder-{index}"


def builder_index(pool: PoolKey, name: str) -> int | None:
    """The number in the name of a builder; None where it is none of this pool."""
    number = name.removeprefix(f"{pool.name}-builder-")
    return int(number) if number.isdecimal() and builder(pool, int(number)) == name else None


def disruption_budget(pool: PoolKey) -> str:
    """The PodDisruptionBudget of the builders that are busy."""
    return f"{pool.name}-busy"


def builder_policy(pool: PoolKey) -> str:
    """The NetworkPolicy of builders behind the gateway."""
    return f"{pool.name}-builder"


def builder_certificate(pool: PoolKey) -> str:
    """The Secret with the builders' server certificate."""
    return f"{pool.name}-builder"


def builder_config(pool: PoolKey) -> str:
    """The ConfigMap with ``buildkitd.toml``."""
    return f"{pool.name}-builder"


def builder_volume(pool: PoolKey, index: int) -> str:
    """The PersistentVolumeClaim of one builder."""
    return builder(pool, index)


def client_certificate(pool: PoolKey, client: str) -> str:
    """The Secret with one client's certificate."""
    return f"{pool.name}-client-{client}"


def cache(pool: PoolKey) -> str:
    """The managed cache registry: its Deployment, Service, volume, configuration, certificate."""
    return f"{pool.name}-cache"


def cache_client(pool: PoolKey) -> str:
    """The Secret with the certificate by which the cache registry knows the pool's builders."""
    return f"{pool.name}-cache-client"


def cache_recipes(pool: PoolKey) -> str:
    """The ConfigMap that tells clients how to use the shared cache."""
    return f"{pool.name}-cache-recipes"


def authority(pool: PoolKey) -> str:
    """The Secret, in the operator's own namespace, with the pool's authority.

    Neither part can hold a dot (both are DNS labels), so two pools never share a name.
    """
    return f"authority.{pool.namespace}.{pool.name}"


def client_identity(pool: PoolKey, client: str) -> str:
    """The URI SAN that says who a client is."""
    return f"buildpool://{pool.namespace}/{pool.name}/client/{client}"


def builder_identity(pool: PoolKey) -> str:
    """The URI SAN by which the cache registry knows a pool's builders."""
    return f"buildpool://{pool.namespace}/{pool.name}/builder"


def operator_identity(pool: PoolKey) -> str:
    """The URI SAN by which the builders of a pool know the operator."""
    return f"buildpool://{pool.namespace}/{pool.name}/operator"


def gateway_certificate(pool: PoolKey) -> str:
    """The Secret, in the operator's own namespace, with what the gateway shows a pool's clients.

    With it stands what the gateway has to know of the pool.
    """
    return f"gateway.{pool.namespace}.{pool.name}"


def gateway_upstream(pool: PoolKey) -> str:
    """The Secret, likewise, with what the gateway shows a pool's builders."""
    return f"upstream.{pool.namespace}.{pool.name}"


def gateway_identity(pool: PoolKey) -> str:
    """The URI SAN by which the builders of a pool know the gateway."""
    return f"buildpool://{pool.namespace}/{pool.name}/gateway"


def gateway_names(service_name: str, namespace: str, domain: str) -> tuple[str, ...]:
    """DNS names by which the gateway knows a pool: those that no other pool can have."""
    return server_names(service_name, namespace, domain)[1:-1]


def server_names(service_name: str, namespace: str, domain: str) -> tuple[str, ...]:
    """DNS names under which a Service is reached, and localhost for port-forward."""
    return (
        service_name,
        f"{service_name}.{namespace}",
        f"{service_name}.{namespace}.svc",
        before_domain(service_name, namespace) + domain,
        "localhost",
    )


def before_domain(service_name: str, namespace: str) -> str:
    """What the full name of a Service begins with, before the domain of the cluster."""
    return f"{service_name}.{namespace}.svc."


def is_name_of(pool: PoolKey, name: str) -> bool:
    """Whether a DNS name says which pool it means, and means this one, whatever the domain is."""
    full = before_domain(service(pool), pool.namespace)
    return name in (f"{service(pool)}.{pool.namespace}", full[:-1]) or name.startswith(full)


PREFLIGHT: Final = "buildpool-preflight"
"""The repository that is tried where a cache shall be kept, and the tag that is looked for."""


def cache_host(pool: PoolKey, port: int = CACHE_PORT) -> str:
    """The managed cache registry as image references begin; or another port of its pod."""
    return f"{cache(pool)}.{pool.namespace}.svc:{port}"


def authority_form(address: str, port: int) -> str:
    """An IP address and a port as URLs have them (RFC 3986): that of version 6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoint(pool: PoolKey) -> str:
    """The address of a pool from inside the cluster, as buildctl and buildx take it."""
    return f"tcp://{service(pool)}.{pool.namespace}.svc:{PORT}"
