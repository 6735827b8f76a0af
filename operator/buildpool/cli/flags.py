"""Flags and their values, and what they do to the log."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

import typer

from buildpool.core.errors import BuildpoolError


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class Page(StrEnum):
    """The generated pages of ``docs/reference``, by file name."""

    POOL = "pool"
    REASONS = "reasons"
    METRICS = "metrics"


WatchNamespace = Annotated[
    list[str] | None,
    typer.Option(
        help="Namespace whose pools are looked after; repeat it for more. Absent: all.",
        envvar="BUILDPOOL_WATCH_NAMESPACE",
    ),
]
DenyNetwork = Annotated[
    list[str] | None,
    typer.Option(
        help="Network in which no cache registry is asked how it is, such as 100.64.0.0/10; "
        "repeat it for more.",
        envvar="BUILDPOOL_DENY_NETWORK",
    ),
]
LogFormatFlag = Annotated[LogFormat, typer.Option(envvar="BUILDPOOL_LOG_FORMAT")]
LogLevelFlag = Annotated[LogLevel, typer.Option(envvar="BUILDPOOL_LOG_LEVEL")]


def set_up_logging(log_format: LogFormat, log_level: LogLevel) -> None:
    """For all of the process, from now on."""
    from buildpool import process

    process.set_up_logging(as_json=log_format is LogFormat.JSON, level=log_level)


def networks_of(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks that were written; raises BuildpoolError for what is none."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise BuildpoolError(f"--deny-network: {error}; write it like 10.0.0.0/8") from None
    return tuple(networks)
