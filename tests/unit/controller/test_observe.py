"""What a pass reads of others, and what it leaves to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

import yaml

from buildpool.controller.observe import observe, references_of
from buildpool.core import naming
from buildpool.core.api import parse_pool
from buildpool.core.api.model import Model
from buildpool.core.api.podfields import KeyReference, ObjectReference
from buildpool.core.api.spec import BundleKey, PoolSpec
from buildpool.core.objects.refs import Object, Ref
from buildpool.kube.cluster import Cluster
from samples import HOME, INSTALLATION, a_pod, a_pool


class Holding:
    """An API server that has these objects."""

    def __init__(self, *objects: Object) -> None:
        self._objects = objects

    async def get(self, ref: Ref) -> Object | None:
        return None

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        return [
            obj
            for obj in self._objects
            if (obj["kind"], obj["metadata"]["namespace"]) == (kind, namespace)
            and labels.items() <= obj["metadata"]["labels"].items()
        ]


def a_gateway_pod(name: str, of: str) -> Object:
    """A pod of the gateway of the project of this name."""
    pod = a_pod(component=naming.COMPONENT_GATEWAY)
    labels = naming.installation_selector(naming.COMPONENT_GATEWAY)
    labels["app.kubernetes.io/name"] = of
    pod["metadata"] |= {"name": name, "namespace": HOME, "labels": labels}
    return pod


async def test_a_pod_of_somebody_elses_gateway_makes_no_pool_served() -> None:
    ours, gone = a_gateway_pod("ours", "buildpool"), a_gateway_pod("gone", "buildpool")
    gone["status"]["phase"] = "Failed"
    theirs = a_gateway_pod("theirs", "istio")
    cluster = cast("Cluster", Holding(ours, gone, theirs))
    observation = await observe(cluster, a_pool(routing="Gateway"), INSTALLATION)
    assert observation.gateways == {"ours": True}


REFERENCES = (KeyReference, ObjectReference, BundleKey)
"""The types by which a spec names what its user has made."""
SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


def named(value: object, path: str = "spec") -> Iterator[tuple[str, str]]:
    """Where below a value of a spec something of the user is named, and its name."""
    if isinstance(value, REFERENCES):
        yield path, value.name
    elif isinstance(value, Model):
        for field in type(value).model_fields:
            yield from named(getattr(value, field), f"{path}.{field}")
    elif isinstance(value, tuple):
        for entry in value:
            yield from named(entry, path)


def fields(kind: object, path: str = "spec") -> Iterator[str]:
    """Each place of a spec where something of the user can be named."""
    if isinstance(kind, type) and issubclass(kind, REFERENCES):
        yield path
    elif isinstance(kind, type) and issubclass(kind, Model):
        for field, info in kind.model_fields.items():
            yield from fields(info.annotation, f"{path}.{field}")
    else:
        for part in get_args(kind):
            yield from fields(part, path)


def test_whatever_a_spec_names_is_looked_for() -> None:
    pools = [
        parse_pool(each)
        for sample in SAMPLES.glob("pool-*.yaml")
        for each in yaml.safe_load_all(sample.read_text())
        if each["kind"] == "BuildKitPool"
    ]
    assert {path for pool in pools for path, _ in named(pool.spec)} >= set(fields(PoolSpec)), (
        "a sample names one of each kind"
    )
    for pool in pools:
        looked_for = {ref.name for ref in references_of(pool)}
        assert {name for _, name in named(pool.spec)} <= looked_for, pool.key
