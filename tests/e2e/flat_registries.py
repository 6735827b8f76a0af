"""Registries that have one repository and none below it, as those of some companies and clouds.

An Envoy before a registry: whatever is not about that repository, it denies, as such a registry.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cluster import OPERATOR_NAMESPACE, Api, at_most, eventually
from e2e.clients import is_open
from e2e.registries import PORT, Registry

DENIED = {"errors": [{"code": "DENIED", "message": "there are no repositories below this one"}]}


def serve_flat(api: Api, registry: Registry, *, behind: Registry, repository: str) -> None:
    """Starts one that keeps what it has in another registry, which serves plain HTTP."""
    name, namespace = registry.name, registry.namespace
    metadata = {"name": name, "namespace": namespace}
    config = json.dumps(_bootstrap(behind, repository))
    gateway = api.get("deployment", "buildpool-gateway", OPERATOR_NAMESPACE)
    assert gateway is not None
    sidecars = gateway["spec"]["template"]["spec"]["initContainers"]
    image = next(each["image"] for each in sidecars if each["name"] == "envoy")
    container = {
        "name": "envoy",
        "image": image,
        "command": ["envoy"],
        "args": ["--config-path", "/config/envoy.json", "--disable-hot-restart"],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "config", "secret": {"secretName": name}}],
    }
    labels = {"app": name}
    api.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "data": {"envoy.json": base64.b64encode(config.encode()).decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )
    api.must("rollout", "status", f"deployment/{name}", "-n", namespace, at_most(60))
    host = registry.host.partition(":")[0]
    eventually(lambda: is_open(host, PORT), within=60, what=f"{host} is open")


def _bootstrap(behind: Registry, repository: str) -> dict[str, Any]:
    to_registry = {"cluster": "registry", "timeout": "0s"}
    about = f"/v2/{repository}/(manifests|blobs|tags)/.*"
    routes = [
        {"match": {"path": "/v2/"}, "route": to_registry},
        {"match": {"safe_regex": {"regex": about}}, "route": to_registry},
        {
            "match": {"prefix": "/"},
            "direct_response": {"status": 403, "body": {"inline_string": json.dumps(DENIED)}},
        },
    ]
    v3 = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{v3}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "flat",
        "route_config": {"virtual_hosts": [{"name": "flat", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{v3}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {
        "static_resources": {
            "listeners": [
                {"name": "flat", "address": _socket("0.0.0.0", PORT), "filter_chains": [chain]}
            ],
            "clusters": [
                {
                    "name": "registry",
                    "type": "STRICT_DNS",
                    "load_assignment": {
                        "cluster_name": "registry",
                        "endpoints": [{"lb_endpoints": [_endpoint(behind)]}],
                    },
                }
            ],
        }
    }


def _endpoint(registry: Registry) -> dict[str, Any]:
    return {"endpoint": {"address": _socket(registry.host.partition(":")[0], PORT)}}


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
