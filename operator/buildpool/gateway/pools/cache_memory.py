"""What is remembered of the shared caches of one pool, as this gateway's builds use them.

A router that starts again begins with none of it: caches are exported once more then, and variants
have the same numbers as before unless two of them want the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeVar

from buildpool.core.routing.variants import Variants

MAX_EXPORTS: Final = 4096
"""Caches of one pool whose last export is remembered."""
MAX_PROJECTS: Final = 4096
"""Projects of one pool whose variants are remembered."""
V = TypeVar("V")


class CacheMemory:
    """The shared caches of one pool. For one event loop."""

    def __init__(self) -> None:
        self._exports: dict[str, datetime] = {}
        """When each was last exported, by reference, the earliest first."""
        self._variants: dict[str, Variants] = {}
        """The variants of each project, by the repository of its caches."""

    @property
    def exported(self) -> Mapping[str, datetime]:
        """When each cache was last exported, as far as it is known."""
        return self._exports

    def note_exports(self, references: Iterable[str], now: datetime) -> None:
        """A build exports these caches now."""
        for reference in references:
            _put_last(self._exports, reference, now, MAX_EXPORTS)

    def forget_exports(self, references: Iterable[str]) -> None:
        """The build that exports these caches has failed: the next one exports them again."""
        for reference in references:
            self._exports.pop(reference, None)

    def variants(self, repository: str) -> Variants:
        """The variants of a project that were built last."""
        found = self._variants.get(repository) or Variants()
        _put_last(self._variants, repository, found, MAX_PROJECTS)
        return found


def _put_last(mapping: dict[str, V], key: str, value: V, most: int) -> None:
    mapping.pop(key, None)
    mapping[key] = value
    while len(mapping) > most:
        del mapping[next(iter(mapping))]
