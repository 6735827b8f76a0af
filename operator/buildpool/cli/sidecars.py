"""The commands that run in pools' pods. The operator writes their flags there.

The standard library parses them: what parses the other commands takes a third of the memory that a
guard has, and one runs beside each builder. So this must never import a library, nor a program
before its command is known.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from buildpool.core import naming

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


def cache_keeper(arguments: Sequence[str]) -> None:
    """Look after the storage of a managed cache registry; runs beside it."""
    flags = _flags(cache_keeper)
    flags.add_argument("--storage", type=Path, required=True, help="The registry's root directory.")
    flags.add_argument("--capacity", type=int, required=True, help="Room there is, in bytes.")
    flags.add_argument(
        "--retention", type=_span, required=True, help="How long an unused cache stays, as in 14d."
    )
    flags.add_argument(
        "--grace",
        type=_span,
        required=True,
        help="How long a build may come back for what it imported, as in 2h.",
    )
    flags.add_argument(
        "--certificates", type=Path, required=True, help="Folder with ca.pem, cert.pem, key.pem."
    )
    flags.add_argument("--port", type=int, default=naming.KEEPER_PORT, help="Port to listen on.")
    flags.add_argument(
        "--registry-port",
        type=int,
        default=naming.CACHE_PORT,
        help="Port of the registry in the same pod.",
    )
    flags.add_argument(
        "--interval", type=_span, default="1m", help="Pause between two rounds, as in 1m."
    )
    flags.add_argument(
        "--scrub",
        type=lambda text: _span(text) or None,
        default="24h",
        help="How often each layer is read again, as in 7d; 0s: never.",
    )
    given = flags.parse_args(arguments)

    from buildpool.process import run_until_signalled
    from buildpool.sidecars.keeper.server import KeeperSettings, keep

    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    run_until_signalled(keep(KeeperSettings(**vars(given))))


def cache_guard(arguments: Sequence[str]) -> None:
    """Pass on only caches that are whole; runs beside each builder of a pool with such a cache."""
    flags = _flags(cache_guard)
    flags.add_argument("--registry", required=True, help="host:port of the managed cache registry.")
    flags.add_argument("--keeper", required=True, help="host:port of its keeper.")
    flags.add_argument(
        "--server-certificates",
        type=Path,
        required=True,
        help="Folder with what is shown to the daemon.",
    )
    flags.add_argument(
        "--client-certificates",
        type=Path,
        required=True,
        help="Folder with what is shown to the registry.",
    )
    flags.add_argument("--port", type=int, default=naming.GUARD_PORT, help="Port to listen on.")
    given = flags.parse_args(arguments)

    from buildpool.process import run_until_signalled
    from buildpool.sidecars.guard.server import GuardSettings, guard

    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    run_until_signalled(guard(GuardSettings(**vars(given))))


Command = Callable[[Sequence[str]], None]
"""What runs a command; it gets what follows the command's name."""

COMMANDS: Final[dict[str, Command]] = {"cache-keeper": cache_keeper, "cache-guard": cache_guard}


def _flags(command: Command) -> argparse.ArgumentParser:
    name = next(name for name, known in COMMANDS.items() if known is command)
    return argparse.ArgumentParser(
        f"buildpool {name}", description=command.__doc__, allow_abbrev=False
    )


def _span(text: str) -> timedelta:
    from buildpool.core.api.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
