"""The entry point: hands the command to what parses it, which it imports only then."""

from __future__ import annotations

import sys

from buildpool.cli import sidecars
from buildpool.core.errors import BuildpoolError, InvalidSpecError


def main() -> None:
    """Runs the command; a mistake of the user's is one line, the first one if there are more."""
    command, *arguments = sys.argv[1:] or [""]
    try:
        if command in sidecars.COMMANDS:
            sidecars.COMMANDS[command](arguments)
        else:
            from buildpool.cli.app import app

            app()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "buildpool":
            raise
        if error.name == "fcntl":
            missing = f"{command} works on Linux and macOS only"
        else:
            missing = (
                f"{command} needs {error.name}, which is not installed; in a checkout of buildpool:"
                " pip install '.[operator]'"
            )
        sys.stderr.write(f"error: {missing}\n")
        sys.exit(1)
    except BuildpoolError as error:
        first = error.problems[0] if isinstance(error, InvalidSpecError) else error
        line = "".join(each if each.isprintable() else "?" for each in " ".join(str(first).split()))
        sys.stderr.write(f"error: {line}\n")
        sys.exit(1)
