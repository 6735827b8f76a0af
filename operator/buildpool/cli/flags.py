"""Flags and their values, and what they do to the log."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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
LogFormatFlag = Annotated[LogFormat, typer.Option(envvar="BUILDPOOL_LOG_FORMAT")]
LogLevelFlag = Annotated[LogLevel, typer.Option(envvar="BUILDPOOL_LOG_LEVEL")]


def set_up_logging(log_format: LogFormat, log_level: LogLevel) -> None:
    """For all of the process, from now on."""
    from buildpool import process

    process.set_up_logging(as_json=log_format is LogFormat.JSON, level=log_level)
