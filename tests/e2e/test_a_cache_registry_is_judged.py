"""Where a cache in somebody else's registry cannot be used, the pool says why and what helps.

And what helps, helps, without a restart of anything. The pools have no builders: the operator asks
the registry all the same. All cases are wrong at the same time, and later put right together.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pytest

from buildpool.core.api import Reason
from cluster import OPERATOR_NAMESPACE, Api, a_pool, at_most, eventually
from e2e.clients import BASE
from e2e.operators import OPERATORS
from e2e.pools import change
from e2e.registries import PORT, Registry, bring, new_authority, serve, trust

NAMESPACE: Final = "NAMESPACE"
"""Stands in the tables for the namespace of the tests."""
USER: Final = "builder:$2b$04$abcdefghijklmnopqrstuu2Vo3TWutZSHUfluiaHt5gekKPzGepHC\n"
"""Whose password is ``correct``."""


def host(name: str) -> str:
    """How image references begin that lead to a Service of the tests."""
    return Registry(name, NAMESPACE).host


def service(name: str, *, leads_to: str, port: int = PORT) -> dict[str, Any]:
    """A Service in front of the registry of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": leads_to}, "ports": [{"port": PORT, "targetPort": port}]},
    }


def login(name: str, registry: str, password: str) -> dict[str, Any]:
    """A Secret as ``kubectl create secret docker-registry`` makes it."""
    auths = {host(registry): {"username": "builder", "password": password}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": auths})},
    }


def cache(registry: str, *entries: dict[str, Any], credentials: str = "") -> dict[str, Any]:
    """The fields of a pool's spec that say where its cache is."""
    found = {"ref": f"{host(registry)}/team/caches"}
    named = {"credentials": {"name": credentials}} if credentials else {}
    return {"cache": {"registry": found | named}, "registries": list(entries)}


def plain(registry: str) -> dict[str, Any]:
    return {"host": host(registry), "http": True}


def trusted(registry: str, bundle: str = "private-ca") -> dict[str, Any]:
    return {"host": host(registry), "caBundle": {"configMap": {"name": bundle}}}


@dataclass(frozen=True, slots=True)
class Case:
    """A cache that cannot be used, and what it takes to make it usable."""

    wrong: dict[str, Any]
    """Fields of the spec."""
    reason: Reason
    says: tuple[str, ...]
    """What the message has to hold: the registry, the cause, the remedy."""
    right: dict[str, Any] | None = None
    """The fields that help; None: they stay, since something else was wrong."""
    later: dict[str, Any] | None = None
    """What helps instead, once it is applied."""


CASES: Final = {
    "no-such-host": Case(
        cache("nowhere", plain("nowhere")),
        Reason.REGISTRY_NOT_FOUND,
        (f"nowhere.{NAMESPACE}.svc", "is not known", "correct cache.registry.ref"),
        later=service("nowhere", leads_to="plain"),
    ),
    "nobody-listens": Case(
        cache("deserted", plain("deserted")),
        Reason.REGISTRY_UNREACHABLE,
        (host("deserted"), "connection refused", "see whether it runs, and listens on that port"),
        later=service("deserted", leads_to="plain"),
    ),
    "an-unknown-authority": Case(
        cache("private"),
        Reason.REGISTRY_NOT_TRUSTED,
        (
            f"certificate of registry {host('private')} is not accepted",
            "unable to get local issuer certificate",
            f"give its authority in spec.registries, an entry with host {host('private')}",
        ),
        cache("private", trusted("private")),
    ),
    "another-authority": Case(
        cache("private", trusted("private", "stranger-ca")),
        Reason.REGISTRY_NOT_TRUSTED,
        (
            f"certificate of registry {host('private')} is not accepted",
            "correct caBundle of the entry in spec.registries",
            "it holds another authority",
        ),
    ),
    "another-name": Case(
        cache("alias", trusted("alias")),
        Reason.REGISTRY_NOT_TRUSTED,
        (
            f"not valid for 'alias.{NAMESPACE}.svc'",
            f"the certificate is for private.{NAMESPACE}.svc",
            "correct cache.registry.ref",
        ),
        cache("private", trusted("private")),
    ),
    "no-credentials": Case(
        cache("guarded", trusted("guarded")),
        Reason.CREDENTIALS_REFUSED,
        (
            f"Registry {host('guarded')} asks for credentials and there are none",
            "name a Secret with a user for it in cache.registry.credentials",
        ),
        cache("guarded", trusted("guarded"), credentials="correct"),
    ),
    "a-wrong-password": Case(
        cache("guarded", trusted("guarded"), credentials="wrong"),
        Reason.CREDENTIALS_REFUSED,
        (
            f"Registry {host('guarded')} refuses user builder",
            "correct the Secret that cache.registry.credentials names",
        ),
        later=login("wrong", "guarded", "correct"),
    ),
    "a-user-of-another-registry": Case(
        cache("guarded", trusted("guarded"), credentials="elsewhere"),
        Reason.CREDENTIALS_REFUSED,
        (
            f"Secret elsewhere, key .dockerconfigjson has no entry for {host('guarded')}",
            "add one, as docker login does",
        ),
        later=login("elsewhere", "guarded", "correct"),
    ),
    "no-such-secret": Case(
        cache("guarded", trusted("guarded"), credentials="late"),
        Reason.SECRET_NOT_FOUND,
        ("Secret late does not exist", "create it"),
        later=login("late", "guarded", "correct"),
    ),
    "read-only": Case(
        cache("archive", plain("archive")),
        Reason.WRITE_REFUSED,
        (f"Registry {host('archive')} is read-only", "end its read-only or pull-through mode"),
        cache("plain", plain("plain")),
    ),
    "a-page-for-people": Case(
        cache("pages", plain("pages")),
        Reason.NO_REGISTRY,
        (
            f"{host('pages')} is no registry: /v2/ answers 200 (text/html)",
            "correct cache.registry.ref",
        ),
        cache("plain", plain("plain")),
    ),
    "tls-is-expected": Case(
        cache("plain"),
        Reason.NO_REGISTRY,
        (
            f"Registry {host('plain')} answers without TLS",
            f"set http: true in its entry in spec.registries, host {host('plain')}",
        ),
        cache("plain", plain("plain")),
    ),
    "no-tls-is-expected": Case(
        cache("private", plain("private")),
        Reason.NO_REGISTRY,
        (
            f"Registry {host('private')} speaks TLS and is asked in plain HTTP",
            f"remove http: true from its entry in spec.registries, host {host('private')}",
        ),
        cache("private", trusted("private")),
    ),
}


@pytest.fixture(scope="module")
def operator(api: Api) -> dict[str, int]:
    """The operator's pods before anything is wrong."""
    return running_operators(api)


@pytest.fixture(scope="module")
def wrong(api: Api, shared_namespace: str, operator: dict[str, int]) -> str:
    """The namespace of one pool for each case, by its name."""
    authority, stranger = new_authority("private"), new_authority("stranger")
    trust(api, "private-ca", shared_namespace, authority)
    trust(api, "stranger-ca", shared_namespace, stranger)
    bring("registry")

    def start(name: str, **how: Any) -> None:
        is_plain = name in ("plain", "archive")
        serve(api, Registry(name, shared_namespace), None if is_plain else authority, **how)

    with ThreadPoolExecutor() as threads:
        started = [
            threads.submit(start, "private"),
            threads.submit(start, "guarded", htpasswd=USER),
            threads.submit(start, "plain"),
            threads.submit(start, "archive", is_read_only=True),
            threads.submit(serve_pages, api, shared_namespace),
        ]
    for each in started:
        each.result()
    objects = (
        service("alias", leads_to="private"),
        service("deserted", leads_to="plain", port=PORT + 1),
        login("correct", "guarded", "correct"),
        login("wrong", "guarded", "incorrect"),
        login("elsewhere", "plain", "correct"),
    )
    api.apply(*(placed(obj, shared_namespace) for obj in objects))
    pools = {name: placed(case.wrong, shared_namespace) for name, case in CASES.items()}
    api.apply(*(a_pool(name, shared_namespace, replicas=0, **spec) for name, spec in pools.items()))
    return shared_namespace


@pytest.fixture(scope="module")
def right(api: Api, wrong: str) -> str:
    """The same pools, after what their messages recommend was done."""
    private = api.get("configmap", "private-ca", wrong)
    assert private is not None
    metadata = {"name": "stranger-ca", "namespace": wrong}
    api.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": private["data"]},
        *(placed(case.later, wrong) for case in CASES.values() if case.later),
    )
    for name, case in CASES.items():
        if case.right:
            change(api, name, wrong, **placed(case.right, wrong))
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_a_cache_that_cannot_be_used_says_why_and_what_helps(
    api: Api, wrong: str, name: str
) -> None:
    case = CASES[name]
    says = placed(case.says, wrong)

    def is_told() -> bool:
        told = api.condition(name, wrong, "CacheReady")
        return (told.get("reason"), told.get("status")) == (case.reason, "False") and all(
            part in told["message"] for part in says
        )

    def is_shown() -> bool:
        shown = " ".join(api.must("describe", "bkp", name, "-n", wrong).split())
        parts = (case.reason, *says)
        return all(part in half for half in shown.partition(" Events: ")[::2] for part in parts)

    eventually(is_told, within=60, what=f"{case.reason}: {says}", every=0.5)
    eventually(is_shown, within=60, what=f"describe shows condition and Event: {says}", every=1)


@pytest.mark.parametrize("name", CASES)
def test_a_cache_that_was_put_right_is_used(
    api: Api, right: str, operator: dict[str, int], name: str
) -> None:
    eventually(
        lambda: api.condition(name, right, "CacheReady").get("status") == "True",
        within=60,
        what=f"{name} has a cache",
        every=0.5,
    )
    assert api.condition(name, right, "CacheReady")["reason"] == Reason.CACHE_ANSWERS
    assert running_operators(api) == operator


def placed(value: Any, namespace: str) -> Any:
    """The same with the namespace of the tests in it."""
    return json.loads(json.dumps(value).replace(NAMESPACE, namespace))


def running_operators(api: Api) -> dict[str, int]:
    """How often each of the operator's pods was restarted."""
    pods = api.list("pods", OPERATOR_NAMESPACE, OPERATORS)
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in pods
    }


def serve_pages(api: Api, namespace: str) -> None:
    """A web server that has a page for whatever it is asked for."""
    bring("busybox")
    metadata = {"name": "pages", "namespace": namespace, "labels": {"app": "pages"}}
    script = (
        "mkdir -p /www/v2; echo '<html>Welcome</html>' > /www/v2/index.html; "
        f"exec httpd -f -p {PORT} -h /www"
    )
    container = {
        "name": "pages",
        "image": BASE,
        "command": ["sh", "-c", script],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    api.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        placed(service("pages", leads_to="pages"), namespace),
    )
    api.must("wait", "pod/pages", "-n", namespace, "--for=condition=Ready", at_most(60))
