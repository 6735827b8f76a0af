"""The ConfigMap with ``buildkitd.toml``: what the spec says, in the daemon's own words.

``buildkitd`` ignores a key it does not know and reads the file once, at start. So this file is
generated whole, the user's own additions were checked against the known keys
(``api.daemon_config``), and a change of it makes a new revision of the builders.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final

import tomli_w

from buildpool.core import naming
from buildpool.core.api import Pool, Registry, Security, daemon_config
from buildpool.core.api.quantity import parse_bytes
from buildpool.core.objects.refs import Object
from buildpool.core.resources.common import pool_metadata, sealed
from buildpool.core.resources.guard import guarded_registries

FILE: Final = "buildkitd.toml"
CERTIFICATES: Final = "/etc/buildpool/certificates"
CONFIG: Final = "/etc/buildpool/config"
REGISTRIES: Final = "/etc/buildpool/registries"

SOCKET: Final[Mapping[Security, str]] = {
    Security.ROOTLESS: "unix:///run/user/1000/buildkit/buildkitd.sock",
    Security.USER_NAMESPACE: "unix:///run/buildkit/buildkitd.sock",
}
"""Where the images' own ``buildctl`` looks for the daemon."""

MAX_USED_SHARE: Final = 0.75
"""Share of the storage at which garbage collection starts. It runs at most once a minute after a
build, so the last quarter is what builds may write in between: an ephemeral volume over its size
limit gets the pod evicted, with its builds."""
RESERVED_SHARE: Final = 0.1
"""Share of the storage that garbage collection never goes below."""


def builder_config(pool: Pool) -> Object:
    """The ConfigMap every builder of the pool reads its configuration from."""
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": pool_metadata(
                pool, naming.builder_config(pool.key), component=naming.COMPONENT_BUILDER
            ),
            "data": {FILE: daemon_toml(pool)},
        }
    )


def daemon_toml(pool: Pool) -> str:
    """``buildkitd.toml`` of the pool's builders: ours, above the user's own ``config``."""
    extra = daemon_config.parse(pool.spec.builders.config)
    return tomli_w.dumps(_merged(extra, _managed(pool)))


def registry_directory(host: str) -> str:
    """Where the CA of one registry is mounted; a colon cannot stand in a path BuildKit accepts."""
    return posixpath.join(REGISTRIES, host.replace(":", "_"))


def _managed(pool: Pool) -> dict[str, Any]:
    builders = pool.spec.builders
    # Bytes, never percentages: BuildKit takes those of the whole disk of the node.
    capacity = parse_bytes(builders.storage.size)
    oci: dict[str, Any] = {
        "enabled": True,
        "gc": True,
        "maxUsedSpace": int(capacity * MAX_USED_SHARE),
        "reservedSpace": int(capacity * RESERVED_SHARE),
    }
    if builders.security is Security.ROOTLESS:
        # A rootless pod may not mount /proc for a nested PID namespace (docs/rootless.md of
        # BuildKit).
        oci["noProcessSandbox"] = True
    if builders.max_parallelism is not None:
        oci["max-parallelism"] = builders.max_parallelism
    config: dict[str, Any] = {
        "grpc": {
            "address": [SOCKET[builders.security], f"tcp://:{naming.PORT}"],
            # All three or none: a CA without a certificate turns TLS off without an error.
            "tls": {
                "ca": f"{CERTIFICATES}/ca.pem",
                "cert": f"{CERTIFICATES}/cert.pem",
                "key": f"{CERTIFICATES}/key.pem",
            },
        },
        "worker": {"oci": oci, "containerd": {"enabled": False}},
        "history": {
            "maxAge": int(builders.history.max_age.total_seconds()),
            "maxEntries": builders.history.max_entries,
        },
    }
    registries = _registries(pool.spec.registries) | guarded_registries(pool)
    if registries:
        config["registry"] = registries
    allowed = pool.spec.frontends.allowed
    if allowed is not None:
        # To BuildKit, an empty list is no list.
        gateway = {"allowedRepositories": list(allowed)} if allowed else {"enabled": False}
        config["frontend"] = {"gateway.v0": gateway}
    return config


def _registries(registries: Sequence[Registry]) -> dict[str, Any]:
    blocks = {registry.host: _block(registry) for registry in registries}
    for registry in registries:
        # BuildKit reaches a mirror as the mirror's own block says, never as the registry's does.
        for mirror in registry.mirrors:
            host, how = mirror.partition("/")[0], _how_to_reach(registry)
            if how:
                blocks.setdefault(host, how)
    return blocks


def _block(registry: Registry) -> dict[str, Any]:
    mirrors = {"mirrors": list(registry.mirrors)} if registry.mirrors else {}
    return mirrors | _how_to_reach(registry)


def _how_to_reach(registry: Registry) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if registry.http:
        block["http"] = True
    if registry.ca_bundle is not None:
        key = registry.ca_bundle.source.key
        block["ca"] = [f"{registry_directory(registry.host)}/{key}"]
    return block


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Both, table by table; where they disagree, ``high`` wins."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value)
        merged[key] = value
    return merged
