from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from buildpool.core.api import PoolSpec, crd, reference

JSON = Mapping[str, Any]
WORDS = {
    "additionalProperties", "anyOf", "default", "description", "enum", "format", "items",
    "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minimum",
    "pattern", "properties", "required", "type", "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}  # fmt: skip


def nodes(node: JSON, path: str) -> Iterator[tuple[str, JSON]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in node:
            yield from nodes(node[word], f"{path}[]")


def with_defaults(node: JSON, value: Any) -> Any:
    """What the API server makes of a value: its defaulting, in a few lines."""
    if isinstance(value, list):
        return [with_defaults(node["items"], entry) for entry in value]
    if not isinstance(value, dict) or "properties" not in node:
        return value
    filled = dict(value)
    for name, child in node["properties"].items():
        if name not in filled and "default" in child:
            filled[name] = copy.deepcopy(child["default"])
        if name in filled:
            filled[name] = with_defaults(child, filled[name])
    return filled


SCHEMA = crd.schema()
NODES = dict(nodes(SCHEMA["properties"]["spec"], "spec")) | dict(
    nodes(SCHEMA["properties"]["status"], "status")
)


@pytest.mark.parametrize("path", NODES)
def test_the_schema_is_structural(path: str) -> None:
    node = NODES[path]
    assert set(node) <= WORDS
    assert ("type" in node) != ("x-kubernetes-int-or-string" in node)


@pytest.mark.parametrize("path", NODES)
def test_everything_that_grows_has_a_bound(path: str) -> None:
    node = NODES[path]
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return
    bounds = {
        "string": {"maxLength", "enum", "format"} & set(node),
        "array": {"maxItems"} & set(node),
        "object": {"properties", "maxProperties"} & set(node),
    }
    assert bounds.get(node.get("type", "string"), True)


@pytest.mark.parametrize("path", [path for path in NODES if not path.endswith("]")])
def test_every_field_tells_its_meaning(path: str) -> None:
    assert NODES[path]["description"].endswith((".", "…"))


SPECS = {
    "nothing": {},
    "empty objects": {"builders": {"history": {}, "resources": {}}, "access": {}, "scaling": {}},
    "half a storage": {"builders": {"storage": {"ephemeral": {}}}},
    "half of what bounds the size": {"scaling": {"max": 3}, "builders": {"rollout": {}}},
    "builders that wear out": {"builders": {"recycle": {"maxAge": "72h"}, "slots": 4}},
    "a volume": {"builders": {"storage": {"volumeClaim": {"size": "5Gi"}}}},
    "a registry": {"registries": [{"host": "r", "caBundle": {"secret": {"name": "s"}}}]},
    "a variable": {
        "builders": {
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
        }
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_defaults_of_the_schema_are_those_of_the_models(spec: JSON) -> None:
    filled = with_defaults(SCHEMA["properties"]["spec"], spec)
    assert PoolSpec.model_validate(filled) == PoolSpec.model_validate(spec)


def test_the_api_server_fills_in_what_the_models_would() -> None:
    filled = with_defaults(SCHEMA["properties"]["spec"], {})
    absent = {"registries": []}
    nothing = {"imagePullSecrets", "nodeSelector", "tolerations", "topologySpreadConstraints"}
    nothing |= {"podLabels", "podAnnotations", "env", "config"}
    expected = PoolSpec().to_dict()
    expected["builders"] = {
        name: value for name, value in expected["builders"].items() if name not in nothing
    }
    expected["builders"]["resources"] = {}
    del expected["gateway"]["hostnames"]
    assert filled | absent == expected


def test_the_definition_is_written_without_anchors_and_always_alike() -> None:
    text = crd.render()
    assert text == crd.render()
    assert yaml.safe_load(text) == crd.definition()
    assert "&id" not in text
    assert "$ref" not in text


def test_autoscalers_find_their_fields() -> None:
    (version,) = crd.definition()["spec"]["versions"]
    for path in version["subresources"]["scale"].values():
        assert path.removeprefix(".") in NODES


def test_kubectl_finds_what_it_shows_in_columns() -> None:
    (version,) = crd.definition()["spec"]["versions"]
    paths = {each["name"]: each["jsonPath"] for each in version["additionalPrinterColumns"]}
    assert paths.pop("Age") == ".metadata.creationTimestamp"
    assert {"Ready", "Busy", "Endpoint"} <= set(paths)
    for path in paths.values():
        field, _, filtered = path.removeprefix(".").partition("[?")
        assert field in NODES
        assert bool(filtered) == (NODES[field]["type"] == "array")


def test_the_reference_names_every_field() -> None:
    page = reference.render()
    for path in NODES:
        name = path.rpartition(".")[2].removesuffix("[]")
        assert name in ("spec", "status") or f"| `{name}` |" in page


def test_every_link_of_the_reference_leads_somewhere() -> None:
    page = reference.render()
    anchors = {
        line.removeprefix("## ").replace(".", "").replace("[]", "").lower()
        for line in page.splitlines()
        if line.startswith("## ")
    }
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked
    assert linked <= anchors
