"""How an explanation looks in a terminal: labels, paragraphs, moments, numbers.

Pure. Knows nothing of pools.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from textwrap import wrap
from typing import Final, NamedTuple

from buildpool.core.api.duration import format_duration

WIDTH_COLUMNS: Final = 100
"""Columns of a terminal. Only a command is longer if need be: it has to be copied whole."""


class Row(NamedTuple):
    """What is said about one thing."""

    label: str
    paragraphs: Sequence[str]
    """Each begins a line; one that begins with ``kubectl`` is a command."""


def laid_out(rows: Iterable[Row]) -> Iterator[str]:
    """Labels on the left, what is said on the right."""
    for label, paragraphs in rows:
        for number, text in enumerate(paragraphs):
            yield from hung(f"{'' if number else label:{_INDENT_COLUMNS}}", text)


def hung(head: str, text: str) -> Iterator[str]:
    """The text beside its head, and below where there is no room beside it."""
    if text.startswith("kubectl "):
        yield head + text
        return
    indent = len(head)
    if indent > WIDTH_COLUMNS - _NARROWEST_COLUMNS and len(text) > WIDTH_COLUMNS - indent:
        yield head.rstrip()
        head, indent = " " * 6, 6
    lines = wrap(text, WIDTH_COLUMNS - indent, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines or [""]):
        yield f"{' ' * indent if number else head}{line}".rstrip()


_INDENT_COLUMNS: Final = 14
_NARROWEST_COLUMNS: Final = 36
"""Columns that a text needs in order to be readable."""


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of as many cells each as lines, with each column as wide as it has to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def sentence(text: str) -> str:
    """The text with its full stop."""
    return text if not text or text.endswith((".", "!", "?", "…")) else f"{text}."


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


_LISTED: Final = 5


def at(moment: datetime, now: datetime) -> str:
    """A moment to the second, with its date where that is not today's."""
    moment, today = _in_utc(moment), now.astimezone(UTC).date()
    day = "" if moment.date() == today else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:%H:%M:%S} UTC ({_distance(moment, now)})"


def on(moment: datetime, now: datetime) -> str:
    """A day that is far away."""
    return f"{_in_utc(moment):%Y-%m-%d} ({_distance(moment, now)})"


def later(moment: datetime, span: timedelta) -> datetime:
    """A moment, and a span after it; the end of time where there is no such moment."""
    try:
        return moment + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # at either end of time, where hours do not matter
        return moment.replace(tzinfo=UTC)


def _distance(moment: datetime, now: datetime) -> str:
    text = rough(abs(moment - now))
    return f"in {text}" if moment > now else f"{text} ago"


def rough(span: timedelta) -> str:
    """A span as exactly as people want it: a long one without its seconds."""
    unit = next((unit for least, unit in _UNITS if span >= least), timedelta(seconds=1))
    return format_duration(span - span % unit)


_UNITS: Final = (
    (timedelta(days=7), timedelta(days=1)),
    (timedelta(days=1), timedelta(hours=1)),
    (timedelta(minutes=1), timedelta(minutes=1)),
)
"""From which span on which unit is exact enough."""
