"""The router's spans, by OpenTelemetry's own library, and what clients say of their traces."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.reports.traces import LIBRARY_LOGS, Seldom, Traces, traces_by, traces_to
from daemons import until
from otlp import a_collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


class Collected(SpanExporter):
    """What a collector was sent."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: object) -> SpanExportResult:
        assert isinstance(spans, (list, tuple))
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.fixture
def collected() -> Collected:
    return Collected()


@pytest.fixture(autouse=True)
def logs_that_have_said_nothing() -> Iterator[None]:
    """What one router has complained of is new to the next."""
    yield
    for name in LIBRARY_LOGS:
        logger = logging.getLogger(name)
        for each in [each for each in logger.filters if isinstance(each, Seldom)]:
            logger.removeFilter(each)


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics()


@pytest.fixture
def traces(collected: Collected, metrics: GatewayMetrics) -> Traces:
    return traces_by(collected, {"k8s.pod.name": "one"}, metrics)


def count(metrics: GatewayMetrics, what: str) -> float | None:
    return metrics.registry.get_sample_value(f"buildpool_gateway_spans_{what}_total")


async def test_a_span_is_a_child_of_the_clients(traces: Traces, collected: Collected) -> None:
    with traces.span(SAMPLED, "wait for a slot", pool="builds/ci") as note:
        note.add(builder="ci-builder-0", imports=("a", "b"))
    await until(lambda: bool(collected.spans), "it is sent")
    (span,) = collected.spans
    assert span.name == "wait for a slot"
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.attributes == {
        "buildpool.pool": "builds/ci",
        "buildpool.builder": "ci-builder-0",
        "buildpool.imports": ("a", "b"),
    }
    assert span.resource.attributes["service.name"] == "buildpool-gateway"
    assert span.resource.attributes["k8s.pod.name"] == "one"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_span_says_how_it_was_refused(traces: Traces, collected: Collected) -> None:
    with pytest.raises(ValueError, match="no room"), traces.span(SAMPLED, "wait for a slot"):
        raise ValueError("no room")
    await until(lambda: bool(collected.spans), "it is sent")
    (span,) = collected.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no room")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nothing",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",  # its client wants no spans of it
    ],
)
async def test_what_is_no_trace_of_a_client_has_no_span(
    traces: Traces, collected: Collected, metrics: GatewayMetrics, parent: str
) -> None:
    with traces.span(parent, "wait for a slot") as note:
        note.add(builder="ci-builder-0")
    with traces.span(SAMPLED, "another"):
        pass
    await until(lambda: bool(collected.spans), "the other one is sent")
    assert [span.name for span in collected.spans] == ["another"]
    assert count(metrics, "made") == 1, "what is not sent was not made"


@given(parent=st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-.*")))
def test_nothing_that_a_client_says_ends_a_build(parent: str) -> None:
    traces = traces_by(Collected(), {}, GatewayMetrics())
    with traces.span(parent, "wait for a slot", pool="builds/ci") as note:
        note.add(builder="ci-builder-0")


@pytest.mark.parametrize("endpoint", ["", "http://", "://", "ftp://x y", "http://127.0.0.1:1"])
def test_no_endpoint_keeps_a_router_from_its_work(endpoint: str) -> None:
    with traces_to(endpoint, "one", GatewayMetrics()).span(SAMPLED, "wait for a slot"):
        pass


async def test_what_a_collector_takes_is_counted(
    traces: Traces, collected: Collected, metrics: GatewayMetrics
) -> None:
    for _ in range(3):
        with traces.span(SAMPLED, "wait for a slot"):
            pass
    await until(lambda: count(metrics, "sent") == 3, "they are counted")
    assert (count(metrics, "made"), len(collected.spans)) == (3, 3)


async def test_a_collector_that_refuses_is_complained_of_once(
    metrics: GatewayMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    with a_collector() as collector:
        asked = collector.requests
        traces = traces_to(f"{collector.endpoint}/elsewhere", "one", metrics)
        for times in range(1, 4):
            with traces.span(SAMPLED, "wait for a slot"):
                pass
            await until(lambda n=times: collector.requests == asked + n, "it is asked")
    complaints = [each.getMessage() for each in caplog.records if each.name in LIBRARY_LOGS]
    assert len([each for each in complaints if "404" in each]) == 1, complaints
    assert (count(metrics, "made"), count(metrics, "sent")) == (3, 0)


def test_without_a_collector_nothing_is_loaded_for_it() -> None:
    program = (
        "import sys; from buildpool.gateway.reports.traces import traces_to\n"
        f"with traces_to('', 'one', None).span({SAMPLED!r}, 'x'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
