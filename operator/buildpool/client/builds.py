"""Builds that a builder of buildx has a record of, as buildx lists them. Pure.

What buildx prints comes from daemons, and daemons have it from whoever builds: names and refs are
hostile until they are parsed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import yaml

from buildpool.client.refusals import one_line
from buildpool.client.values import Output
from buildpool.core.errors import BuildpoolError
from buildpool.core.explanation.layout import in_columns, rough

MAX_STEPS: Final = 100_000
"""What one build is shown to have: its daemon may say anything."""


class Result(StrEnum):
    """What became of a build, in buildx's words."""

    RUNNING = "Running"
    COMPLETED = "Completed"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Build:
    """One build."""

    ref: str
    """What it is called at its builder, without the names of builder and node."""
    pool: str
    """The node of the builder: the pool's name."""
    name: str
    """What was built, as buildx names it: a folder, a Git repository, a target."""
    result: Result
    begun: datetime
    ended: datetime | None
    """None: it runs."""
    steps: int
    cached: int
    """How many of the steps were found in a cache."""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.result is Result.RUNNING


def builds_in(listed: str) -> list[Build]:
    """The builds in a list of ``buildx history ls --format=json``, the latest first.

    What is none is left out, such as what a later buildx may say beside it.
    """
    found = [build for line in listed.splitlines() if (build := _build(line)) is not None]
    return sorted(found, key=lambda build: (not build.is_running, -build.begun.timestamp()))


def _build(line: str) -> Build | None:
    try:
        said = json.loads(line)
        builder, pool, ref = said["ref"].split("/")
        ended = said.get("completed_at")
        build = Build(
            ref=ref,
            pool=pool,
            name=str(said.get("name") or ""),
            result=Result(said["status"]),
            begun=_moment(said["created_at"]),
            ended=None if ended is None else _moment(ended),
            steps=_count(said.get("total_steps")),
            cached=_count(said.get("cached_steps")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return build if builder and _is_ref(ref) else None


def _is_ref(text: str) -> bool:
    """Whether it can be an argument of a program: a daemon's ref is 25 letters and digits."""
    return text.isascii() and text.isalnum() and len(text) <= 128


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(text)
    found.timestamp()
    return found


def _count(number: object) -> int:
    return min(max(number, 0), MAX_STEPS) if type(number) is int else 0


def chosen(builds: Sequence[Build], ref: str) -> Build:
    """The build of this ref, or whose ref begins so; a BuildpoolError: none, or several."""
    found = [build for build in builds if build.ref.startswith(ref)] if ref else []
    exact = [build for build in found if build.ref == ref]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if exact:
        raise BuildpoolError(
            f"pools {' and '.join(build.pool for build in exact)} both have a build {ref}; look at "
            f"each: docker buildx history logs"
        )
    if found:
        some = ", ".join(build.ref for build in found[:5])
        raise BuildpoolError(f"{len(found)} builds begin with {ref} ({some}); give more of the ref")
    raise BuildpoolError(
        f"no build is known that begins with {one_line(ref)!r}; list them: kubectl buildpool builds"
    )


_HEAD: Final = ("REF", "POOL", "RESULT", "BEGAN", "TOOK", "STEPS", "CACHED", "NAME")


def table(builds: Sequence[Build], *, now: datetime) -> str:
    """The builds for a terminal, a line for each."""
    return "\n".join(in_columns([_HEAD, *(tuple(_row(build, now)) for build in builds)]))


def _row(build: Build, now: datetime) -> Iterator[str]:
    yield build.ref
    yield one_line(build.pool)
    yield build.result
    # Clocks differ: what has begun in a moment has begun now.
    yield f"{rough(max(now - build.begun, timedelta(0)))} ago"
    yield rough(max((build.ended or now) - build.begun, timedelta(0)))
    yield str(build.steps)
    yield str(build.cached)
    yield one_line(build.name) or "-"


def output(builds: Sequence[Build], form: Output) -> str:
    """The builds for other programs."""
    if form is Output.NAME:
        return "\n".join(build.ref for build in builds)
    items = [_plain(build) for build in builds]
    return json.dumps(items, indent=4) if form is Output.JSON else yaml.safe_dump(items).rstrip()


def _plain(build: Build) -> dict[str, Any]:
    return {
        "ref": build.ref,
        "pool": build.pool,
        "name": build.name,
        "result": build.result.value,
        "begun": build.begun.isoformat(),
        "ended": build.ended.isoformat() if build.ended else None,
        "steps": build.steps,
        "cached": build.cached,
    }
