"""The requests with which a build starts: what matters of them, and how a cache is added.

Pure. Knows some fields of ``moby.buildkit.v1`` (control.proto, frontend/gateway/pb/gateway.proto)
and skips all others. Requests hold build arguments, which may be secrets: none is kept, but for a
digest of all (``solve_identity``).

What is added stands at the end. Encoded messages that are joined are one message: lists go on,
parts that come again are merged, and of two entries of a map with one key the last counts; so it
is defined, and so BuildKit's own decoder does it (``UnmarshalVT`` decodes into what it already
has). Every byte of the client stays as it was.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from buildpool.buildkit import protobuf, solve_identity
from buildpool.buildkit.protobuf import Reader, WireError

MAX_MESSAGE_BYTES: Final = 16 << 20
"""Bytes of one request that BuildKit takes (containerd's ``defaults.DefaultMaxRecvMsgSize``)."""
ANY_NAME: Final = "*"
"""The name of an image that gets its own from the result of its build."""
MAX_NAME_CHARACTERS: Final = 256
"""Characters of the name of a build or session."""
MAX_FIELDS: Final = 20_000
"""How many fields of a request are read: some 6,000 build arguments, or 0.1 s of our time."""

_REF, _DEFINITION, _EXPORTER, _EXPORTER_ATTRS = 1, 2, 3, 4
_SESSION, _FRONTEND, _FRONTEND_ATTRS, _CACHE = 5, 6, 7, 8
_INTERNAL, _EXPORTERS = 11, 13
_CACHE_EXPORT_REF, _CACHE_IMPORT_REFS, _CACHE_EXPORTS, _CACHE_IMPORTS = 1, 2, 4, 5
_CACHE_ALL_EXPORTS: Final = frozenset({_CACHE_EXPORT_REF, _CACHE_EXPORTS})
_CACHE_ALL_IMPORTS: Final = frozenset({_CACHE_IMPORT_REFS, _CACHE_IMPORTS})
_BRIDGE_FRONTEND, _BRIDGE_OPTIONS, _BRIDGE_IMPORTS = 2, 3, 12

_IMPORTS: Final = "cache-imports"
_OLD_IMPORTS: Final = "cache-from"
_NO_CACHE: Final = "no-cache"
_PROVENANCE: Final = ("attest:provenance", "build-arg:BUILDKIT_ATTEST_PROVENANCE")
_TOLD: Final = frozenset(
    {
        _IMPORTS,
        _OLD_IMPORTS,
        _NO_CACHE,
        *_PROVENANCE,
        solve_identity.SOURCE,
        solve_identity.CONTEXT,
        solve_identity.PLATFORM,
        *solve_identity.PARTS,
    }
)
"""The attributes of a frontend that are read. Of others at most a digest is taken."""
_REWRITES: Final = "rewrite-timestamp"
_EXPORTED: Final = frozenset({"name", _REWRITES})
"""The attributes of an exporter that are read."""
_FALSE: Final = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})
"""As Go spells it."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cache that is imported or exported."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ref(self) -> str:
        """Where it is, if it is in a registry."""
        return self.attrs.get("ref", "")


@dataclass(frozen=True, slots=True)
class Solve:
    """What matters of a request to build."""

    ref: str
    session: str
    source: str
    """The repository that is built, always spelled the same; empty where it is not said."""
    part: str
    """What of it is built: stage, Dockerfile and folders; empty where all is as usual."""
    platforms: tuple[str, ...]
    """What it is built for; none where that is the builder's own platform."""
    inputs: str
    """A digest of the build arguments and named contexts that make a variant; empty: of none."""
    images: tuple[str, ...]
    """The names of images that are exported, without tags."""
    imports: tuple[CacheEntry, ...]
    exports: tuple[CacheEntry, ...]
    is_no_cache: bool
    """Whether every step shall run."""
    is_exact: bool
    """Whether what comes out can depend on where cached layers come from: the digest of an image
    whose timestamps are rewritten, and the layers that a full provenance names."""
    is_internal: bool
    """Whether it only reads something for a client's own use: BuildKit keeps no record of it."""
    takes_imports_directly: bool
    """Whether BuildKit solves it as it stands; else its client does, part by part, each of which
    is told of its imports (``BridgeSolve``)."""


@dataclass(frozen=True, slots=True)
class BridgeSolve:
    """What matters of a request of a build that runs, to solve a part of it."""

    has_imports: bool
    is_no_cache: bool


def unframe(body: bytes) -> bytes:
    """The message in the body of a request. Raises WireError unless it is exactly one."""
    if len(body) < 5 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise WireError("the body of a request is not exactly one message")
    if body[0]:
        raise WireError("the message of a request is compressed, which BuildKit's clients never do")
    return body[5:]


def frame(message: bytes) -> bytes:
    """The body of a request with one message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def read_status(message: bytes) -> str:
    """The build that a StatusRequest is about. Raises WireError."""
    return _name(_last_text(message, _REF, "Ref"))


def read_solve(message: bytes) -> Solve:
    """What matters of a SolveRequest of ``Control``. Raises WireError."""
    reader = Reader(MAX_FIELDS)
    parts: dict[int, list[memoryview]] = {}
    is_internal = False
    told: int | memoryview | None = memoryview(b"")
    for number, value in reader.fields(message):
        if number == _FRONTEND:
            told = value
        elif isinstance(value, memoryview):
            parts.setdefault(number, []).append(value)
        elif number == _INTERNAL:
            is_internal = bool(value)
    inputs = solve_identity.Inputs()
    attributes = _merged(reader, parts.get(_FRONTEND_ATTRS, ()), _TOLD, inputs)
    exporters = [
        _merged(reader, (p for n, p in reader.fields(exporter) if n == 2), _EXPORTED)
        for exporter in parts.get(_EXPORTERS, ())
    ] or [_merged(reader, parts.get(_EXPORTER_ATTRS, ()), _EXPORTED)]
    names = [name for exporter in exporters for name in image_names(exporter.get("name", ""))]
    caches = [part for cache in parts.get(_CACHE, ()) for part in reader.fields(cache)]
    imports = [_cache_entry(reader, *p) for p in caches if p[0] in _CACHE_ALL_IMPORTS]
    exports = [_cache_entry(reader, *p) for p in caches if p[0] in _CACHE_ALL_EXPORTS]
    frontend = protobuf.text(told, "Frontend")  # of any form: ``with_cache`` has to read it
    return Solve(
        ref=_name(_last(parts, _REF, "Ref")),
        session=_name(_last(parts, _SESSION, "Session")),
        source=solve_identity.source_of(attributes),
        part=solve_identity.part_of(attributes),
        platforms=solve_identity.platforms_of(attributes),
        inputs=inputs.digest,
        images=tuple(dict.fromkeys(names)),
        imports=(*imports, *_imports_of(attributes)),
        exports=tuple(exports),
        is_no_cache=attributes.get(_NO_CACHE) == "",
        is_exact=_has_full_provenance(attributes)
        or any(each.get(_REWRITES, "") not in _FALSE for each in exporters),
        is_internal=is_internal,
        takes_imports_directly=bool(frontend) or any(map(len, parts.get(_DEFINITION, ()))),
    )


def read_bridge_solve(message: bytes) -> BridgeSolve:
    """What matters of a SolveRequest of ``LLBBridge``. Raises WireError."""
    reader = Reader(MAX_FIELDS)
    attributes: dict[str, str] = {}
    frontend: int | memoryview | None = memoryview(b"")
    has_imports = False
    for number, value in reader.fields(message):
        if number == _BRIDGE_FRONTEND:
            frontend = value
        elif number == _BRIDGE_OPTIONS:
            attributes |= _merged(reader, (value,), _TOLD)
        elif number == _BRIDGE_IMPORTS:
            has_imports = True
    protobuf.text(frontend, "Frontend")  # ``with_imports`` has to read it
    return BridgeSolve(
        has_imports=has_imports or any(_imports_of(attributes)),
        is_no_cache=attributes.get(_NO_CACHE) == "",
    )


def _has_full_provenance(attributes: Mapping[str, str]) -> bool:
    """Whether it asks for an attestation of every step; BuildKit's default where no mode is."""
    for asked in (attributes[name] for name in _PROVENANCE if name in attributes):
        try:
            (told,) = csv.reader([asked.replace("\n", " ").replace("\r", " ")]) if asked else ([],)
        except (csv.Error, ValueError):
            return True  # BuildKit will say what is wrong with it
        modes = [each.partition("=")[2] for each in told if each.partition("=")[0] == "mode"]
        if modes[-1:] != ["min"]:
            return True
    return False


def with_cache(
    message: bytes, *, exports: Sequence[CacheEntry], imports: Sequence[CacheEntry]
) -> bytes:
    """A SolveRequest of ``Control`` that also exports and imports these. Raises WireError.

    It must not have imports yet, where it is given some. Without a frontend it takes them from its
    cache options; a frontend never sees those, so it is told as BuildKit's own client tells it.
    """
    options = b"".join(
        (
            *(protobuf.field(_CACHE_EXPORTS, _encoded(entry)) for entry in exports),
            *(protobuf.field(_CACHE_IMPORTS, _encoded(entry)) for entry in imports),
        )
    )
    added = protobuf.field(_CACHE, options)
    if imports and _last_text(message, _FRONTEND, "Frontend"):
        added += _telling(_FRONTEND_ATTRS, imports)
    return _extended(message, added)


def with_imports(message: bytes, imports: Sequence[CacheEntry]) -> bytes:
    """A SolveRequest of ``LLBBridge`` that also imports these. Raises WireError.

    A frontend asks for its imports itself, once it knows what it builds: it is told of them as
    BuildKit's own clients do. The request must not have any yet.
    """
    if _last_text(message, _BRIDGE_FRONTEND, "Frontend"):
        return _extended(message, _telling(_BRIDGE_OPTIONS, imports))
    added = (protobuf.field(_BRIDGE_IMPORTS, _encoded(entry)) for entry in imports)
    return _extended(message, b"".join(added))


def _extended(message: bytes, added: bytes) -> bytes:
    """Nobody has asked for what is added: a request that it would make too long goes without."""
    return message + added if len(message) + len(added) <= MAX_MESSAGE_BYTES else message


def _telling(number: int, imports: Sequence[CacheEntry]) -> bytes:
    """The attribute by which a frontend is told of imports."""
    told = json.dumps([{"Type": entry.type, "Attrs": dict(entry.attrs)} for entry in imports])
    return protobuf.map_fields(number, {_IMPORTS: told})


def image_names(names: str) -> Iterator[str]:
    """The names in an exporter's list of images, without tags and digests."""
    for name in names.split(","):
        name = name.strip().partition("@")[0]
        head, slash, last = name.rpartition("/")
        if name := f"{head}{slash}{last.partition(':')[0]}":
            yield name


def _merged(
    reader: Reader,
    entries: Iterable[int | memoryview | None],
    known: frozenset[str],
    inputs: solve_identity.Inputs | None = None,
) -> dict[str, str]:
    """The known attributes of a map; of one that stands twice, the last counts.

    ``inputs`` gets the others.
    """
    found: dict[str, str] = {}
    for key, content in map(reader.entry, entries):
        if key in known:
            found[key] = protobuf.text(content, key)
        elif inputs is not None:
            inputs.add(key, content)
    return found


def _last(parts: Mapping[int, Sequence[memoryview]], number: int, name: str) -> str:
    """A text; of one that stands twice, the last counts."""
    return protobuf.text(parts[number][-1], name) if number in parts else ""


def _name(text: str) -> str:
    """A ref, or the name of a session: BuildKit's own have 25 characters. Raises WireError."""
    if len(text) > MAX_NAME_CHARACTERS:
        raise WireError(
            f"the name of a build or session has more than {MAX_NAME_CHARACTERS} characters"
        )
    return text


def _last_text(message: bytes, number: int, name: str) -> str:
    """The same, where nothing else of a request is wanted."""
    last: int | memoryview | None = memoryview(b"")
    for each, value in Reader(MAX_FIELDS).fields(message):
        if each == number:
            last = value
    return protobuf.text(last, name)


def _imports_of(attributes: Mapping[str, str]) -> Iterator[CacheEntry]:
    """The imports that a frontend is told of."""
    for ref in filter(None, attributes.get(_OLD_IMPORTS, "").split(",")):
        yield CacheEntry("registry", {"ref": ref})
    if told := attributes.get(_IMPORTS, ""):
        try:
            entries = json.loads(told)
            for each in entries:
                yield CacheEntry(str(each["Type"]), dict(each.get("Attrs") or {}))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # BuildKit will say what is wrong with it; something is asked for, in any case.
            yield CacheEntry("unreadable")


def _cache_entry(reader: Reader, part: int, value: int | memoryview | None) -> CacheEntry:
    if part in (_CACHE_EXPORT_REF, _CACHE_IMPORT_REFS):
        return CacheEntry("registry", {"ref": protobuf.text(value, "ref of a cache entry")})
    kind, attrs = "", {}
    if not isinstance(value, memoryview):
        raise WireError("cache entry is not a message")
    for number, content in reader.fields(value):
        if number == 1:
            kind = protobuf.text(content, "Type of a cache entry")
        elif number == 2:
            key, text = reader.entry(content)
            attrs[key] = protobuf.text(text, "Attrs of a cache entry")
    return CacheEntry(kind, attrs)


def _encoded(entry: CacheEntry) -> bytes:
    return protobuf.field(1, entry.type.encode()) + protobuf.map_fields(2, entry.attrs)
