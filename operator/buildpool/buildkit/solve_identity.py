"""What a request to build says of what it builds: the repository, the part of it, the variant.

Pure, and total: whatever a client writes has an answer. Two requests that build the same have the
same answer, however they are spelled. Build arguments may be secrets: only a digest of all leaves
this module.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qs, unquote

SOURCE: Final = "vcs:source"
CONTEXT: Final = "context"
PLATFORM: Final = "platform"
PARTS: Final = {
    "target": "",
    "filename": "Dockerfile",
    "vcs:localdir:context": ".",
    "vcs:localdir:dockerfile": ".",
}
"""What of a repository is built, and the usual value of each."""
ARGUMENT: Final = "build-arg:"
NAMED_CONTEXT: Final = "context:"
"""How attributes start that make a variant, each with a name of the client's."""
MAX_INPUTS: Final = 256
"""How many of them are looked at: builds that have more are one variant."""
MAX_ARGUMENT_CHARACTERS: Final = 200
"""Of the name of a build argument that says what kind of value it has."""
MAX_STEADIED_BYTES: Final = 200
"""Bytes of a value in which what passes is looked for. Longer ones count as they are."""

_HOST: Final = r"(?P<host>\w[\w.-]+(?::\d+)?)"
_URL: Final = re.compile(rf"(?:https?|git|ssh)://(?:[^/]*@)?{_HOST}/(?P<path>.+)", re.IGNORECASE)
_UPLOAD: Final = "buildkit-session"
"""The host in the URL of a context that a client uploads as an archive. Its path is random."""
_SHORT: Final = re.compile(r"(?:[\w.-]+@)?(?P<host>\w[\w.-]+):(?P<path>(?!//).+)")
"""As ssh spells it. A host of one letter would be a drive of Windows."""
_SHORTEST: Final = re.compile(r"(?P<host>github\.com)/(?P<path>.+)")
_REMOTE: Final = re.compile(r"(?i:https?|git|ssh)://|[\w.-]+@[\w.-]+:|github\.com/")
"""How a context starts that BuildKit fetches; others are folders of the client."""
_SUBDIR: Final = "subdir"
"""The key of a folder in the query of a URL. ``ref``, ``checksum`` and the others say in which
state a repository is fetched, not what of it is built."""
_MAX_QUERY_FIELDS: Final = 64

_MACHINES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm/v6",
    "i386": "386",
}
"""Other names of architectures, as containerd reads them."""
_USUAL_VARIANTS: Final = frozenset({"amd64/v1", "arm64/v8", "arm/v7"})
_PASSES: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # a UUID
    r"|\d{4}-\d\d-\d\d|\d\d?:\d\d(?::\d\d)?(?:\.\d+)?"  # a date, a time
    r"|[0-9a-f]{7,}|\d{5,}",  # a commit or a digest, the number of a run, seconds
    re.IGNORECASE,
)
"""Parts of values that are others in the next build, where they have a digit."""
_PASSING: Final = re.compile(
    r"(?:^|_)(?:sha\d*|commit|rev|revision|(?:vcs|git)_?ref|created|nonce|cache_?bust(?:er)?"
    r"|(?:build|run|job|pipeline)_?(?:id|iid|no|nr|num|number|date|time|timestamp|tag|url)"
    r"|date|time|timestamp|epoch|token|password|secret|key)(?:$|_)"
    r"|^buildkit_|^(?:https?|ftp|no|all)_proxy$",
    re.IGNORECASE,
)
"""Names of build arguments that say when or by whom something is built, or are settings of
BuildKit's own."""


def source_of(attributes: Mapping[str, str]) -> str:
    """The repository that is built, always spelled the same; empty where it is not said."""
    context = attributes.get(CONTEXT, "")
    return repository_of(
        attributes.get(SOURCE) or (context if _REMOTE.match(context) else ""),
    )


def part_of(attributes: Mapping[str, str]) -> str:
    """What of it is built: stage, Dockerfile and folders; empty where all is as usual."""
    values = [attributes.get(name, "") for name in PARTS]
    values.append(folder_of(attributes.get(CONTEXT, "")))
    usual = (*PARTS.values(), "")
    special = [
        "" if value == common else value for value, common in zip(values, usual, strict=True)
    ]
    return "\n".join(special).rstrip("\n")


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


def folder_of(context: str) -> str:
    """The folder of a repository that is built; empty for its root, and for the client's files.

    ``….git#branch:folder`` and ``….git?subdir=folder`` are the same one.
    """
    if not _REMOTE.match(context):
        return ""
    url, _, fragment = context.partition("#")
    try:
        asked = parse_qs(url.partition("?")[2], max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:  # BuildKit refuses so many, too
        asked = {}
    folder = asked.get(_SUBDIR, [""])[-1] or unquote(fragment.partition(":")[2])
    return posixpath.normpath(f"/{folder}").lstrip("/")


def platforms_of(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """The platforms that are built for, sorted; none where the builder's own is."""
    asked = attributes.get(PLATFORM, "").lower().split(",")
    return tuple(sorted({_platform(name.strip()) for name in asked if name.strip()}))


def _platform(name: str) -> str:
    system, _, machine = name.partition("/")
    machine, _, variant = machine.partition("/")
    named = _MACHINES.get(machine, machine)
    full = f"{named}/{variant}" if variant else named
    return f"{system}/{named if full in _USUAL_VARIANTS else full}".rstrip("/")


def is_passing(argument: str) -> bool:
    """Whether a build argument is called like what is another in every build.

    No longer name is looked at: to look takes time, and a request may have thousands.
    """
    name = argument[: MAX_ARGUMENT_CHARACTERS + 1]
    return len(name) <= MAX_ARGUMENT_CHARACTERS and bool(_PASSING.search(name.replace("-", "_")))


class Inputs:
    """The build arguments and named contexts of one request, as far as they make a variant.

    Values that are others in every build would leave a cache behind each time, and find none.
    """

    def __init__(self) -> None:
        self._made: dict[str, bytes] = {}
        """A digest of each that counts, by its name."""

    def add(self, name: str, value: memoryview) -> None:
        """One more; of one that stands twice, the last counts."""
        if len(self._made) > MAX_INPUTS:
            return
        if name.startswith(ARGUMENT):
            if is_passing(name.removeprefix(ARGUMENT)):
                return
            if len(value) > MAX_STEADIED_BYTES:
                self._made[name] = sha256(value).digest()
                return
            made = _PASSES.sub(_marked, _text(value))
        elif name.startswith(NAMED_CONTEXT):
            made = _named_context(_text(value[:MAX_STEADIED_BYTES]))
        else:
            return
        self._made[name] = sha256(made.encode()).digest()

    @property
    def digest(self) -> str:
        """A digest of all; empty where none counts."""
        if not self._made:
            return ""
        if len(self._made) > MAX_INPUTS:
            return "many"
        told = sorted((sha256(name.encode()).digest(), made) for name, made in self._made.items())
        return sha256(b"".join(name + made for name, made in told)).hexdigest()


def _named_context(value: str) -> str:
    """Where it comes from, without what is others in every build: digests, ids, commits."""
    if repository := repository_of(value) if _REMOTE.match(value) else "":
        return f"{repository}\n{folder_of(value)}"
    scheme, _, rest = value.partition(":")
    return f"{scheme}:{rest.partition('@')[0]}" if scheme == "docker-image" else scheme


def _marked(found: re.Match[str]) -> str:
    return "#" if any(each.isdigit() for each in found[0]) else found[0]


def _text(value: memoryview) -> str:
    return str(value, "utf-8", "replace")
