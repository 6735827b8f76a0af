"""A collector of traces: it takes OTLP by HTTP, and keeps what it was sent.

The router sends JSON, and daemons and buildx send protobuf. What reads that here is older than
they are: in it, what is called scope spans now has its old name, and the same number.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

PATH = "/v1/traces"


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
class Collector:
    """What was sent so far."""

    endpoint: str = ""
    requests: int = 0
    """How often somebody sent something, to any path."""
    _spans: list[Span] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[Span]:
        """All of it."""
        with self._lock:
            return list(self._spans)

    def take(self, content: bytes, kind: str) -> None:
        """A message of this type."""
        found = list(_of_json(json.loads(content)) if "json" in kind else _of_protobuf(content))
        with self._lock:
            self._spans += found


def _of_json(message: dict[str, Any]) -> Iterator[Span]:
    for resource in message["resourceSpans"]:
        source = _text(resource["resource"]["attributes"]).get("service.name", "")
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Span(
                    source=source,
                    name=span["name"],
                    trace=span["traceId"].lower(),
                    number=span["spanId"].lower(),
                    parent=span.get("parentSpanId", "").lower(),
                    begun=int(span["startTimeUnixNano"]),
                    ended=int(span["endTimeUnixNano"]),
                    attributes=_text(span.get("attributes", ())),
                )


def _of_protobuf(content: bytes) -> Iterator[Span]:
    message = service.ExportTraceServiceRequest.FromString(content)
    for resource in message.resource_spans:
        source = _text(json_format.MessageToDict(resource.resource).get("attributes", ()))
        for scope in resource.instrumentation_library_spans:
            for span in scope.spans:
                attributes = json_format.MessageToDict(span).get("attributes", ())
                yield Span(
                    source=source.get("service.name", ""),
                    name=span.name,
                    trace=span.trace_id.hex(),
                    number=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    begun=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    attributes=_text(attributes),
                )


def _text(attributes: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {each["key"]: each.get("value", {}).get("stringValue", "") for each in attributes}


@contextmanager
def a_collector(address: str = "127.0.0.1") -> Iterator[Collector]:
    """One that listens for the length of a block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        """Answers for one connection."""

        def do_POST(self) -> None:
            """Takes spans."""
            content = self.rfile.read(int(self.headers["Content-Length"]))
            collector.requests += 1
            kind = self.headers["Content-Type"]
            if self.path == PATH:
                collector.take(content, kind)
            self.send_response(200 if self.path == PATH else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Tells nobody."""

    server = ThreadingHTTPServer((address, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    collector.endpoint = f"http://{address}:{server.server_port}{PATH}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
