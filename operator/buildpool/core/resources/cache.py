"""The managed cache registry: one pod, a ``distribution`` registry and its keeper on one volume.

The keeper (``sidecars.keeper``) removes what nobody uses and what is damaged; the registry only
serves. It asks for a certificate of the pool, so that nobody else reads or poisons what builds are
made of.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from buildpool.core import naming
from buildpool.core.api import ManagedRegistry, Pool
from buildpool.core.api.duration import format_duration
from buildpool.core.api.quantity import parse_bytes
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Bundle
from buildpool.core.resources.common import (
    RESTRICTED_USER,
    compute,
    digest,
    fingerprint,
    pool_metadata,
    pulling,
    restricted,
    sealed,
)
from buildpool.core.resources.secret import certificate_volume
from buildpool.core.resources.volume import claim_spec

FILE: Final = "config.yml"
CERTIFICATES: Final = "/etc/buildpool/certificates"
CONFIG: Final = "/etc/buildpool/config"
STORAGE: Final = "/var/lib/registry"
GRACE_SECONDS: Final = 90
"""What a registry that must go has for the requests under way; builds ask its successor again."""


def managed_registry(pool: Pool) -> ManagedRegistry | None:
    """The managed registry a pool shall have."""
    registry = pool.spec.cache.registry
    return registry.managed if registry else None


def cache_config(pool: Pool) -> Object:
    """The ConfigMap with the registry's configuration."""
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(pool),
            "data": {FILE: _registry_yaml()},
        }
    )


def cache_service(pool: Pool) -> Object:
    """The Service in front of the registry and its keeper."""
    ports = {"registry": naming.CACHE_PORT, "keeper": naming.KEEPER_PORT}
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(pool),
            "spec": {
                "type": "ClusterIP",
                "selector": naming.cache_selector(pool.key),
                "ports": [
                    {"name": name, "protocol": "TCP", "port": port, "targetPort": name}
                    for name, port in ports.items()
                ],
            },
        }
    )


def cache_volume(pool: Pool, managed: ManagedRegistry) -> Object:
    """The claim of the registry; it outlives the registry's rests."""
    storage = managed.storage
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _metadata(pool),
            "spec": claim_spec(storage.size, storage.storage_class_name),
        }
    )


def cache_deployment(
    pool: Pool,
    managed: ManagedRegistry,
    *,
    image: str,
    certificate: Bundle,
    is_awake: bool,
) -> Object:
    """The Deployment of the registry.

    ``image`` is the operator's own, for the keeper. ``certificate`` is the server's: the registry
    reads it once.
    """
    pod = _pod(pool, managed, image)
    revision = cache_revision(pool, managed, image=image, certificate=certificate)
    return sealed(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(pool),
            "spec": {
                "replicas": int(is_awake),
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": naming.cache_selector(pool.key)},
                # Two registries cannot share a volume. Builds that need the next one wait for it.
                "strategy": {"type": "Recreate"},
                "template": {
                    "metadata": {
                        "labels": {
                            **naming.pool_labels(pool.key),
                            **naming.cache_selector(pool.key),
                        },
                        "annotations": {naming.ANNOTATION_REVISION: revision},
                    },
                    "spec": pod,
                },
            },
        }
    )


def cache_revision(pool: Pool, managed: ManagedRegistry, *, image: str, certificate: Bundle) -> str:
    """What the registry runs, as a fingerprint."""
    read_once = digest(certificate.trust + certificate.pair.certificate)
    return fingerprint([_pod(pool, managed, image), _registry_yaml(), read_once])


def _metadata(pool: Pool) -> Object:
    return pool_metadata(pool, naming.cache(pool.key), component=naming.COMPONENT_CACHE)


def _registry_yaml() -> str:
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": STORAGE},
            # No blobdescriptor cache: it would vouch for blobs that the keeper has removed.
            "delete": {"enabled": True},
            # The keeper removes uploads that broke off, and sooner.
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        # Caches exported with image-manifest=false are indexes of layers, which it would refuse.
        "validation": {"manifests": {"indexes": {"platforms": "none"}}},
        "http": {
            "addr": f":{naming.CACHE_PORT}",
            "draintimeout": "60s",
            "tls": {
                "certificate": f"{CERTIFICATES}/cert.pem",
                "key": f"{CERTIFICATES}/key.pem",
                "clientcas": [f"{CERTIFICATES}/ca.pem"],
                "clientauth": "require-and-verify-client-cert",
                "minimumtls": "tls1.2",
            },
        },
    }
    return yaml.safe_dump(config, sort_keys=False)


def _pod(pool: Pool, managed: ManagedRegistry, image: str) -> Object:
    builders, name = pool.spec.builders, naming.cache(pool.key)
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": {
            "kubernetes.io/arch": builders.architecture.value,
            **builders.node_selector,
        },
        # No images are built from this volume, so its group bits harm nobody (docs/adr/0012).
        "securityContext": {
            "fsGroup": RESTRICTED_USER,
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [
            {**container, **pulling(pool)}
            for container in (_registry(managed), _keeper(pool, managed, image))
        ],
        "volumes": [
            {"name": "storage", "persistentVolumeClaim": {"claimName": name}},
            certificate_volume("certificates", name),
            {"name": "config", "configMap": {"name": name}},
        ],
    }
    optional: Object = {
        "imagePullSecrets": [secret.to_dict() for secret in builders.image_pull_secrets],
        "priorityClassName": builders.priority_class_name,
        "tolerations": [toleration.to_dict() for toleration in builders.tolerations],
    }
    return pod | {field: value for field, value in optional.items() if value}


def _registry(managed: ManagedRegistry) -> Object:
    container: Object = {
        "name": "registry",
        "image": managed.image,
        "args": [f"{CONFIG}/{FILE}"],
        # Without it, the registry looks for a collector of traces.
        "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
        "ports": [
            {"name": "registry", "containerPort": naming.CACHE_PORT, "protocol": "TCP"},
        ],
        "securityContext": restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "storage", "mountPath": STORAGE},
            {"name": "certificates", "mountPath": CERTIFICATES, "readOnly": True},
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
        ],
    }
    return container | compute(managed.resources)


def _keeper(pool: Pool, managed: ManagedRegistry, image: str) -> Object:
    return {
        "name": "keeper",
        "image": image,
        "args": [
            "cache-keeper",
            f"--storage={STORAGE}",
            f"--capacity={parse_bytes(managed.storage.size)}",
            f"--retention={format_duration(managed.retention)}",
            f"--scrub={format_duration(managed.scrub)}",
            # A build may come back for what it has imported for as long as it runs.
            f"--grace={format_duration(pool.spec.builders.max_build_duration)}",
            f"--certificates={CERTIFICATES}",
            f"--port={naming.KEEPER_PORT}",
            f"--registry-port={naming.CACHE_PORT}",
        ],
        "ports": [
            {"name": "keeper", "containerPort": naming.KEEPER_PORT, "protocol": "TCP"},
        ],
        # It listens once the registry does. The kubelet has no certificate, so it only knocks.
        "readinessProbe": {
            "tcpSocket": {"port": "keeper"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 5,
        },
        **compute(managed.keeper_resources),
        "securityContext": restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "storage", "mountPath": STORAGE},
            {"name": "certificates", "mountPath": CERTIFICATES, "readOnly": True},
        ],
    }
