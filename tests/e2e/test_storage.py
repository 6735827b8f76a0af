"""What builders keep, for how long, and how much of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster import Api, eventually
from e2e.clients import BASE, client_of, context
from e2e.pools import deploy, serving, settle

STEPS = f"FROM {BASE}\nRUN date +%N > /first\nRUN cat /first /first > /second\n"
GIBIBYTE = 1024**3


def test_the_cache_on_a_volume_outlives_its_pod(api: Api, namespace: str, tmp_path: Path) -> None:
    deploy(api, "ci", namespace, builders={"storage": {"volumeClaim": {"size": "2Gi"}}})
    client = client_of(api, "ci", namespace, tmp_path)
    folder = context(tmp_path / "context", STEPS)
    assert "CACHED" not in client.build(folder)
    before = serving(api, "ci-builder-0", namespace)
    assert before is not None
    api.must("delete", "pod", before["metadata"]["name"], "-n", namespace)
    after = eventually(
        lambda: serving(api, "ci-builder-0", namespace), within=40, what="its successor serves"
    )
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    settle(api, "ci", namespace)
    assert client.build(folder).count("CACHED") == 2


def test_garbage_collection_keeps_to_the_size_of_the_storage(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    """In bytes of the storage; BuildKit's own default is a share of the whole disk of the node."""
    deploy(api, "ci", namespace, builders={"storage": {"ephemeral": {"sizeLimit": "4Gi"}}})
    client = client_of(api, "ci", namespace, tmp_path)
    shown = client.ask("debug", "workers", "-v")
    rules = re.split(r"GC Policy rule#\d+:", shown)[1:]
    assert len(rules) == 4
    assert (
        "type==exec.cachemount" in rules[0]
    )  # what is cheap to make again, below a cap of its own
    for rule in rules[1:]:
        assert size(rule, "Maximum used space") == pytest.approx(4 * GIBIBYTE * 0.75, rel=1e-6)
        assert size(rule, "Reserved space") == pytest.approx(4 * GIBIBYTE * 0.1, rel=1e-6)


def size(rule: str, name: str) -> float:
    """Bytes of a limit, as buildctl prints it."""
    found = re.search(rf"{name}:\s+([\d.]+)([MG])B", rule)
    assert found, rule
    return float(found[1]) * {"M": 1e6, "G": 1e9}[found[2]]
