from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.state import read, written
from buildpool.client.values import Via
from buildpool.core.errors import BuildpoolError
from unit.client.connections import a_connection, a_node


def test_what_is_written_is_read_again() -> None:
    pair = a_connection(a_node(), a_node("arm", via=Via.HOSTNAME, target=None))
    assert read(written(pair), "x") == pair
    made = replace(pair, is_made=True, is_detached=True)
    assert read(written(made), "x") == made


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text(max_size=5), below),
    max_leaves=5,
)
KEYS = st.sampled_from(["name", "cluster", "nodes", "is_made"])
NODE_KEYS = st.sampled_from(["pool", "client", "via", "port", "target", "other"])


@given(KEYS, JSON)
def test_a_file_that_is_no_connection_is_said(key: str, value: object) -> None:
    content = {**json.loads(written(a_connection())), key: value}
    with suppress(BuildpoolError):
        read(json.dumps(content).encode(), "x")


@given(NODE_KEYS, JSON)
def test_a_node_that_is_none_is_said_too(key: str, value: object) -> None:
    content = json.loads(written(a_connection()))
    content["nodes"][0][key] = value
    with suppress(BuildpoolError):
        read(json.dumps(content).encode(), "x")


@pytest.mark.parametrize("name", ["../up", "", ".", "a/b", "-flag"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    content = {**json.loads(written(a_connection())), "name": name}
    with pytest.raises(BuildpoolError, match="x cannot be read; remove it"):
        read(json.dumps(content).encode(), "x")
