"""Registries inside the cluster, as companies have them: with a private CA, or with plain HTTP."""

from __future__ import annotations

import base64
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from buildpool.core.pki import Bundle, CertificateRequest, KeyPair, Use, issue, issue_authority
from cluster import PROJECT, Api, at_most, eventually
from e2e.clients import is_open

IMAGE = "registry:3.1.2"
PORT = 5000
CONFIG = """\
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http:
  addr: ":5000"
"""
TLS = "  tls: {certificate: /tls/tls.crt, key: /tls/tls.key}\n"
PASSWORDS = "auth: {htpasswd: {realm: tests, path: /tls/htpasswd}}\n"
WRITABLE = "delete: {enabled: true}"
READ_ONLY = f"{WRITABLE}, maintenance: {{readonly: {{enabled: true}}}}"


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry; its name is how image references begin."""

    name: str
    namespace: str

    @property
    def host(self) -> str:
        """The registry as image references and ``spec.registries`` spell it."""
        return f"{self.name}.{self.namespace}.svc:{PORT}"


@functools.cache
def bring(image: str) -> None:
    """Brings an image to the node of a devcluster; other nodes pull it."""
    if "DEVCLUSTER_NAME" in os.environ:
        load = [sys.executable, "-m", "devcluster", "load", image]
        subprocess.run(load, cwd=PROJECT, capture_output=True, timeout=120, check=True)


def new_authority(name: str) -> KeyPair:
    """An authority that nobody trusts until told to."""
    return issue_authority(name, now=datetime.now(UTC), lifetime=timedelta(days=30))


def trust(api: Api, name: str, namespace: str, authority: KeyPair) -> None:
    """A ConfigMap with the authority's certificate, for ``caBundle``; changed where it exists."""
    metadata = {"name": name, "namespace": namespace}
    data = {"ca.crt": authority.certificate.decode()}
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def serve(
    api: Api,
    registry: Registry,
    authority: KeyPair | None,
    *,
    htpasswd: str = "",
    is_read_only: bool = False,
) -> None:
    """Starts a registry, or gives a running one a certificate of another authority.

    ``htpasswd`` has a line for each user, with a bcrypt hash; empty: it lets everybody in.
    """
    bring("registry")
    name, namespace = registry.name, registry.namespace
    metadata = {"name": name, "namespace": namespace}
    config = CONFIG + (TLS if authority else "") + (PASSWORDS if htpasswd else "")
    files = {"config.yml": config.replace(WRITABLE, READ_ONLY) if is_read_only else config}
    if htpasswd:
        files["htpasswd"] = htpasswd
    if authority:
        bundle = _server_certificate(registry, authority)
        files |= {"tls.crt": bundle.pair.certificate.decode(), "tls.key": bundle.pair.key.decode()}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in files.items()}
    labels = {"app": name}
    container = {
        "name": "registry",
        "image": IMAGE,
        "args": ["/tls/config.yml"],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    stamp = {"annotations": {"example.com/content": str(hash(tuple(files.values())))}}
    api.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": dict(metadata), "data": data},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": dict(metadata),
            "spec": {"selector": dict(labels), "ports": [{"port": PORT}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": dict(metadata),
            "spec": {
                "selector": {"matchLabels": dict(labels)},
                "strategy": {"type": "Recreate"},
                "template": {
                    "metadata": {"labels": dict(labels), **stamp},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [container],
                        "volumes": [{"name": "tls", "secret": {"secretName": name}}],
                    },
                },
            },
        },
    )
    api.must("rollout", "status", f"deployment/{name}", "-n", namespace, at_most(60))
    service = f"{name}.{namespace}.svc"
    eventually(lambda: is_open(service, PORT), within=60, what=f"{service} is open")


def _server_certificate(registry: Registry, authority: KeyPair) -> Bundle:
    request = CertificateRequest(
        use=Use.SERVER,
        common_name=registry.name,
        dns_names=(registry.host.partition(":")[0],),
        lifetime=timedelta(days=7),
    )
    return issue(authority, request, now=datetime.now(UTC))
