"""Which builder a build goes to: the one that has built the same before, as long as it has room.

Rendezvous hashing: each pair of a key and a builder has a weight of its own, and the heaviest
builder is the key's favourite. Where builders come and go, only the keys of these move. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from buildpool.core.api import AffinityKey


@dataclass(frozen=True, slots=True)
class Candidate:
    """A builder that takes builds."""

    name: str
    """Its name, which its successor of the same number, on the same volume, has, too."""
    used: int
    """Slots that are taken."""
    slots: int

    @property
    def has_room(self) -> bool:
        """Whether it has a free slot."""
        return self.used < self.slots


@dataclass(frozen=True, slots=True)
class Traits:
    """What a build says about itself."""

    source: str = ""
    """The repository that it is built from."""
    part: str = ""
    """What of it is built, where that is not all."""
    platforms: tuple[str, ...] = ()
    """What it is built for, sorted; none where that is the builder's own platform."""
    inputs: str = ""
    """A digest of its build arguments and named contexts, where it has any that count."""
    image: str = ""
    """The name of the image that it exports, without its tag."""
    context: str = ""
    """The key by which its client shares what it uploads."""
    client: str = ""
    """Who builds."""


def key_of(traits: Traits, order: Sequence[AffinityKey]) -> tuple[AffinityKey, str] | None:
    """The first of these traits that a build has; None where it has none."""
    values = {
        AffinityKey.SOURCE: traits.source,
        AffinityKey.IMAGE: traits.image,
        AffinityKey.CONTEXT: traits.context,
        AffinityKey.CLIENT: traits.client,
    }
    return next(((kind, values[kind]) for kind in order if values[kind]), None)


def ranked(key: str, names: Iterable[str]) -> list[str]:
    """Builders by how much a key likes them, the favourite first."""
    return sorted(names, key=lambda name: (_weight(key, name), name), reverse=True)


@dataclass(frozen=True, slots=True)
class Choice:
    """The builder of a build."""

    name: str
    is_favourite: bool
    """Whether it is the one that the build's key likes most."""


def choose(key: str | None, candidates: Sequence[Candidate]) -> Choice | None:
    """Who takes a build: the key's favourite if it has room, otherwise who is least loaded.

    None only where there is nobody. Without any room, the least loaded one takes it all the same:
    whoever asks has decided already that the build shall run.
    """
    if not candidates:
        return None
    names = ranked(key or "", (candidate.name for candidate in candidates))
    placement = {name: number for number, name in enumerate(names)}
    found = min(candidates, key=lambda candidate: (candidate.used, placement[candidate.name]))
    if key is not None:
        favourite = next(c for c in candidates if c.name == names[0])
        found = favourite if favourite.has_room else found
    return Choice(found.name, key is not None and found.name == names[0])


def _weight(key: str, name: str) -> bytes:
    return blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
