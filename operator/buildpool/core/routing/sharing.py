"""Which shared cache a build imports and exports, where its client says nothing of one.

One cache for each project, part of it that is built, and architecture. What a client asks for by
itself is kept, and wins. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from buildpool.core.api import AffinityKey, Inject
from buildpool.core.api.brief import CacheBrief, ClientBrief
from buildpool.core.routing.affinity import Traits, key_of

PROJECT: Final = (AffinityKey.SOURCE, AffinityKey.IMAGE, AffinityKey.CONTEXT)
"""What names a project, the most exact first. Who builds does not: two projects of one client would
overwrite each other's cache for ever."""
FOLDER: Final = "auto"
"""Below it lie the caches that the gateway adds: apart from those that clients name."""
_LONGEST_SLUG: Final = 100
_LONGEST_NAME: Final = 255
"""Characters of a repository, its host included: a longer name fails the build, which never asked
for a cache."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a build asks for by itself."""

    imports: bool = False
    """Whether it names caches to import."""
    exports: bool = False
    """Whether it names caches to export."""
    is_no_cache: bool = False
    """Whether all of its steps shall run, whatever is cached."""


@dataclass(frozen=True, slots=True)
class Share:
    """What is added to a build: references of images in a registry."""

    imports: str | None = None
    exports: str | None = None


NOTHING: Final = Share()


def share(
    cache: CacheBrief,
    reference: str,
    client: ClientBrief,
    wish: Wish,
    *,
    exported: datetime | None,
    now: datetime,
) -> Share:
    """What is added to one build, whose project has this reference in the shared cache.

    ``exported`` is when a build of this gateway last exported it; None where that is not known.
    """
    if client.inject is Inject.NONE:
        return NOTHING
    is_due = exported is None or now - exported >= cache.export_interval
    writes = client.inject is Inject.FULL and not wish.exports and is_due
    reads = not wish.imports and not wish.is_no_cache
    return Share(reference if reads else None, reference if writes else None)


def reference_of(cache: CacheBrief, traits: Traits) -> str | None:
    """The cache of a project.

    None where nothing says which project a build is of, or its name would be too long.
    """
    key = key_of(traits, PROJECT)
    if key is None:
        return None
    kind, value = key
    # The digest tells apart what the readable part, which registries restrict, does not. Targets of
    # one repository have caches of their own: they would overwrite each other's.
    named = f"{kind.value}\0{value}" + f"\0{traits.part}" * bool(traits.part)
    digest = sha256(named.encode()).hexdigest()[:12]
    folder = f"{cache.location}/{FOLDER}/"
    room = _LONGEST_NAME - len(folder) - len(digest)
    if room < 0:
        return None
    return f"{folder}{_slug(value, min(room - 1, _LONGEST_SLUG))}{digest}:{cache.architecture}"


def lies_in(reference: str, cache: CacheBrief) -> bool:
    """Whether an image reference is one of the shared cache, however it is spelled."""
    name, location = _canonical(reference), cache.location
    # A location may be a host alone, as that of a managed cache is: then no image is the location.
    is_it = "/" in location and name == _canonical(location)
    return is_it or name.startswith(_canonical(f"{location}/_").removesuffix("_"))


def _canonical(reference: str) -> str:
    """A repository with its host, as clients read it, without tag and digest.

    Docker Hub goes without saying, and so do the usual ports. A Service has several names: nothing
    here knows the domain of the cluster, so any will do.
    """
    name = reference.lower().partition("@")[0]
    folder, slash, last = name.rpartition("/")
    name = f"{folder}{slash}{last.partition(':')[0]}"
    host, slash, path = name.partition("/")
    if not slash or not (set(host) & set(".:") or host == "localhost"):
        host, path = _HUB, name
    port, host = "".join(_PORT.findall(host)), _PORT.sub("", host)
    host = _SERVICE.sub(r"\1", host.removesuffix("."))
    if host in _HUB_NAMES and port in _USUAL_PORTS:
        host, path = _HUB, path if "/" in path else f"library/{path}"
    return f"{host}/{path}" if port in _USUAL_PORTS else f"{host}:{port}/{path}"


_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset(
    {_HUB, f"index.{_HUB}", f"registry-1.{_HUB}", "registry.hub.docker.com"}
)
_USUAL_PORTS: Final = ("", "443", "80")
_PORT: Final = re.compile(":0*([0-9]*)$")
_SERVICE: Final = re.compile(r"^([^.]+\.[^.]+)\.svc(\..*)?$", re.DOTALL)


def _slug(value: str, longest: int) -> str:
    """A readable part of a repository's name, ending with a dash; empty where nothing is left."""
    text = re.sub("[^a-z0-9]+", "-", value.lower()).strip("-")
    text = text[-longest:].strip("-") if longest > 0 else ""
    return f"{text}-" if text else ""
