"""Completion inside of kubectl: it runs ``kubectl_complete-buildpool`` with the words so far.

What is printed is what Cobra expects: a suggestion a line, and at the end a number that says what
else the shell may do. Typer has the suggestions; it is asked as its script for the shell fish asks.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from typing import Final

_NO_FILES: Final = ":4"
"""The shell suggests no files, even if there is no suggestion."""
_FILES: Final = ":0"
_TAKE_FILES: Final = frozenset({"--kubeconfig", "render"})
"""Words that a file follows."""


def complete() -> None:
    """Prints what the last word may become; never an error, which would land in the user's line."""
    words = sys.argv[1:] or [""]
    said = io.StringIO()
    with redirect_stdout(said), suppress(Exception, SystemExit):
        _suggest(words)
    lines = [line for line in said.getvalue().splitlines() if line.strip()]
    directive = _FILES if words[-2:-1] and words[-2] in _TAKE_FILES else _NO_FILES
    sys.stdout.write("".join(f"{line}\n" for line in (*lines, directive)))


def _suggest(words: Sequence[str]) -> None:
    """Has Typer print its suggestions, each with its help behind a tab."""
    from buildpool.cli.app import app

    *before, last = words
    os.environ["_BUILDPOOL_COMPLETE"] = "complete_fish"
    os.environ["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    line = f"{shlex.join(['buildpool', *before])} {shlex.quote(last) if last else ''}"
    os.environ["_TYPER_COMPLETE_ARGS"] = line
    app(prog_name="buildpool")
