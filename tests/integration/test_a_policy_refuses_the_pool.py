"""A policy that refuses what the operator writes of a pool itself is told of, and ends nothing."""

from __future__ import annotations

import json

from cluster import Api, OperatorProcess, a_pool, eventually
from integration.policies import a_refusal
from integration.test_a_pool_converges import created


def test_a_policy_that_refuses_our_finalizer_is_told_of(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    with a_refusal(installed, namespace, "buildkitpools", "!has(object.metadata.finalizers)"):
        probe = a_pool("probe", namespace)
        probe["metadata"]["finalizers"] = ["example.com/probe"]
        attempt = ("create", "--dry-run=server", "-f", "-")
        eventually(
            lambda: installed.kubectl(*attempt, stdin=json.dumps(probe)).returncode,
            within=20,
            what="the policy is known",
        )
        installed.apply(a_pool("ci", namespace))
        for kind in ("Ready", "Stalled"):
            condition = eventually(
                lambda kind=kind: (
                    (c := installed.condition("ci", namespace, kind))
                    and c["reason"] == "ObjectRefused"
                    and c
                ),
                within=10,
                what=f"{kind} says so",
            )
            assert "not in this namespace" in condition["message"]
        eventually(
            lambda: "ObjectRefused" in installed.reasons("ci", namespace),
            within=5,
            what="an Event says so",
        )
        assert installed.list("deployments,services,secrets", namespace) == []
    eventually(
        lambda: installed.condition("ci", namespace, "CertificatesReady").get("status") == "True",
        within=45,
        what="the pool is carried out",
    )
    assert installed.condition("ci", namespace, "Stalled")["status"] == "False"


def test_a_policy_that_refuses_the_status_is_told_of_by_an_event(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    with a_refusal(installed, namespace, "buildkitpools/status", "false"):
        merge = ("--subresource=status", "--type=merge", "-p", '{"status":{"waiting":7}}')
        attempt = ("patch", "bkp", "ci", "-n", namespace, "--dry-run=server", *merge)
        eventually(
            lambda: installed.kubectl(*attempt).returncode, within=20, what="the policy is known"
        )
        installed.apply(a_pool("ci", namespace, replicas=2))
        eventually(
            lambda: "StatusRefused" in installed.reasons("ci", namespace),
            within=10,
            what="an Event says so",
        )
        eventually(
            lambda: installed.get("deployment", "ci-builder-1", namespace),
            within=10,
            what="what can be done is done",
        )
    eventually(
        lambda: (
            (pool := installed.get("bkp", "ci", namespace))
            and pool["status"]["observedGeneration"] == pool["metadata"]["generation"]
        ),
        within=45,
        what="the status is that of now",
    )
