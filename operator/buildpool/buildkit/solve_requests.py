"""The requests with which a build starts: what matters of them, and how a cache is added.

Pure. Knows some fields of ``moby.buildkit.v1`` (control.proto, frontend/gateway/pb/gateway.proto)
and skips all others. Requests hold build arguments, which may be secrets: they are neither decoded
nor kept.

What is added stands at the end. Encoded messages that are joined are one message: lists go on,
parts that come again are merged, and of two entries of a map with one key the last counts; so it
is defined, and so BuildKit's own decoder does it (``UnmarshalVT`` decodes into what it already
has). Every byte of the client stays as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from buildpool.buildkit import protobuf
from buildpool.buildkit.protobuf import Reader, WireError

MAX_MESSAGE: Final = 16 << 20
"""Bytes of one request that BuildKit takes (containerd's ``defaults.DefaultMaxRecvMsgSize``)."""
ANY_NAME: Final = "*"
"""The name of an image that gets its own from the result of its build."""
MAX_NAME: Final = 256
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
_SOURCE: Final = "vcs:source"
_CONTEXT: Final = "context"
_PARTS: Final = {
    "target": "",
    "filename": "Dockerfile",
    "vcs:localdir:context": ".",
    "vcs:localdir:dockerfile": ".",
}
"""What of a repository is built, and the usual value of each."""
_TOLD: Final = frozenset({_IMPORTS, _OLD_IMPORTS, _NO_CACHE, _SOURCE, _CONTEXT, *_PARTS})
"""The attributes of a frontend that are read. All others are none of our business."""
_NAME: Final = frozenset({"name"})
"""The one attribute of an exporter that is read."""

_HOST: Final = r"(?P<host>\w[\w.-]+(?::\d+)?)"
_URL: Final = re.compile(rf"(?:https?|git|ssh)://(?:[^/]*@)?{_HOST}/(?P<path>.+)", re.IGNORECASE)
_UPLOAD: Final = "buildkit-session"
"""The host in the URL of a context that a client uploads as an archive. Its path is random."""
_SHORT: Final = re.compile(r"(?:[\w.-]+@)?(?P<host>\w[\w.-]+):(?P<path>(?!//).+)")
"""As ssh spells it. A host of one letter would be a drive of Windows."""
_SHORTEST: Final = re.compile(r"(?P<host>github\.com)/(?P<path>.+)")
_REMOTE: Final = re.compile(r"(?i:https?|git|ssh)://|[\w.-]+@[\w.-]+:|github\.com/")
"""How a context starts that BuildKit fetches; others are folders of the client."""


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
    images: tuple[str, ...]
    """The names of images that are exported, without tags."""
    imports: tuple[CacheEntry, ...]
    exports: tuple[CacheEntry, ...]
    is_no_cache: bool
    """Whether every step shall run."""
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
    return _last_text(message, _REF, "Ref")


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
    attributes = _merged(reader, parts.get(_FRONTEND_ATTRS, ()), _TOLD)
    exporters = [
        _merged(reader, (p for n, p in reader.fields(exporter) if n == 2), _NAME)
        for exporter in parts.get(_EXPORTERS, ())
    ] or [_merged(reader, parts.get(_EXPORTER_ATTRS, ()), _NAME)]
    names = [name for exporter in exporters for name in image_names(exporter.get("name", ""))]
    caches = [part for cache in parts.get(_CACHE, ()) for part in reader.fields(cache)]
    imports = [_cache_entry(reader, *p) for p in caches if p[0] in _CACHE_ALL_IMPORTS]
    exports = [_cache_entry(reader, *p) for p in caches if p[0] in _CACHE_ALL_EXPORTS]
    frontend = protobuf.text(told, "Frontend")  # of any form: ``with_cache`` has to read it
    context = attributes.get(_CONTEXT, "")
    source = attributes.get(_SOURCE) or (context if _REMOTE.match(context) else "")
    return Solve(
        ref=_name(_last(parts, _REF, "Ref")),
        session=_name(_last(parts, _SESSION, "Session")),
        source=repository_of(source),
        part=_part_of(attributes, context),
        images=tuple(dict.fromkeys(names)),
        imports=(*imports, *_imports_of(attributes)),
        exports=tuple(exports),
        is_no_cache=attributes.get(_NO_CACHE) == "",
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


def _part_of(attributes: Mapping[str, str], context: str) -> str:
    values = [attributes.get(name, "") for name in _PARTS]
    # The folder of a context that BuildKit fetches: ``https://….git#branch:folder``.
    values.append(context.partition("#")[2].partition(":")[2] if _REMOTE.match(context) else "")
    usual = (*_PARTS.values(), "")
    special = [
        "" if value == common else value for value, common in zip(values, usual, strict=True)
    ]
    return "\n".join(special).rstrip("\n")


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


def repository_of(url: str) -> str:
    """A repository as ``host/path``: without scheme, user, password, ``.git`` and branch.

    Empty where it is no repository, and where it cannot be told what of it is a password.
    """
    url = url.split("#")[0].split("?")[0].strip()
    form = _URL if "://" in url else _SHORT
    match = form.fullmatch(url) or _SHORTEST.fullmatch(url)
    if match is None:
        return ""
    if match["host"].lower() == _UPLOAD:
        return ""
    path = match["path"].strip("/").removesuffix(".git").strip("/")
    return f"{match['host'].lower()}/{path}" if path else ""


def _extended(message: bytes, added: bytes) -> bytes:
    """Nobody has asked for what is added: a request that it would make too long goes without."""
    return message + added if len(message) + len(added) <= MAX_MESSAGE else message


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
    reader: Reader, entries: Iterable[int | memoryview | None], known: frozenset[str]
) -> dict[str, str]:
    """The known attributes of a map; of one that stands twice, the last counts."""
    pairs = map(reader.entry, entries)
    return {key: protobuf.text(content, key) for key, content in pairs if key in known}


def _last(parts: Mapping[int, Sequence[memoryview]], number: int, name: str) -> str:
    """A text; of one that stands twice, the last counts."""
    return protobuf.text(parts[number][-1], name) if number in parts else ""


def _name(text: str) -> str:
    """A ref, or the name of a session: BuildKit's own have 25 characters. Raises WireError."""
    if len(text) > MAX_NAME:
        raise WireError(f"the name of a build or session has more than {MAX_NAME} characters")
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
