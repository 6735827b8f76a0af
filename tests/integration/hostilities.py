"""What people do to one operator, by ignorance or on purpose: pools, foreign objects, admission.

A table of kinds: how a pool is spoilt, and where it says so. Every hostile pool carries odd labels
besides. Never judges the operator: that is for the tests.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cluster import OPERATOR_NAMESPACE, a_pool

Object = dict[str, Any]
ADMISSION = {"apiVersion": "admissionregistration.k8s.io/v1"}
OURS = {"app.kubernetes.io/name": "buildpool", "app.kubernetes.io/managed-by": "buildpool"}
FOREIGN = {**OURS, "example.com/foreign": "true"}
"""Labels of other people's objects."""
COMPONENT = "app.kubernetes.io/component"
POOL, POOL_NAMESPACE = "buildpool.dev/pool", "buildpool.dev/pool-namespace"
REALMS = (
    "http://[::1",
    "file:///etc/passwd",
    "http://169.254.169.254/token",
    "http://joe:secret@%zz/%00",
)
NOBODYS_POD = {
    "schedulerName": "nobody",
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "x",
            "image": "registry.example/x",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
}
HANG_SECONDS = 5
"""How long the API server waits for the webhook that hangs."""


@dataclass(frozen=True)
class Scene:
    """The servers that hostile pools name: hosts with their ports."""

    black_hole: str
    """Takes connections and never says a word."""
    bad_realms: tuple[str, ...]
    """Registries that name token services which are none."""


@dataclass(frozen=True)
class Hostility:
    """One kind: how many pools, where they say what is wrong, and how the n-th is spoilt."""

    name: str
    count: int
    condition: str
    reasons: tuple[str, ...]
    words: str
    """A regular expression."""
    spec: Callable[[Scene, int], Object] = lambda *_: {}

    def pools(self, scene: Scene, namespace: str) -> Iterator[Object]:
        """The pools of this kind."""
        for number in range(self.count):
            pool = a_pool(f"{self.name}-{number}", namespace, **self.spec(scene, number))
            # Whose labels these look like must not matter.
            odd = {**OURS, COMPONENT: "gateway", POOL: "good-0", POOL_NAMESPACE: "", "x": ""}
            pool["metadata"] |= {"labels": odd, "annotations": {"buildpool.dev/rotate": "{\x7f"}}
            yield pool


def cached(host: str, **registry: Any) -> Object:
    """A spec with a cache in a registry that is asked in plain HTTP."""
    entry = {"host": host, "http": True}
    return {"cache": {"registry": {"ref": f"{host}/cache", **registry}}, "registries": [entry]}


ODD = ("xn--a", "r.example:0", "r.example:99999", "xn--99999999.example")
UNKNOWN = ("a..b", "1.2.3.4.5", "x" * 70, "no-such.invalid")
INWARD = ("127.0.0.1:1", "0x7f.1:1", "2130706433:1")
MISSPELT = {"nodeAffinty": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}
HOSTILITIES = (
    Hostility(
        "odd-host", 4, "Accepted", ("InvalidSpec",), "no valid name|there is no port",
        lambda _, n: cached(ODD[n]),
    ),
    Hostility(
        "unknown-host", 4, "CacheReady", ("RegistryNotFound",), "is not known",
        lambda _, n: cached(UNKNOWN[n]),
    ),
    Hostility(
        "inward-host", 3, "CacheReady", ("RegistryUnreachable",), "so it is not asked",
        lambda _, n: cached(INWARD[n]),
    ),
    Hostility(
        "black-hole", 8, "CacheReady", ("RegistryUnreachable",), "does not answer in time",
        lambda scene, _: cached(scene.black_hole),
    ),
    Hostility(
        "bad-realm", 4, "CacheReady", ("NoRegistry", "RegistryUnreachable"), "realm",
        lambda scene, n: cached(scene.bad_realms[n]),
    ),
    Hostility("no-configmap", 2, "Ready", ("ObjectRefused",), "nobody gets this"),
    Hostility("no-service", 2, "Ready", ("ObjectRefused",), "nobody gets this"),
    Hostility("dead-webhook", 2, "Ready", ("ObjectFailed",), "failed calling webhook"),
    Hostility("slow-webhook", 8, "Ready", ("ObjectFailed",), "failed calling webhook"),
    Hostility(
        "misspelt", 3, "Ready", ("ObjectRefused", "ObjectFailed"), "nodeAffinty",
        lambda *_: {"builders": {"affinity": MISSPELT}},
    ),
    Hostility("taken", 3, "Ready", ("NameConflict",), "is not this pool"),
    Hostility(
        "credentials", 3, "CacheReady", ("CredentialsRefused",), "not JSON",
        lambda scene, _: cached(scene.black_hole, credentials={"name": "garbled"}),
    ),
    Hostility("garbled-status", 4, "Accepted", ("Accepted",), ""),
)  # fmt: skip
"""All kinds. The last one has nothing to complain of: its status is put right."""


def beforehand(namespace: str) -> Iterator[Object]:
    """What is there before the pools: names that they need, and a garbled Secret."""
    for number in range(3):
        service = {"ports": [{"port": 80}], "selector": {"app": "theirs"}}
        yield _core("Service", f"taken-{number}", namespace, spec=service)
    data = {".dockerconfigjson": "e30gew==", "config.json": "/w=="}
    yield _core("Secret", "garbled", namespace, data=data)


def foreign(namespace: str) -> Iterator[Object]:
    """Other people's objects that look like ours, beside good pools and beside the operator."""
    odd: tuple[Object, ...] = (
        {},
        {POOL: ""},
        {POOL: "good-0", POOL_NAMESPACE: ""},
        {POOL: "Good_0.x", POOL_NAMESPACE: "No_Such.x"},
        {POOL: "good-1", POOL_NAMESPACE: namespace},
    )
    for number, labels in enumerate(odd):
        for component in ("authority", "gateway", "builder", "cache"):
            name, labels = (
                f"foreign-{component}-{number}",
                {**FOREIGN, COMPONENT: component, **labels},
            )
            for home in (namespace, OPERATOR_NAMESPACE):
                yield _core("Secret", name, home, labels, data={"tls.crt": "/w==", "tls.key": ""})
                yield _core("Pod", name, home, labels, spec=NOBODYS_POD)


def admission(namespace: str, scene: Scene) -> Iterator[Object]:
    """A policy that refuses what some pools need, and two webhooks that answer nobody."""
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"]}
    rule["resources"] = ["configmaps", "services"]
    refused = "!(object.metadata.name.startsWith('no-configmap') && object.kind == 'ConfigMap')"
    refused += " && !(object.metadata.name.startsWith('no-service') && object.kind == 'Service')"
    yield {
        **ADMISSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": refused, "message": "nobody gets this"}],
        },
    }
    yield {
        **ADMISSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": here},
        },
    }
    counts = {kind.name: kind.count for kind in HOSTILITIES}
    webhooks = []
    for name, url in (
        ("dead-webhook", "https://127.0.0.1:1/"),
        ("slow-webhook", f"https://{scene.black_hole}/"),
    ):
        pools = [f"{name}-{number}" for number in range(counts[name])]
        mine = {"matchExpressions": [{"key": POOL, "operator": "In", "values": pools}]}
        webhooks.append(
            {
                "name": f"{name}.example.com",
                "clientConfig": {"url": url},
                "rules": [rule],
                "namespaceSelector": here,
                "objectSelector": mine,
                "failurePolicy": "Fail",
                "timeoutSeconds": HANG_SECONDS,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        )
    yield {
        **ADMISSION,
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": webhooks,
    }


def a_garbled_status() -> Object:
    """A status that the CRD lets through, and that no operator has written."""
    condition = {"status": "Unknown", "reason": "?", "message": "\x00\ud7ff" * 9}
    return {
        "observedGeneration": 10**9,
        "conditions": [
            {**condition, "type": "Nonsense", "lastTransitionTime": "0001-01-01T00:00:00Z"},
            {**condition, "type": "Ready", "lastTransitionTime": "9999-12-31T23:59:59Z"},
        ],
        "builders": [
            {"name": "../..", "ready": True, "revision": "", "builds": 10**9, "overdue": [""]}
        ],
        "scaling": {"size": 10**9, "reason": "", "since": "9999-12-31T23:59:59Z", "peak": 0},
        "authority": {"notAfter": "0001-01-01T00:00:00Z", "phase": "nonsense"},
        "gateways": [{"name": "ghost", "waiting": 10**9, "since": "0001-01-01T00:00:00Z"}],
        "clients": [{"name": "", "secret": "", "notAfter": "0001-01-01T00:00:00Z"}],
    }


@contextmanager
def a_scene(address: str) -> Iterator[Scene]:
    """The servers, on an address that the operator asks, for the length of a block."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.create_server((address, 0), backlog=512))
        realms = []
        for realm in REALMS:
            server = ThreadingHTTPServer((address, 0), _naming(realm))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            realms.append(f"{address}:{server.server_port}")
        # Connections wait in the backlog for ever: nobody accepts them, nobody answers.
        yield Scene(f"{address}:{hole.getsockname()[1]}", tuple(realms))


def _naming(realm: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_HEAD = _answer  # noqa: N815 - as the library calls them

        def log_message(self, *_: object) -> None:
            """Nothing of it is of interest."""

    return Handler


def _core(
    kind: str, name: str, namespace: str, labels: Object | None = None, **rest: Any
) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}
