"""What a request to build could write, and where to: all of it, for clients that may not write.

Pure. A list of what is known to be harmless, not of what is not: a field, an exporter or an
attribute that a later BuildKit knows is reported as unknown. Of a field that stands twice every
value counts, not only the one that BuildKit would take.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from buildpool.buildkit import protobuf
from buildpool.buildkit.protobuf import Reader, WireError
from buildpool.buildkit.solve_requests import MAX_FIELDS, image_names

TO_CLIENT: Final = frozenset({"local", "tar", "oci", "docker"})
"""Exporters that write to the client, whatever their attributes say."""
EXPORTERS: Final = TO_CLIENT | {"", "image"}
"""``image`` writes to where its name says, and none of them nowhere."""
CACHE_EXPORTERS: Final = frozenset({"registry", "inline", "local", "gha", "s3", "azblob"})
"""``registry`` writes to where its ``ref`` says, the others to what is no registry."""
ENTITLEMENTS: Final = frozenset({"network.host"})
"""Others open the builder itself, with the certificate that opens the cache."""
_ATTRIBUTES: Final = frozenset(
    {
        "attestation-inline",
        "attestation-prefix",
        "buildinfo-attrs",
        "compression",
        "compression-level",
        "dest",
        "force-compression",
        "mode",
        "name",
        "name-canonical",
        "oci-artifact",
        "oci-mediatypes",
        "platform-split",
        "prefer-image-digest",
        "prefer-nondist-layers",
        "push",
        "push-by-digest",
        "registry.insecure",
        "rewrite-timestamp",
        "source-date-epoch",
        "store",
        "tar",
        "unpack",
    }
)
"""Of ``image``. All but ``name`` say how something is written, or to which place of the client."""
_ANNOTATION: Final = ("annotation.", "annotation-", "annotation[")
"""How those attributes start that are written into an image."""
_REGISTRY_ATTRIBUTES: Final = frozenset(
    {
        "compression",
        "compression-level",
        "force-compression",
        "ignore-error",
        "image-manifest",
        "mode",
        "oci-mediatypes",
        "ref",
        "registry.insecure",
    }
)
"""Of caches in a registry."""

_OLD_EXPORTER: Final = {3: 1, 4: 2}
"""The fields ExporterDeprecated and ExporterAttrsDeprecated, together one entry of Exporters."""
_HARMLESS: Final = frozenset({1, 2, 5, 6, 7, 10, 11, 12, 15, 16, 17})
"""Fields that say what is built: Ref, Definition, Session, Frontend, FrontendAttrs, FrontendInputs,
Internal, SourcePolicy, SourcePolicySession, CompatibilityVersion and ProxyNetwork."""
_CACHE_OLD_REF, _CACHE_OLD_ATTRIBUTES, _CACHE_EXPORTS = 1, 3, 4
_CACHE_IMPORTS: Final = frozenset({2, 5})


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a request asks for."""

    field: str
    """What asks for it, for people: one of our own words, or a part of the request, shortened."""
    reference: str = ""
    """The image that it writes, in a registry; empty for what must not be asked for at all."""


def outputs_of(message: bytes) -> Iterator[Output]:
    """What a SolveRequest of ``Control`` writes into registries.

    And, without a reference, what is not known to write nothing. Raises WireError.
    """
    reader = Reader(MAX_FIELDS)
    old = []
    for number, value in reader.fields(message):
        if number in _OLD_EXPORTER:
            old.append((_OLD_EXPORTER[number], value))
        elif number in _LOOKED_AT:
            yield from _LOOKED_AT[number](reader, value)
        elif number not in _HARMLESS:
            yield Output(f"field {number}")
    yield from _export(reader, "Exporter", old)


_Value = int | memoryview | None


def _entitlement(_: Reader, value: _Value) -> Iterator[Output]:
    yield from _type("Entitlements", value, ENTITLEMENTS)


def _exporter(reader: Reader, value: _Value) -> Iterator[Output]:
    yield from _export(reader, "Exporters", tuple(reader.fields(_message(value, "Exporters"))))


def _export(reader: Reader, name: str, entry: Collection[tuple[int, _Value]]) -> Iterator[Output]:
    kinds = {protobuf.text(content, f"{name}.Type") for part, content in entry if part == 1}
    is_to_client = bool(kinds) and kinds <= TO_CLIENT
    for part, content in entry:
        if part == 1:
            yield from _type(f"{name}.Type", content, EXPORTERS)
        elif part != 2:
            yield Output(f"field {part} of {name}")
        elif not is_to_client:
            yield from _attribute(reader, f"{name}.Attrs", content)


def _session_exporter(_: Reader, value: _Value) -> Iterator[Output]:
    # Its exporters are named within the session, which nobody but BuildKit reads.
    if value != 0:
        yield Output("EnableSessionExporter")


def _cache(reader: Reader, value: _Value) -> Iterator[Output]:
    for number, content in reader.fields(_message(value, "Cache")):
        if number == _CACHE_OLD_REF:
            yield Output("Cache.ExportRef", protobuf.text(content, "Cache.ExportRef"))
        elif number == _CACHE_OLD_ATTRIBUTES:
            yield from _registry_attribute(reader, "Cache.ExportAttrs", content)
        elif number == _CACHE_EXPORTS:
            entry = tuple(reader.fields(_message(content, "Cache.Exports")))
            kinds = {protobuf.text(each, "Cache.Exports.Type") for part, each in entry if part == 1}
            for part, each in entry:
                if part == 1:
                    yield from _type("Cache.Exports.Type", each, CACHE_EXPORTERS)
                elif part != 2:
                    yield Output(f"field {part} of Cache.Exports")
                elif "registry" in kinds:
                    yield from _registry_attribute(reader, "Cache.Exports.Attrs", each)
        elif number not in _CACHE_IMPORTS:
            yield Output(f"field {number} of Cache")


_LOOKED_AT: Final = {
    8: _cache,
    9: _entitlement,
    13: _exporter,
    14: _session_exporter,
}
"""Fields that may write."""


def _type(field: str, value: _Value, known: frozenset[str]) -> Iterator[Output]:
    kind = protobuf.text(value, field)
    if kind not in known:
        yield Output(f"{field} {_short(kind)}")


def _attribute(reader: Reader, field: str, value: _Value) -> Iterator[Output]:
    key, content = reader.entry(value)
    if key == "name":
        names = protobuf.text(content, f"name of {field}")
        yield from (Output(f"{field} name", name) for name in image_names(names))
    elif key not in _ATTRIBUTES and not key.startswith(_ANNOTATION):
        yield Output(f"{field} {_short(key)}")


def _registry_attribute(reader: Reader, field: str, value: _Value) -> Iterator[Output]:
    key, content = reader.entry(value)
    if key == "ref":
        yield Output(f"{field} ref", protobuf.text(content, f"ref of {field}"))
    elif key not in _REGISTRY_ATTRIBUTES:
        yield Output(f"{field} {_short(key)}")


def _message(value: _Value, name: str) -> memoryview:
    if not isinstance(value, memoryview):
        raise WireError(f"field {name} is not a message")
    return value


def _short(text: str) -> str:
    return repr(text[:60])
