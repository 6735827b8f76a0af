"""Flags and their values, and what they do to the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final

import typer

from buildpool.core import naming
from buildpool.core.domains import domain_in, parse_domain
from buildpool.core.errors import BuildpoolError

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_MOST_BYTES: Final = 65536
"""Of that file: more than any resolver has in it."""
log = logging.getLogger(__name__)


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
ClusterDomain = Annotated[
    str,
    typer.Option(
        help="Domain of the cluster, with which full names of Services end; empty: as this pod's "
        "/etc/resolv.conf says, or else cluster.local.",
        envvar="BUILDPOOL_CLUSTER_DOMAIN",
    ),
]
LogFormatFlag = Annotated[LogFormat, typer.Option(envvar="BUILDPOOL_LOG_FORMAT")]
LogLevelFlag = Annotated[LogLevel, typer.Option(envvar="BUILDPOOL_LOG_LEVEL")]


def set_up_logging(log_format: LogFormat, log_level: LogLevel) -> None:
    """For all of the process, from now on."""
    from buildpool import process

    process.set_up_logging(as_json=log_format is LogFormat.JSON, level=log_level)


def cluster_domain_of(text: str, *, namespace: str, resolv_conf: Path = RESOLV_CONF) -> str:
    """The domain that was written; where none was, the one by which this pod finds Services.

    Raises BuildpoolError for what is no domain.
    """
    if text:
        try:
            return parse_domain(text)
        except ValueError as error:
            raise BuildpoolError(f"--cluster-domain: {error}") from None
    found = domain_in(_read(resolv_conf), namespace)
    if found is None:
        log.info(
            "%s does not say which domain the cluster has; %s is assumed. "
            "If it is another one, set --cluster-domain.",
            *(resolv_conf, naming.USUAL_DOMAIN),
        )
        return naming.USUAL_DOMAIN
    log.info("By %s, the domain of the cluster is %s.", resolv_conf, found)
    return found


def _read(resolv_conf: Path) -> str:
    """What the file holds; nothing where it cannot be read."""
    try:
        with resolv_conf.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""


def networks_of(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks that were written; raises BuildpoolError for what is none."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise BuildpoolError(f"--deny-network: {error}; write it like 10.0.0.0/8") from None
    return tuple(networks)
