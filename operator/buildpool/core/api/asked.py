"""Annotations by which users ask for something for a while: ``<what> until <moment>``.

Pure. They are anybody's who may change the pool. What is over asks for nothing, and may stay.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_SHAPE: Final = re.compile(r"(.{1,4096}) until ([0-9T:.Z+-]{10,40})", re.ASCII)
_SHOWN_CHARACTERS: Final = 64


def request(what: str, until: datetime) -> str:
    """The annotation that asks for it."""
    return f"{what} until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def read_request(text: str) -> tuple[str, datetime] | None:
    """What is asked for, and until when; None where it cannot be read."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    try:
        until = datetime.fromisoformat(found[2])
        return (found[1], until.astimezone(UTC)) if until.tzinfo else None
    except (ValueError, OverflowError):
        return None


def quoted(annotation: str, text: str) -> str:
    """A request as a message names it: anything may be written there."""
    return f"{annotation}={text[:_SHOWN_CHARACTERS]}"
