"""Admission policies that refuse what is stored, as users' clusters have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster import Api


@contextmanager
def a_refusal(api: Api, namespace: str, resource: str, unless: str) -> Iterator[None]:
    """While it lasts, writes of a resource of ours are refused in a namespace, unless this holds.

    It is there, and perhaps not yet known to the API server.
    """
    rule = {"apiGroups": ["buildpool.dev"], "apiVersions": ["*"], "resources": [resource]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    policy = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": namespace}}
    api.apply(
        {
            **policy,
            "kind": "ValidatingAdmissionPolicy",
            "spec": {
                "matchConstraints": {
                    "resourceRules": [{**rule, "operations": ["CREATE", "UPDATE"]}]
                },
                "failurePolicy": "Fail",
                "validations": [{"expression": unless, "message": "not in this namespace"}],
            },
        },
        {
            **policy,
            "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {
                "policyName": namespace,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": here},
            },
        },
    )
    try:
        yield
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            api.must("delete", kind, namespace)
