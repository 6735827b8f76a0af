"""Who may reach builders: whoever the chart's own pods are, and nobody with Direct routing."""

from __future__ import annotations

from pathlib import Path

import yaml

from buildpool.core.objects.refs import Object
from buildpool.core.resources import builder_policy
from samples import HOME, a_builder_deployment, a_pool

INSTALLED = Path(__file__).parents[4] / "manifests" / "kustomize" / "deployment.yaml"


def policy() -> Object:
    """What a policy says."""
    found = builder_policy(a_pool(routing="Gateway"), installed_in=HOME)
    assert found is not None
    spec: Object = found["spec"]
    return spec


def labels_of(deployment: Object) -> Object:
    """The labels of a Deployment's pods."""
    labels: Object = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def test_with_direct_routing_everybody_reaches_builders() -> None:
    assert builder_policy(a_pool(), installed_in=HOME) is None


def test_it_is_about_the_builders_of_the_pool() -> None:
    selected = policy()["podSelector"]["matchLabels"].items()
    pools = [a_pool(), a_pool(name="other")]
    mine, others = (labels_of(a_builder_deployment(pool)).items() for pool in pools)
    assert selected <= mine
    assert not selected <= others


def test_it_lets_in_the_pods_that_are_installed_and_no_others() -> None:
    (rule,) = policy()["ingress"]
    namespaces = [peer["namespaceSelector"]["matchLabels"] for peer in rule["from"]]
    assert namespaces == [{"kubernetes.io/metadata.name": HOME}] * 2
    selectors = [peer["podSelector"]["matchLabels"].items() for peer in rule["from"]]
    installed = [o for o in yaml.safe_load_all(INSTALLED.read_text()) if o["kind"] == "Deployment"]
    assert {o["metadata"]["namespace"] for o in installed} == {HOME}
    let_in = {
        o["metadata"]["name"]: [selector <= labels_of(o).items() for selector in selectors]
        for o in installed
    }
    assert let_in == {"buildpool": [False, True], "buildpool-gateway": [True, False]}
