"""The names of BuildKit's gRPC services."""

from __future__ import annotations

from typing import Final

CONTROL: Final = "/moby.buildkit.v1.Control/"
BRIDGE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"
HEALTH: Final = "/grpc.health.v1.Health/"
TRACES: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/"
"""The service to which clients send the traces of their builds."""
CONTENT: Final = "/containerd.services.content.v1.Content/"
"""The service from which clients read what builds have made: buildx reads attestations
(``--metadata-file``)."""
