"""How Envoy says that a request has lost its builder, and what its client is told of that.

That a builder is gone is said only where the cluster says so: a daemon that is busy may take no
connection for a while, and a network may break one off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import grpc

CONNECTION_LOST: Final = "upstream connect error or disconnect/reset"
"""How a message of Envoy begins that says that it has no answer of a builder."""
UNAVAILABLE: Final = str(grpc.StatusCode.UNAVAILABLE.value[0])
"""The status of a request whose builder does not answer, as it stands in a header."""


class Loss(NamedTuple):
    """A request that has no answer of its builder."""

    words: str
    """What became of the builder, for the client."""
    trouble: str
    """What has ended the build; empty where it never reached its builder, so that it failed."""


UNEXPLAINED: Final[Mapping[str, Loss]] = {
    "connection termination": Loss(
        "has lost the connection, and nobody says why yet; build again", "its connection broke off"
    ),
    "connection failure": Loss("takes no connection now, and nobody says why yet; build again", ""),
    "connection timeout": Loss(
        "took no connection in time: it or its node may be too busy, or cut off; build again", ""
    ),
}
"""By a part of such a message where the connection to the builder failed, not only this request."""


def loss_in(said: Mapping[str, str], *, known: str) -> Loss | None:
    """What became of the builder of a request that has ended; None where it has its answer.

    ``said``: the headers or trailers of its end. ``known``: what the cluster says of the builder,
    if anything.
    """
    message = said.get("grpc-message", "")
    # These are Envoy's own words where it has no answer; daemons say nothing like it.
    if said.get("grpc-status") != UNAVAILABLE or not message.startswith(CONNECTION_LOST):
        return None
    if known:
        return Loss(f"is gone: {known}", known)
    # A stream alone that ends so has not taken its builder along.
    return next((loss for reason, loss in UNEXPLAINED.items() if reason in message), None)
