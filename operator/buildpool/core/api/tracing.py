"""``spec.builders.tracing``: where builders send the spans of builds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from buildpool.core.api.fields import HOST, ReadableHost
from buildpool.core.api.model import Model
from buildpool.core.api.podfields import KeyReference


class TraceProtocol(StrEnum):
    """How spans are sent, in OpenTelemetry's words."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


class Tracing(Model):
    """A collector of traces that takes OTLP. Each build's spans are in the trace of its client."""

    endpoint: Annotated[
        str,
        Field(
            pattern=rf"^https?://({HOST}|\[[0-9a-f:]+\](:[0-9]{{1,5}})?)(/[A-Za-z0-9._~/-]*)?$",
            max_length=512,
        ),
        ReadableHost(),
    ]
    """URL of the collector, such as `http://collector.observability.svc:4317`. For `http/protobuf`
    with the path, which mostly is `/v1/traces`."""
    protocol: TraceProtocol = TraceProtocol.GRPC
    """What the collector speaks there."""
    headers_from: KeyReference | None = None
    """Key of a Secret in the pool's namespace with headers for the collector, as
    `name=value,name=value`."""
