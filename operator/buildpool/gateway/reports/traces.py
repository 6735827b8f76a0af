"""The spans of what the router does with a build, in the trace of its client.

A client says by ``traceparent`` in which trace it builds. That is foreign: what cannot be read has
no span. No build ever waits for a collector: spans are sent by a thread of their own, and what does
not get through in time is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from buildpool.gateway.metrics import GatewayMetrics

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

Value = str | bool | Sequence[str]
MAX_QUEUED_SPANS: Final = 2048
"""Spans that wait to be sent; more are dropped."""
SEND_EVERY_MS: Final = 1000
"""Time between two messages to the collector, in milliseconds."""
COMPLAIN_EVERY_SECONDS: Final = 600.0
"""Time between two lines that say the same about a collector."""
LIBRARY_LOGS: Final = (
    "opentelemetry.exporter.otlp.json.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
"""By which the library says, of each message, that the collector did not take it."""
log: Final = logging.getLogger(__name__)


class Note:
    """What is added to a span while it goes on; nothing, where there is none."""

    def __init__(self, span: Span | None = None) -> None:
        """``span``: absent where the trace of the client cannot be read, or nobody collects any."""
        self._span = span

    def add(self, **attributes: Value) -> None:
        """More of what is known. Names get the beginning that all of ours have."""
        if self._span is not None:
            self._span.set_attributes({f"buildpool.{name}": v for name, v in attributes.items()})


class Traces:
    """Makes spans."""

    def __init__(
        self, tracer: Tracer | None = None, made: Callable[[], object] = lambda: None
    ) -> None:
        """``tracer``: absent where nobody collects them. ``made`` is called with each span."""
        self._tracer = tracer
        self._made = made

    @contextmanager
    def span(self, parent: str, name: str, **attributes: Value) -> Iterator[Note]:
        """A span for the length of a block; one that ends by an exception says so.

        ``parent``: the ``traceparent`` of the client, as it came.
        """
        span = self._begun(parent, name) if self._tracer is not None and parent else None
        note = Note(span)
        if span is None:
            yield note
            return
        note.add(**attributes)
        try:
            yield note
        except BaseException as error:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR, str(error) or type(error).__name__)
            raise
        finally:
            if span.is_recording():  # its client samples the trace
                self._made()
            span.end()

    def _begun(self, parent: str, name: str) -> Span | None:
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract({"traceparent": parent})
        # One that is no child would be a trace of its own, which tells nobody anything.
        if self._tracer is None or not get_current_span(above).get_span_context().is_valid:
            return None
        return self._tracer.start_span(name, context=above, kind=SpanKind.SERVER)


class Seldom(logging.Filter):
    """Lets what is said again and again through once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """By the words of the program, whatever is filled into them: these are few."""
        words = str(record.msg)
        if record.created - self._said.get(words, -COMPLAIN_EVERY_SECONDS) < COMPLAIN_EVERY_SECONDS:
            return False
        self._said[words] = record.created
        return True


def traces_to(endpoint: str, identity: str, metrics: GatewayMetrics) -> Traces:
    """Makes spans and sends them to a collector that takes OTLP as JSON; empty: to nobody.

    ``identity`` is the pod. Headers are what ``OTEL_EXPORTER_OTLP_TRACES_HEADERS`` says.
    """
    if not endpoint:
        return Traces()
    try:
        from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=endpoint)
    except Exception:  # of a library, about what a user wrote; no build depends on it
        log.exception("Traces cannot be sent to %s; builds go on without them.", endpoint)
        return Traces()
    seldom = Seldom()
    for name in LIBRARY_LOGS:
        logging.getLogger(name).addFilter(seldom)
    return traces_by(exporter, {"k8s.pod.name": identity}, metrics)


def traces_by(
    exporter: SpanExporter, resource: Mapping[str, str], metrics: GatewayMetrics
) -> Traces:
    """Makes spans and sends them by an exporter."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Counted(SpanExporter):
        """Sends by another one, and counts what the collector takes."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            """One message."""
            result = exporter.export(spans)
            if result is SpanExportResult.SUCCESS:
                metrics.spans_sent.inc(len(spans))
            return result

    # What is not sent when the process ends is lost: its end waits for no collector.
    provider = TracerProvider(
        resource=Resource.create({"service.name": "buildpool-gateway", **resource}),
        shutdown_on_exit=False,
    )
    sender = BatchSpanProcessor(
        Counted(), max_queue_size=MAX_QUEUED_SPANS, schedule_delay_millis=SEND_EVERY_MS
    )
    provider.add_span_processor(sender)
    return Traces(provider.get_tracer("buildpool"), made=metrics.spans_made.inc)
