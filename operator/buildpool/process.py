"""What each process has, whatever it does: a clock, a log, an end by signal, and pages.

Pages are for the kubelet (``/healthz``) and Prometheus (``/metrics``). They never ask the API
server anything: a cluster in trouble is no reason to restart a process, which could only lose time
by it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from buildpool import __version__

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Complaint = Callable[[], str | None]
"""What keeps a page from saying ``ok``; None: nothing does."""

_TEXT: Final = "[%(asctime)s] %(name)-20.20s [%(levelname)-8.8s] %(message)s"


def utc_now() -> datetime:
    """The present moment. The core gets it as an argument."""
    return datetime.now(UTC)


def set_up_logging(*, as_json: bool, level: str) -> None:
    """Has all of the process log to stderr; ``level`` is ``debug``, ``info`` or ``warning``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_json_lines() if as_json else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # Kopf tells of every handler it calls; what matters is told by the controller.
        logging.getLogger("kopf").setLevel(logging.WARNING)


def _json_lines() -> logging.Formatter:
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter

    class Lines(JsonFormatter):
        def add_fields(
            self,
            log_data: dict[str, Any],
            record: logging.LogRecord,
            message_dict: dict[str, Any],
        ) -> None:
            super().add_fields(log_data, record, message_dict)
            log_data["severity"] = _SEVERITIES.get(record.levelno, record.levelname.lower())

    # What Kopf hangs on the records of objects is its own.
    own = (*RESERVED_ATTRS, "k8s_skip", "k8s_ref", "settings")
    return Lines("%(message)s", timestamp=True, reserved_attrs=own)


_SEVERITIES: Final = {logging.WARNING: "warn", logging.CRITICAL: "fatal"}


def on_signal(end: Callable[[], object]) -> None:
    """From now on, a signal to end calls ``end``. Takes it from whoever had it before."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)


def run_until_signalled(program: Coroutine[Any, Any, None]) -> None:
    """Runs a program in an event loop of its own, and cancels it when a signal says to end."""

    async def cancelled_by_signal() -> None:
        task = asyncio.ensure_future(program)
        on_signal(task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancelled_by_signal())


@asynccontextmanager
async def serve(
    runner: web.BaseRunner, port: int, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serves on all addresses, of IPv4 and IPv6, for the length of a block. OSError: it cannot."""
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port, ssl_context=ssl_context).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def health_pages(port: int, pages: Mapping[str, Complaint]) -> AsyncIterator[None]:
    """Serves one page for each path for the length of a block: ``ok``, or 503 and why not.

    Nothing is served where the port is 0.
    """
    if not port:
        yield
        return
    app = web.Application()
    for path, complaint in pages.items():
        app.router.add_get(path, _page(complaint))
    async with serve(web.AppRunner(app, access_log=None), port):
        yield


def _page(complaint: Complaint) -> Callable[[web.Request], Coroutine[Any, Any, web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        why_not = complaint()
        if why_not is None:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"{why_not}\n")

    return answer


class ProcessMetrics:
    """What every process with metrics says of itself. In a registry of its own without another."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self.registry = own = registry or CollectorRegistry()
        self.build_info = Gauge(
            "buildpool_build_info",
            "1, with the version of the process.",
            ("version",),
            registry=own,
        )
        self.build_info.labels(__version__).set(1)


def serve_metrics(port: int, registry: CollectorRegistry) -> None:
    """Serves ``/metrics``, in a thread and until the process ends; nothing where the port is 0."""
    from prometheus_client import disable_created_metrics, start_http_server

    disable_created_metrics()  # type: ignore[no-untyped-call]
    if not port:
        return
    ProcessMetrics(registry)
    try:
        start_http_server(port, addr="::", registry=registry)  # IPv4, too
    except OSError:
        start_http_server(port, registry=registry)  # this machine has no IPv6
