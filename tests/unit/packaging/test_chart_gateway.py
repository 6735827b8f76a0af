"""The chart's gateway: numbers that have to fit those of the router."""

from __future__ import annotations

import re
from pathlib import Path

from buildpool.gateway.server import HUNG_SECONDS

PROJECT = Path(__file__).parents[3]
TEMPLATE = PROJECT / "manifests" / "helm" / "buildpool" / "templates" / "gateway.yaml"
START_SECONDS = 30.0
"""Time in which a router starts on a machine that is very busy."""


def test_a_pod_takes_clients_while_a_router_that_hangs_ends_and_another_one_starts() -> None:
    """Envoy holds what comes meanwhile. The only pod of a gateway would leave its Service."""
    (probe,) = re.findall(r"readinessProbe:\n((?: {10}.*\n)+)", TEMPLATE.read_text())
    said = dict(re.findall(r"(\w+): (\d+)\n", probe))
    patience = (int(said["failureThreshold"]) - 1) * int(said["periodSeconds"])
    assert patience > HUNG_SECONDS + START_SECONDS
