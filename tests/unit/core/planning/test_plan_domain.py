"""What a cluster of another domain changes of a pool, and what it must leave as it is."""

from __future__ import annotations

from typing import Any

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Facts, read
from buildpool.core.resources import bundle_of
from memory_cluster import MemoryCluster, settled
from plans import applied
from samples import DAY, GATEWAY, HOME, INSTALLATION, a_pool

MANAGED: Any = {"registry": {"managed": {"size": "10Gi"}}}
ELSEWHERE = INSTALLATION._replace(domain="k8s.test")


def in_another_domain(pool: Pool) -> MemoryCluster:
    cluster = MemoryCluster(installation=ELSEWHERE)
    cluster.settle(pool)
    return cluster


def facts_of(secret: Object) -> Facts:
    bundle = bundle_of(secret)
    assert bundle is not None
    return read(bundle.pair)


def test_a_new_pool_has_the_names_of_its_clusters_domain() -> None:
    cluster = in_another_domain(a_pool(routing="Gateway", cache=MANAGED))
    service = cluster["Service/ci"]["spec"]
    assert service["externalName"] == f"{GATEWAY}.{HOME}.svc.k8s.test"
    for secret, name in {
        "ci-builder": "ci",
        "ci-cache": "ci-cache",
        "gateway.builds.ci": "ci",
    }.items():
        names = facts_of(cluster[f"Secret/{secret}"]).dns_names
        assert f"{name}.builds.svc.k8s.test" in names
        assert f"{name}.builds.svc" in names
    for each in cluster.objects.values():
        assert "cluster.local" not in str(each)


def test_another_domain_replaces_no_pod_and_no_certificate_but_the_gateways() -> None:
    pool = a_pool(routing="Gateway", scaling={"min": 1}, cache=MANAGED)
    cluster = settled(pool)
    pods = set(cluster.pods)
    assert pods
    cluster.installation = ELSEWHERE
    todo = cluster.step(pool)
    assert applied(todo) == ["Secret/gateway.builds.ci", "Service/ci"]
    assert cluster.settle(pool) == []
    assert set(cluster.pods) == pods
    assert "ci.builds.svc.k8s.test" in facts_of(cluster["Secret/gateway.builds.ci"]).dns_names


def test_the_next_certificate_has_the_name_in_the_new_domain() -> None:
    pool = a_pool(cache=MANAGED)
    cluster = settled(pool)
    cluster.installation = ELSEWHERE
    assert cluster.settle(pool) == []
    cluster.now += 61 * DAY
    cluster.settle(pool)
    for name in ("ci-builder", "ci-cache"):
        names = facts_of(cluster[f"Secret/{name}"]).dns_names
        assert any(name.endswith(".builds.svc.k8s.test") for name in names)
        assert not any(name.endswith("cluster.local") for name in names)
    assert cluster.settle(pool) == []


def test_who_asks_for_new_certificates_has_the_name_at_once() -> None:
    cluster = settled(a_pool())
    cluster.installation = ELSEWHERE
    cluster.settle(a_pool(metadata={"annotations": {naming.ANNOTATION_ROTATE: "certificates"}}))
    assert "ci.builds.svc.k8s.test" in facts_of(cluster["Secret/ci-builder"]).dns_names
