"""Flags of every command that serves, and what they do to the log."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Annotated

import kopf
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
    """Kopf's, for all of the process: it writes the lines of a JSON log."""
    kopf.configure(
        debug=log_level is LogLevel.DEBUG,
        quiet=log_level is LogLevel.WARNING,
        log_format=kopf.LogFormat.JSON if log_format is LogFormat.JSON else kopf.LogFormat.PLAIN,
    )
    if log_level is not LogLevel.DEBUG:
        # Kopf tells of every handler it calls; what matters is told by the controller.
        logging.getLogger("kopf").setLevel(logging.WARNING)
