"""How Envoy says that a request has lost its builder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

CONNECTION_LOST: Final = "upstream connect error or disconnect/reset"
"""How a message of Envoy begins that says that it has no answer of a builder."""
BUILDER_LOST: Final = ("connection failure", "connection termination", "connection timeout")
"""Parts of such a message where the connection to the builder failed, not only this request."""
UNAVAILABLE: Final = str(grpc.StatusCode.UNAVAILABLE.value[0])
"""The status of a request whose builder is gone, as it stands in a header."""


def loss_in(said: Mapping[str, str], *, known: str) -> str:
    """What became of the builder of a request that has ended; empty where it is not lost.

    ``said``: the headers or trailers of its end. ``known``: what the cluster says of the builder,
    if anything.
    """
    message = said.get("grpc-message", "")
    # These are Envoy's own words where it has no answer; daemons say nothing like it.
    if said.get("grpc-status") != UNAVAILABLE or not message.startswith(CONNECTION_LOST):
        return ""
    if known:
        return known
    # A stream alone that ends so has not taken its builder along.
    is_lost = any(reason in message for reason in BUILDER_LOST)
    return "nobody says why yet" if is_lost else ""
