from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.overview import output, table
from buildpool.client.parsing import (
    cluster_in,
    gateway_in,
    operators_in,
    parsed,
    path_in,
    pool_in,
    pools_in,
    target_in,
)
from buildpool.client.values import Cluster, Output, Target
from buildpool.core.errors import BuildpoolError
from buildpool.core.explanation import explain
from samples import a_raw_pool

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below),
    max_leaves=8,
)


def a_config(**context: str) -> str:
    """What ``kubectl config view --minify`` prints."""
    contexts = [{"name": "work", "context": {"cluster": "c", "user": "u", **context}}]
    return json.dumps({"current-context": "work", "contexts": contexts})


def test_the_namespace_is_that_which_is_named_or_that_of_the_context() -> None:
    def cluster(text: str, namespace: str = "") -> Cluster:
        return cluster_in(text, namespace=namespace, kubeconfig="/k")

    assert cluster(a_config()) == Cluster("default", "work", "/k")
    assert cluster(a_config(namespace="builds")).namespace == "builds"
    assert cluster(a_config(namespace="builds"), "mine").namespace == "mine"
    assert cluster(a_config(namespace="../x")).namespace == "default"
    assert cluster(a_config()).flags == ("--kubeconfig=/k", "--context=work")
    assert Cluster("builds").flags == ()


def test_the_server_is_known_by_which_two_contexts_of_one_name_differ() -> None:
    config = json.loads(a_config()) | {"clusters": [{"cluster": {"server": "https://a/k8s/x/"}}]}
    found = cluster_in(json.dumps(config), namespace="", kubeconfig="")
    assert found.server == "https://a/k8s/x/"
    assert path_in(found.server) == "/k8s/x"
    assert path_in("https://a") == path_in("https://[") == path_in("") == ""


@given(JSON)
def test_no_kubeconfig_ends_in_a_traceback(config: object) -> None:
    with suppress(BuildpoolError):
        cluster_in(json.dumps(config), namespace="", kubeconfig="")
    with suppress(BuildpoolError):
        cluster_in(
            json.dumps({"current-context": config, "contexts": config, "clusters": config}),
            namespace="",
            kubeconfig="",
        )


@pytest.mark.parametrize("name", ["", "--all", "$(reboot)", "a b", "a\nb", "\x1b[31m", 1, None])
def test_a_name_that_no_api_server_would_store_is_none(name: object) -> None:
    """Shells and terminals get to see it."""
    with pytest.raises(BuildpoolError, match="it has no name"):
        pool_in(a_raw_pool(metadata={"name": name}))


def test_a_pool_whose_spec_is_wrong_is_still_known() -> None:
    seen = pool_in(a_raw_pool(builders={"slots": "many"}))
    assert seen.pool.key == ("builds", "ci")
    assert seen.refusal is not None
    assert seen.refusal.problems[0].path == "spec.builders.slots"


PLACES = st.sampled_from(
    [
        *(("metadata", key) for key in ("name", "namespace", "uid", "generation", "annotations")),
        *(("metadata", key) for key in ("creationTimestamp", "deletionTimestamp")),
        *((part, None) for part in ("metadata", "spec", "status")),
        *(("spec", key) for key in ("routing", "scaling", "builders", "gateway", "access")),
        *(("status", key) for key in ("conditions", "scaling", "builders", "blockedSince")),
        *(("status", key) for key in ("clients", "authority", "waiting", "observedGeneration")),
    ]
)
EDGES = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
"""Either end of time, beyond which nothing can be reckoned."""
MOMENTS = st.sampled_from(["2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z", *EDGES])


@given(PLACES, JSON | MOMENTS)
def test_no_pool_ends_in_a_traceback(place: tuple[str, str | None], value: object) -> None:
    raw: dict[str, Any] = a_raw_pool()
    raw["status"] = {"observedGeneration": 1, "conditions": [], "blockedSince": None}
    part, key = place
    if key is None:
        raw[part] = value
    else:
        raw[part] = {**raw.get(part, {}), key: value}
    with suppress(BuildpoolError):
        seen = pool_in(json.loads(json.dumps(raw)))
        assert "\x1b" not in table([seen], with_namespace=True)
        output([seen], Output.YAML)
        explain(seen.pool, now=datetime(2026, 1, 1, tzinfo=UTC), refusal=seen.refusal)


@given(st.lists(MOMENTS, min_size=8, max_size=8), st.sampled_from(["Direct", "Gateway"]))
def test_no_time_in_a_status_ends_in_a_traceback(times: list[str], routing: str) -> None:
    """Anyone who may write a status may write any time."""
    since, calm, ready, overdue, ends, authority, phase, blocked = times
    condition = {"type": "Ready", "status": "False", "reason": "Odd", "message": "odd"}
    scaling = {"size": 2, "reason": "CoolingDown", "since": since, "calmSince": calm, "peak": 1}
    builder = {"name": "ci-builder-0", "ready": True, "revision": "1", "overdueSince": overdue}
    client = {"name": "default", "secret": "s", "notAfter": ends}
    status = {
        "observedGeneration": 1,
        "conditions": [{**condition, "lastTransitionTime": ready}],
        "scaling": scaling,
        "builders": [builder],
        "clients": [client],
        "authority": {"notAfter": authority, "phase": "Replacing", "since": phase},
        "waiting": 1,
        "blockedSince": blocked,
    }
    seen = pool_in(a_raw_pool(routing=routing, status=status))
    table([seen], with_namespace=True)
    explain(seen.pool, now=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_list_says_how_to_go_on() -> None:
    found, more = pools_in({"items": [a_raw_pool()], "metadata": {"continue": "abc"}})
    assert ([seen.pool.key.name for seen in found], more) == (["ci"], "abc")
    with pytest.raises(BuildpoolError, match="cannot be read"):
        pools_in({"items": 1})


def test_the_gateway_is_found_by_the_service_of_a_pool() -> None:
    def gateway(name: object) -> Target | None:
        return gateway_in({"spec": {"externalName": name}})

    home = Target("buildpool-system", "buildpool-gateway")
    assert gateway("buildpool-gateway.buildpool-system.svc.cluster.local") == home
    assert gateway("buildpool-gateway.buildpool-system.svc") == home
    for other in ("example.com", "--flag.x.svc", "a/b.c.svc", "", None, 1):
        assert gateway(other) is None
    assert gateway_in({"spec": 1}) is None
    assert target_in("buildpool-system/buildpool-gateway") == home
    with pytest.raises(BuildpoolError, match="names no Service"):
        target_in("buildpool-gateway")


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "[" * 5000, "\udcff"])
def test_what_is_no_object_is_said(text: str) -> None:
    with pytest.raises(BuildpoolError, match="the pool cannot be read"):
        parsed(text, "the pool")


def test_operators_are_known_by_their_labels() -> None:
    def deployment(namespace: object, **labels: object) -> dict[str, object]:
        spelled = {f"app.kubernetes.io/{key}": value for key, value in labels.items()}
        return {"metadata": {"namespace": namespace, "labels": spelled}}

    found = operators_in(
        {
            "items": [
                deployment("a", component="operator", version="0.1.0"),
                deployment("b", component="gateway", version="0.2.0"),
                deployment("c", component="operator"),
                deployment(None, component="operator", version="0.1.0"),
                *(None, 3, {}, {"metadata": 3}, {"metadata": {"labels": 3}}),
            ]
        }
    )
    assert found == {"a": "0.1.0"}
    assert [operators_in(each) for each in ({}, {"items": None}, {"items": {}})] == [{}, {}, {}]
