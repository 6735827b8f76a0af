"""Which shared caches a build imports and exports, where its client says nothing of any.

One repository for each project and part of it that is built. In it there are, for each
architecture: the cache of builds without any options; one for each variant (``variants``); and one
that all variants have in common, for those that have none of their own yet. What a client asks for
by itself is kept, and wins. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from buildpool.core.api import AffinityKey, Inject
from buildpool.core.api.brief import CacheBrief, ClientBrief
from buildpool.core.routing.affinity import Traits, key_of

PROJECT: Final = (AffinityKey.SOURCE, AffinityKey.IMAGE)
"""What names a project, the most exact first. Who builds does not: two projects of one client would
overwrite each other's cache for ever. Nor does a context: its name has a random part that each new
machine chooses for itself, and machines that are used once would each leave a cache behind."""
COMMON: Final = "any"
"""The tag, behind the architecture, of what all variants have in common."""
COMMON_INTERVAL: Final = timedelta(minutes=15)
"""How often, at most, a variant that has a cache of its own also exports the common one: BuildKit
uploads what is new to each of the two."""
FOLDER: Final = "auto"
"""Below it lie the caches that the gateway adds: apart from those that clients name."""
_MAX_SLUG_CHARACTERS: Final = 100
_MAX_NAME_CHARACTERS: Final = 255
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
    is_exact: bool = False
    """Whether what comes out depends on where cached layers come from."""


@dataclass(frozen=True, slots=True)
class Share:
    """What is added to a build: references of images in a registry, the most exact first."""

    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()


NOTHING: Final = Share()


def share(
    cache: CacheBrief,
    caches: Share,
    client: ClientBrief,
    wish: Wish,
    *,
    exported: Mapping[str, datetime],
    now: datetime,
) -> Share:
    """What is added to one build, out of the caches that fit it.

    ``exported`` is when builds of this gateway last exported each cache, as far as it is known.
    """
    if client.inject is Inject.NONE:
        return NOTHING
    writes = client.inject is Inject.FULL and not wish.exports
    reads = not wish.imports and not wish.is_no_cache and not wish.is_exact
    due = [
        reference
        for number, reference in enumerate(caches.exports)
        if reference not in exported
        or now - exported[reference] >= _interval(cache, is_second=number > 0)
    ]
    return Share(caches.imports if reads else (), tuple(due) if writes else ())


def _interval(cache: CacheBrief, *, is_second: bool) -> timedelta:
    return max(cache.export_interval, COMMON_INTERVAL) if is_second else cache.export_interval


def repository_of(cache: CacheBrief, traits: Traits) -> str | None:
    """Where the caches of a project lie, all its variants: what comes before their tags.

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
    if cache.is_flat:  # with the longest architecture, such a tag has 128 characters, as it may
        return f"{cache.location}:{FOLDER}-{_slug(value, _MAX_SLUG_CHARACTERS)}{digest}"
    folder = f"{cache.location}/{FOLDER}/"
    room = _MAX_NAME_CHARACTERS - len(folder) - len(digest)
    if room < 0:
        return None
    return f"{folder}{_slug(value, min(room - 1, _MAX_SLUG_CHARACTERS))}{digest}"


def variant_of(cache: CacheBrief, traits: Traits) -> str:
    """What tells a build from others of its project; empty where it is built as usual."""
    is_native = traits.platforms in ((), (f"linux/{cache.architecture}",))
    told = ("" if is_native else ",".join(traits.platforms), traits.inputs)
    return "\n".join(told) if any(told) else ""


def caches_of(cache: CacheBrief, repository: str, variant: str, number: int | None) -> Share:
    """The caches that fit a build: those to import, and those to export.

    ``number`` is that of its variant; None where it has none. The cache of usual builds is imported
    by all: it has what they have in common, and is where earlier versions kept every variant.
    """
    usual = f"{repository}{'-' if cache.is_flat else ':'}{cache.architecture}"
    if not variant:
        return Share((usual,), (usual,))
    common = f"{usual}-{COMMON}"
    if number is None:
        return Share((common, usual), (common,))
    own = f"{usual}-{number:02x}"
    return Share((own, common, usual), (own, common))


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
