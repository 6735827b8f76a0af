"""What is said of a builder from which no answer comes."""

from __future__ import annotations

import pytest

from buildpool.gateway.ext_proc.losses import CONNECTION_LOST, UNAVAILABLE, UNEXPLAINED, loss_in

REASONS = (*UNEXPLAINED, "protocol error", "remote reset", "overflow")


def ended(reason: str, *, status: str = UNAVAILABLE) -> dict[str, str]:
    """The end of a request, in the words of Envoy."""
    message = f"{CONNECTION_LOST} before headers. reset reason: {reason}"
    return {"grpc-status": status, "grpc-message": message}


@pytest.mark.parametrize("reason", REASONS)
def test_a_builder_is_said_to_be_gone_only_where_the_cluster_says_so(reason: str) -> None:
    unknown = loss_in(ended(reason), known="")
    assert unknown is None or "gone" not in " ".join(unknown)
    known = loss_in(ended(reason), known="its pod was evicted")
    assert known == ("is gone: its pod was evicted", "its pod was evicted")


@pytest.mark.parametrize("reason", REASONS)
def test_a_build_is_lost_only_where_it_had_begun(reason: str) -> None:
    found = loss_in(ended(reason), known="")
    is_lost = found is not None and bool(found.trouble)
    assert is_lost == (reason == "connection termination")


@pytest.mark.parametrize(
    "said",
    [{}, {"grpc-status": "0"}, ended("connection failure", status="2"), {"grpc-status": "14"}],
    ids=["nothing", "success", "another status", "words of a daemon"],
)
def test_what_a_builder_answers_itself_is_no_loss(said: dict[str, str]) -> None:
    assert loss_in(said, known="its pod was evicted") is None
