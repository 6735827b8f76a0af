"""The spans of what the router does with a build, in the trace of its client.

A client says by ``traceparent`` in which trace it builds. That is foreign: what cannot be read has
no span. No build ever waits for a collector: spans are sent by a thread of their own, and what does
not get through in time is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

Value = str | bool | Sequence[str]
MAX_QUEUED_SPANS: Final = 2048
"""Spans that wait to be sent; more are dropped."""
SEND_EVERY_MS: Final = 1000
"""Time between two messages to the collector, in milliseconds."""
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

    def __init__(self, tracer: Tracer | None = None) -> None:
        """``tracer``: absent where nobody collects them."""
        self._tracer = tracer

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
            span.end()

    def _begun(self, parent: str, name: str) -> Span | None:
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract({"traceparent": parent})
        # One that is no child would be a trace of its own, which tells nobody anything.
        if self._tracer is None or not get_current_span(above).get_span_context().is_valid:
            return None
        return self._tracer.start_span(name, context=above, kind=SpanKind.SERVER)


def traces_to(endpoint: str, identity: str) -> Traces:
    """Makes spans and sends them to a collector that takes OTLP as JSON; empty: to nobody.

    ``identity`` is the pod. Headers are what ``OTEL_EXPORTER_OTLP_TRACES_HEADERS`` says.
    """
    if not endpoint:
        return Traces()
    try:
        from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter

        return traces_by(OTLPSpanExporter(endpoint=endpoint), {"k8s.pod.name": identity})
    except Exception:  # of a library, about what a user wrote; no build depends on it
        log.exception("Traces cannot be sent to %s; builds go on without them.", endpoint)
        return Traces()


def traces_by(exporter: SpanExporter, resource: Mapping[str, str]) -> Traces:
    """Makes spans and sends them by an exporter."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What is not sent when the process ends is lost: its end waits for no collector.
    provider = TracerProvider(
        resource=Resource.create({"service.name": "buildpool-gateway", **resource}),
        shutdown_on_exit=False,
    )
    sender = BatchSpanProcessor(
        exporter, max_queue_size=MAX_QUEUED_SPANS, schedule_delay_millis=SEND_EVERY_MS
    )
    provider.add_span_processor(sender)
    return Traces(provider.get_tracer("buildpool"))
