"""One build is one trace: of its client, of the router that lets it in, and of the daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import OPERATOR_NAMESPACE, PROJECT, Api, eventually
from devcluster.layout import NODE_ADDRESS
from e2e import gateways
from e2e.clients import SHORT, base_context, client_of, context, run
from otlp import Collector, Span, a_collector

RELEASE = ("buildpool", "--namespace", OPERATOR_NAMESPACE)
CHART = str(PROJECT / "manifests" / "helm" / "buildpool")
STEP = "RUN echo built"
if "DEVCLUSTER_NAME" not in os.environ:
    pytest.skip("this needs the node of a devcluster", allow_module_level=True)


def upgrade(*settings: str) -> None:
    """Upgrades the installation as it is, and waits until it serves."""
    wait = ("--wait", "--timeout", "150s")
    done = run("helm", "upgrade", *RELEASE, CHART, "--reuse-values", *wait, *settings, within=180)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def collector(api: Api) -> Iterator[Collector]:
    """A collector on the node, to which the router sends its spans."""
    with a_collector(NODE_ADDRESS) as made:
        upgrade("--set", f"gateway.tracing.endpoint={made.endpoint}")
        try:
            yield made
        finally:
            upgrade("--set", "gateway.tracing.endpoint=")


def test_a_build_is_one_tree_from_its_client_over_its_wait_to_its_steps(
    api: Api, collector: Collector, namespace: str, tmp_path: Path
) -> None:
    sent = {"endpoint": collector.endpoint, "protocol": "http/protobuf"}
    builders = {"slots": 1, "tracing": sent}
    gateways.deploy(api, "traced", namespace, builders=builders)
    client = client_of(api, "traced", namespace, tmp_path)
    gateways.know_builder(client, tmp_path)
    source = context(tmp_path / "context", SHORT)
    build = ["buildx", "build", "--builder=remote", "--progress=plain", "--output=type=cacheonly"]
    environment = {
        **os.environ,
        "BUILDX_CONFIG": str(tmp_path / "config"),
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }
    subprocess.run(
        [*build, *base_context(), str(source)],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )

    def tree() -> list[Span]:
        """The spans of the trace in which a step ran, once all have come; else none."""
        spans = {(span.trace, span.number): span for span in collector.spans}
        traces = {span.trace for span in spans.values() if STEP in span.name}
        found = [span for span in spans.values() if span.trace in traces]
        numbers = {span.number for span in found}
        roots = [span for span in found if span.parent not in numbers]
        sources = {span.source for span in found}
        return found if len(roots) == 1 and len(sources) == 3 else []

    found = eventually(tree, within=30, what=f"one tree of {collector.spans}", every=0.5)
    by_name = {span.name: span for span in found}
    assert len({span.trace for span in found}) == 1
    wait, place = by_name["wait for a slot"], by_name["place the build"]
    assert (wait.source, place.source) == ("buildpool-gateway",) * 2
    assert place.attributes["buildpool.builder"] == "traced-builder-0"
    (step,) = (span for span in found if STEP in span.name)
    assert step.source == "buildkitd"
    assert wait.begun <= wait.ended <= place.ended <= step.begun
    (root,) = (span for span in found if not span.parent)
    assert root.begun <= wait.begun
    print({span.source: span.name for span in found}, len(found))
