"""The commands that run beside a pool's cache. The operator writes their flags into pods."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from buildpool.core import naming

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


def cache_keeper(
    storage: Annotated[Path, typer.Option(help="The registry's root directory.")],
    capacity: Annotated[int, typer.Option(help="Room there is, in bytes.")],
    retention: Annotated[str, typer.Option(help="How long an unused cache stays, as in 14d.")],
    grace: Annotated[
        str, typer.Option(help="How long a build may come back for what it imported, as in 2h.")
    ],
    certificates: Annotated[Path, typer.Option(help="Folder with ca.pem, cert.pem, key.pem.")],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = naming.KEEPER_PORT,
    registry_port: Annotated[
        int, typer.Option(help="Port of the registry in the same pod.")
    ] = naming.CACHE_PORT,
    interval: Annotated[str, typer.Option(help="Pause between two rounds, as in 1m.")] = "1m",
) -> None:
    """Look after the storage of a managed cache registry; runs beside it."""
    from buildpool.process import run_until_signalled
    from buildpool.sidecars.keeper.server import KeeperSettings, keep

    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    settings = KeeperSettings(
        storage=storage,
        capacity=capacity,
        retention=_span(retention),
        grace=_span(grace),
        certificates=certificates,
        port=port,
        registry_port=registry_port,
        interval=_span(interval),
    )
    run_until_signalled(keep(settings))


def cache_guard(
    registry: Annotated[str, typer.Option(help="host:port of the managed cache registry.")],
    keeper: Annotated[str, typer.Option(help="host:port of its keeper.")],
    server_certificates: Annotated[
        Path, typer.Option(help="Folder with what is shown to the daemon.")
    ],
    client_certificates: Annotated[
        Path, typer.Option(help="Folder with what is shown to the registry.")
    ],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = naming.GUARD_PORT,
) -> None:
    """Pass on only caches that are whole; runs beside each builder of a pool with such a cache."""
    from buildpool.process import run_until_signalled
    from buildpool.sidecars.guard.server import GuardSettings, guard

    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    settings = GuardSettings(
        registry=registry,
        keeper=keeper,
        server_certificates=server_certificates,
        client_certificates=client_certificates,
        port=port,
    )
    run_until_signalled(guard(settings))


def _span(text: str) -> timedelta:
    from buildpool.core.api.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
