"""What a pass knows, and that it reads each thing once."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from cryptography import x509

import buildpool.core
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object
from buildpool.core.pki import reading
from buildpool.core.planning import situation as module
from buildpool.core.planning.plan import plan_flow
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.reporting.report import report_pass
from memory_cluster import MemoryCluster, settled
from samples import GATEWAY, OTHER_UID, a_pool, a_situation, clients, planned

CACHED = {"registry": {"managed": {}}}
CORE = Path(buildpool.core.__file__).parent
READERS = ("facts", "leaf", "authorities", "signature")


def known(cluster: MemoryCluster, **spec: object) -> Situation:
    pool = cluster.known(a_pool(**spec))
    return a_situation(pool, cluster.observe(pool), now=cluster.now)


@pytest.mark.parametrize(
    "spec",
    [{"access": clients("ana", "bob")}, {"cache": CACHED}, {"routing": "Gateway", "cache": CACHED}],
    ids=["clients", "cache", "gateway"],
)
def test_each_certificate_is_read_once_in_a_pass(
    spec: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    s = known(settled(a_pool(**spec)), **spec)
    decoded: Counter[str] = Counter()
    parsed: Counter[bytes] = Counter()
    bundle_of, authority_in = module.bundle_of, module.authority_in
    load = x509.load_pem_x509_certificates

    def counted_bundle(secret: Object | None):  # type: ignore[no-untyped-def]
        decoded[secret["metadata"]["name"] if secret else ""] += 1
        return bundle_of(secret)

    def counted_authority(secret: Object | None):  # type: ignore[no-untyped-def]
        decoded[secret["metadata"]["name"] if secret else ""] += 1
        return authority_in(secret)

    def counted_load(pem: bytes) -> list[x509.Certificate]:
        parsed[pem] += 1
        return load(pem)

    for reader in READERS:
        getattr(reading, f"_remembered_{reader}").cache_clear()
    monkeypatch.setattr(module, "bundle_of", counted_bundle)
    monkeypatch.setattr(module, "authority_in", counted_authority)
    monkeypatch.setattr(x509, "load_pem_x509_certificates", counted_load)

    s, todo = planned(s.pool, s.observation, now=s.now)
    report_pass(s, todo, Outcome())

    assert todo.is_empty
    assert set(decoded.values()) == {1}
    assert len(decoded) == len(s.requests) + 1, "the authority, too"
    # An authority is read as the one that signs, and as the one that is trusted.
    assert max(parsed.values()) <= 2
    assert sum(parsed.values()) <= len(decoded) + 1


def test_what_was_issued_comes_before_what_is_stored_and_is_forgotten_on_request() -> None:
    cluster = settled(a_pool())
    stored = known(cluster)
    other, _ = planned(a_pool())
    issued = stored.with_issued(other.issued)
    assert issued.authority == other.authority != stored.authority
    assert issued.bundles == other.bundles
    assert issued.stored_bundles == stored.bundles
    assert issued.without_issued().bundles == stored.bundles


def test_what_was_read_of_objects_is_not_read_again_when_something_else_is_seen() -> None:
    s = known(settled(a_pool()))
    bundles, own = s.stored_bundles, s.own
    later = s.seeing(memory={"a": 1}).with_issued({})
    assert later.stored_bundles is bundles
    assert later.own is own
    assert later.observation.memory == {"a": 1}


def test_what_belongs_to_a_namesake_is_not_among_the_pools_own() -> None:
    s = known(settled(a_pool(uid=OTHER_UID)))
    assert dict(s.own) == {}
    assert s.authority is None
    assert set(s.bundles.values()) == {None}


def test_a_flow_that_needs_nothing_ends_at_once() -> None:
    with pytest.raises(StopIteration) as end:
        next(plan_flow(known(settled(a_pool()))))
    assert end.value.value[1].is_empty


def test_the_gateways_host_is_its_service_in_the_operators_namespace() -> None:
    s = a_situation(a_pool())
    assert s.installation.gateway_host == f"{GATEWAY}.buildpool-system.svc.cluster.local"
    assert s.pool.key == PoolKey("builds", "ci")


def test_no_function_of_the_core_takes_a_pool_and_an_observation_apart() -> None:
    found = []
    for file in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                names = {argument.arg for argument in arguments}
                if {"pool", "observation"} <= names or "home" in names:
                    found.append(f"{file.relative_to(CORE)}: {node.name}")
    assert found == []
