"""In a cluster whose domain is not ``cluster.local``, names are those of its own domain."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cluster import (
    OPERATOR_NAMESPACE,
    Api,
    OperatorProcess,
    a_pool,
    at_rest,
    eventually,
    operator_process,
)

GATEWAY = ("--gateway-service", "buildpool-gateway")


@pytest.fixture
def elsewhere(kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that is told of another domain."""
    flags = (*GATEWAY, "--cluster-domain", "k8s.test")
    log = tmp_path / "elsewhere.log"
    with operator_process(OperatorProcess(kubeconfig, log, "elsewhere", flags)) as process:
        yield process


def names_in(api: Api, secret: str, namespace: str) -> list[str]:
    """The DNS names for which the certificate in a Secret is good."""
    found = api.get("secret", secret, namespace)
    assert found is not None
    certificate = x509.load_pem_x509_certificate(base64.b64decode(found["data"]["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


def is_carried_out(api: Api, namespace: str, **spec: Any) -> None:
    """Applies a pool and waits until there is all that it consists of."""
    api.apply(a_pool("ci", namespace, **spec))
    eventually(
        lambda: (
            api.condition("ci", namespace, "CertificatesReady").get("status") == "True"
            and api.get("service", "ci", namespace)
        ),
        within=30,
        what="the pool is carried out",
    )


def test_the_service_and_the_certificates_have_names_of_the_clusters_domain(
    installed: Api, elsewhere: OperatorProcess, namespace: str
) -> None:
    cache = {"registry": {"managed": {}}}
    is_carried_out(installed, namespace, routing="Gateway", cache=cache)
    service = installed.get("service", "ci", namespace)
    assert service is not None
    host = f"buildpool-gateway.{OPERATOR_NAMESPACE}.svc.k8s.test"
    assert service["spec"]["externalName"] == host
    assert f"ci.{namespace}.svc.k8s.test" in names_in(installed, "ci-builder", namespace)
    assert f"ci-cache.{namespace}.svc.k8s.test" in names_in(installed, "ci-cache", namespace)
    gateway = f"gateway.{namespace}.ci"
    assert names_in(installed, gateway, OPERATOR_NAMESPACE) == [
        f"ci.{namespace}",
        f"ci.{namespace}.svc",
        f"ci.{namespace}.svc.k8s.test",
    ]


def test_an_operator_that_learns_the_domain_replaces_no_builder(
    installed: Api, operator: OperatorProcess, kubeconfig: Path, namespace: str
) -> None:
    """Only the Service and the gateway's certificate change."""
    operator.stop()
    operator.flags = GATEWAY
    operator.start()
    is_carried_out(installed, namespace, routing="Gateway", scaling={"min": 1})

    def builders() -> list[tuple[str, str]]:
        found = installed.list("deployments,secrets", namespace)
        return sorted((o["metadata"]["uid"], o["metadata"]["resourceVersion"]) for o in found)

    def name_of_the_gateway() -> str:
        service = installed.get("service", "ci", namespace) or {}
        return str(service["spec"]["externalName"])

    eventually(
        lambda: installed.get("deployment", "ci-builder-0", namespace),
        within=20,
        what="there is a builder",
    )
    assert name_of_the_gateway().endswith(".svc.cluster.local")
    operator.stop()
    before = at_rest(builders)  # the Deployments' own controllers have had their say
    operator.flags = (*GATEWAY, "--cluster-domain", "k8s.test")
    operator.start()
    eventually(
        lambda: name_of_the_gateway().endswith(".svc.k8s.test"),
        within=30,
        what="the Service follows",
    )
    eventually(
        lambda: operator.passes("ci", namespace) >= 2, within=30, what="it looks at the pool twice"
    )
    assert builders() == before
    names = names_in(installed, f"gateway.{namespace}.ci", OPERATOR_NAMESPACE)
    assert f"ci.{namespace}.svc.k8s.test" in names
