"""A collector of traces: it takes OTLP by gRPC, and keeps what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as far as tests look at it."""

    source: str
    """What service it is of."""
    name: str
    trace: str
    number: str
    parent: str
    """The number of the span above; empty: there is none."""
    begun: int
    ended: int
    """In nanoseconds."""
    attributes: dict[str, str]


@dataclass
class Collector(service_grpc.TraceServiceServicer):  # type: ignore[misc]
    """What was sent so far."""

    port: int = 0
    _spans: list[Span] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[Span]:
        """All of it."""
        with self._lock:
            return list(self._spans)

    def Export(  # noqa: N802 - the name is OpenTelemetry's
        self, request: service.ExportTraceServiceRequest, _: grpc.ServicerContext
    ) -> service.ExportTraceServiceResponse:
        """Takes spans."""
        found = [
            Span(
                source=_text(resource.resource.attributes).get("service.name", ""),
                name=span.name,
                trace=span.trace_id.hex(),
                number=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                begun=span.start_time_unix_nano,
                ended=span.end_time_unix_nano,
                attributes=_text(span.attributes),
            )
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += found
        return service.ExportTraceServiceResponse()


def _text(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}


@contextmanager
def a_collector(address: str = "127.0.0.1") -> Iterator[Collector]:
    """One that listens for the length of a block."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    service_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port(f"{address}:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(grace=None).wait()
