"""What the keeper of a managed cache tells of it: a contract between two programs. Pure.

Imports nothing of the operator's models: the keeper is a small program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Usage:
    """What the keeper of a managed cache tells of it. Sizes in bytes."""

    used: int = 0
    capacity: int = 0
    refs: int = 0
    """Caches that are kept: tags, over all repositories."""
    reclaimed: int = 0
    """Freed since the keeper started."""
    damaged: int = 0
    """Blobs that were found damaged and removed, since the keeper started."""
    unhealed: tuple[str, ...] = ()
    """Refs that were removed because of damage and that no build has exported again yet."""
    is_full: bool = False
    """Whether there is no room, and nothing that could be removed to make some."""
    is_failing: bool = False
    """Whether the volume itself fails, so that damage is no longer removed."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """What a keeper answered; fields of another version are dropped."""
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        return cls(**(known | {"unhealed": tuple(known.get("unhealed", ()))}))
