from __future__ import annotations

import json
from typing import Any

import yaml

from buildpool.client.overview import output, table
from buildpool.client.parsing import Seen, pool_in
from buildpool.client.values import Output
from samples import a_raw_pool


def a_condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def seen(name: str, *conditions: dict[str, Any], **fields: Any) -> Seen:
    """A pool with this status."""
    status = {"observedGeneration": 1, "ready": "2/2", "busy": "1/4", **fields}
    return pool_in(a_raw_pool(name=name, status={**status, "conditions": list(conditions)}))


READY = a_condition("Ready", "True", "Ready", "All 2 builders take builds.")
STUCK = a_condition("Ready", "False", "ImagePullFailed", "image x cannot be pulled; correct it")
NO_CACHE = a_condition("CacheReady", "False", "CacheFull", "The cache is full.")
POOLS = [seen("fine", READY), seen("slow", READY, NO_CACHE), seen("broken", STUCK)]


def test_what_is_wrong_comes_first_and_says_why() -> None:
    assert table(POOLS, with_namespace=False).splitlines() == [
        "NAME     READY   BUSY   WAITING   STATUS            ROUTING",
        "broken   2/2     1/4    0         ImagePullFailed   Direct",
        "  ImagePullFailed: image x cannot be pulled; correct it.",
        "slow     2/2     1/4    0         Ready             Direct",
        "  CacheFull: The cache is full.",
        "fine     2/2     1/4    0         Ready             Direct",
    ]


def test_all_namespaces_are_told_apart() -> None:
    head, first, *_ = table(POOLS, with_namespace=True).splitlines()
    assert head.startswith("NAMESPACE   NAME")
    assert first.startswith("builds      broken")


def test_a_pool_that_nobody_looks_after_is_wrong() -> None:
    lines = table([seen("new", observedGeneration=-1)], with_namespace=False)
    assert "No operator has looked at it yet." in lines
    raw = a_raw_pool(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert "Terminating" in table([pool_in(raw)], with_namespace=False)


def test_a_message_moves_no_cursor() -> None:
    red = a_condition("Ready", "False", "Odd", "\x1b[31mred\x07")
    shown = table([seen("odd", red)], with_namespace=False)
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_other_programs_get_the_objects_themselves() -> None:
    listed = json.loads(output(POOLS, Output.JSON))
    assert listed["kind"] == "List"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["broken", "slow", "fine"]
    assert yaml.safe_load(output(POOLS, Output.YAML)) == listed
    assert output(POOLS, Output.NAME).splitlines()[0] == "buildkitpool.buildpool.dev/broken"
