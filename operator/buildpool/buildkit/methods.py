"""The names of BuildKit's gRPC services."""

from __future__ import annotations

from typing import Final

CONTROL: Final = "/moby.buildkit.v1.Control/"
BRIDGE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"
HEALTH: Final = "/grpc.health.v1.Health/"
