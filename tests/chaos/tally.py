"""What the record of a campaign is worth: tables, and a bound of the share of builds lost.

Pure: values in, text out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from statistics import median
from typing import Final

from chaos.records import Build, BuildKind, Disruption, Record, Result
from chaos.schedule import Kind

CONFIDENCE: Final = 0.95
AFTERMATH: Final = timedelta(seconds=15)
"""How long before a build a disruption may have been that still has to do with its loss."""


def upper_bound(lost: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The share of losses that is not exceeded, with this confidence (one-sided Clopper-Pearson).

    It is the share at which so few losses, or fewer, would be as unlikely as ``1 - confidence``.
    For none lost it is about ``3 / total``.
    """
    if not 0 <= lost <= total:
        raise ValueError(f"{lost} of {total} cannot be lost")
    if lost == total:
        return 1.0
    low, high = lost / total, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _chance_of_at_most(lost, total, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _chance_of_at_most(lost: int, total: int, share: float) -> float:
    """The binomial distribution function, by logarithms: its factors leave the range of floats."""
    if share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    return math.fsum(
        math.exp(
            math.lgamma(total + 1)
            - math.lgamma(count + 1)
            - math.lgamma(total - count + 1)
            + count * math.log(share)
            + (total - count) * math.log1p(-share)
        )
        for count in range(lost + 1)
    )


def verdict(record: Record) -> str:
    """The result of a campaign in one line."""
    lost, total = len(record.lost), len(record.builds)
    done, refused = len(record.results(Result.DONE)), len(record.results(Result.PROTECTED))
    bound = 100 * upper_bound(lost, total)
    return (
        f"{record.name}: lost {lost}/{total} builds through {done} disruptions, beside {refused} "
        f"that were refused; with {CONFIDENCE:.0%} confidence at most {bound:.2g} %"
    )


def report(record: Record) -> str:
    """Everything that is worth reading of a campaign."""
    parts = [
        f"=== {record.name}, seed {record.seed}",
        _table(("disruption", *Result), _disruption_rows(record.disruptions)),
        _table(("build", "ok", "lost", "median s", "longest s"), _build_rows(record.builds)),
        *(
            f"failed: {one.kind} at {_seconds(one.started)} s: {one.detail}"
            for one in record.results(Result.FAILED)
        ),
        *(_loss(build, record.disruptions) for build in record.lost),
        _settled(record),
        verdict(record),
    ]
    return "\n\n".join(parts)


def meanwhile(build: Build, disruptions: Sequence[Disruption]) -> tuple[Disruption, ...]:
    """The disruptions during a build, and those shortly before it."""
    return tuple(
        one
        for one in disruptions
        if one.started <= build.ended and one.ended >= build.started - AFTERMATH
    )


def _disruption_rows(disruptions: Sequence[Disruption]) -> Iterator[tuple[str, ...]]:
    seen = Counter((one.kind, one.result) for one in disruptions)
    for kind in Kind:
        yield kind, *(str(seen[kind, result] or "") for result in Result)
    all_kinds = Counter(one.result for one in disruptions)
    yield "all", *(str(all_kinds[result]) for result in Result)


def _build_rows(builds: Sequence[Build]) -> Iterator[tuple[str, ...]]:
    for kind in BuildKind:
        yield _build_row(kind, [build for build in builds if build.kind is kind])
    yield _build_row("all", builds)


def _build_row(title: str, builds: Sequence[Build]) -> tuple[str, ...]:
    lost = sum(build.is_lost for build in builds)
    times = [build.took.total_seconds() for build in builds if not build.is_lost]
    figures = (f"{median(times):.1f}", f"{max(times):.1f}") if times else ("", "")
    return title, str(len(builds) - lost), str(lost or ""), *figures


def _table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [tuple(heads), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _loss(build: Build, disruptions: Sequence[Disruption]) -> str:
    head = (
        f"lost: {build.kind}, started at {_seconds(build.started)} s, "
        f"after {_seconds(build.took)} s: {build.failure}"
    )
    before = (
        f"  {_seconds(one.started - build.started):>6} s  {one.kind} ({one.result}) {one.detail}"
        for one in meanwhile(build, disruptions)
    )
    said = (f"  | {line}" for line in build.output.splitlines())
    return "\n".join([head, *map(str.rstrip, before), *said])


def _settled(record: Record) -> str:
    if record.settled_after is None:
        return f"{record.name} did not settle: {record.trouble}"
    return f"{record.name} settled {_seconds(record.settled_after)} s after the last build"


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():.1f}"
