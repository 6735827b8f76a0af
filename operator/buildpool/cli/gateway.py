"""The commands of the gateway's pods: the router, what Envoy starts with, and the end of a pod."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from buildpool.cli.flags import (
    LogFormat,
    LogFormatFlag,
    LogLevel,
    LogLevelFlag,
    WatchNamespace,
    set_up_logging,
)
from buildpool.core import naming
from buildpool.settings import GatewaySettings

SOCKETS = Annotated[
    Path, typer.Option(help="Folder of the sockets by which router and Envoy speak.")
]
GOAWAY_FILE = Annotated[
    Path | None,
    typer.Option(help="The file by which a pod that ends has Envoy send its clients elsewhere."),
]


def gateway(
    namespace: Annotated[
        str, typer.Option(help="The operator's own namespace.", envvar="POD_NAMESPACE")
    ],
    watch_namespace: WatchNamespace = None,
    identity: Annotated[
        str, typer.Option(help="Name in pools' status; the pod's name.", envvar="POD_NAME")
    ] = socket.gethostname(),
    drain_seconds: Annotated[
        int, typer.Option(help="Envoy's --drain-time-s: more than the longest build.")
    ] = 14400,
    port: Annotated[int, typer.Option(help="Port on which Envoy takes connections.")] = naming.PORT,
    sockets: SOCKETS = Path("/sockets"),
    trace_endpoint: Annotated[
        str, typer.Option(help="URL of a collector of traces that takes OTLP as JSON by HTTP.")
    ] = "",
    memory_file: Annotated[
        Path | None,
        typer.Option(help="Where it notes which connection builds where, for the next process."),
    ] = None,
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics; 0 turns it off.")] = 8082,
    health_port: Annotated[
        int, typer.Option(help="Port of /healthz and /readyz; 0 turns it off.")
    ] = 8083,
    log_format: LogFormatFlag = LogFormat.JSON,
    log_level: LogLevelFlag = LogLevel.INFO,
) -> None:
    """Run the router beside an Envoy."""
    from buildpool.gateway import server

    set_up_logging(log_format, log_level)
    settings = GatewaySettings(
        namespace=namespace,
        identity=identity,
        watch_namespaces=tuple(watch_namespace or ()),
        drain_time=timedelta(seconds=drain_seconds),
        port=port,
        sockets=sockets,
        trace_endpoint=trace_endpoint,
        memory_file=memory_file,
        metrics_port=metrics_port,
        health_port=health_port,
    )
    asyncio.run(server.main(settings))


def gateway_bootstrap(
    output: Annotated[
        Path | None, typer.Option(help="The file to write; absent: standard output.")
    ] = None,
    sockets: SOCKETS = Path("/sockets"),
    memory: Annotated[
        int, typer.Option(help="Bytes of memory that Envoy may have; 0: any number.")
    ] = 0,
    goaway_file: GOAWAY_FILE = None,
) -> None:
    """Write the configuration that Envoy starts with."""
    from buildpool.gateway.xds.bootstrap import bootstrap

    static = bootstrap(
        sockets=sockets,
        memory=memory,
        goaway_file=str(goaway_file or ""),
    )
    if goaway_file is not None:
        goaway_file.write_text("0")
    text = json.dumps(static, indent=2)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n")


def drain_gateway(
    sockets: SOCKETS = Path("/sockets"),
    settle_seconds: Annotated[
        float, typer.Option(help="How long proxies may still send new connections.")
    ] = 30.0,
    patience_seconds: Annotated[
        float, typer.Option(help="How long builds that run are waited for.")
    ] = 14400.0,
    goaway_file: GOAWAY_FILE = None,
) -> None:
    """Wait until nothing runs through this pod's Envoy any more: the pod's preStop hook."""
    from buildpool.gateway.draining import drain
    from buildpool.gateway.xds.bootstrap import ADMIN_SOCKET

    is_quiet = asyncio.run(
        drain(
            admin=sockets / ADMIN_SOCKET,
            settle=timedelta(seconds=settle_seconds),
            patience=timedelta(seconds=patience_seconds),
            goaway_file=goaway_file,
        )
    )
    typer.echo("nothing runs any more" if is_quiet else "builds still run")
