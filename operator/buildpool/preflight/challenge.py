"""How a registry wants to be asked: its WWW-Authenticate headers, read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PART: Final = re.compile(
    rf"[\s,]*(?:(?P<key>{_WORD})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s,\"]*))"
    rf"|(?P<scheme>{_WORD})(?=[\s,]|$))"
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate."""

    scheme: str
    """Lower-case: ``basic``, ``bearer``, or another one that is of no use here."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Keys are lower-case."""


def best(headers: Iterable[str]) -> Challenge | None:
    """The way to take: a token before a password, as BuildKit chooses; None: neither is offered."""
    offered = [challenge for header in headers for challenge in parse(header)]
    return next((c for wish in ("bearer", "basic") for c in offered if c.scheme == wish), None)


def parse(header: str) -> Iterator[Challenge]:
    """All challenges of one header, up to where it is garbled."""
    current: Challenge | None = None
    position = 0
    while match := _PART.match(header, position):
        position = match.end()
        if match["scheme"]:
            if current is not None:
                yield current
            current = Challenge(match["scheme"].lower())
        elif current is not None:
            value = match["bare"]
            if match["quoted"] is not None:
                value = re.sub(r"\\(.)", r"\1", match["quoted"])
            current.parameters.setdefault(match["key"].lower(), value)
    if current is not None:
        yield current
