"""What a request to build could write: nothing of it is missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit import protobuf
from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_outputs import outputs_of
from buildpool.core.api.brief import CacheBrief
from buildpool.core.routing.sharing import lies_in
from daemons import field as encoded
from solve_words import (
    ATTRS,
    CACHE_OPTIONS,
    CACHES,
    ENTITLEMENTS,
    EXPORTERS,
    IMAGE_ATTRIBUTES,
    NO_NAMES,
    SOLVE_REQUEST,
    TO_CLIENT,
    TYPE,
)

LOCATIONS: Final = ("ci-cache.builds.svc:5000", "r.example/cache")
ELSEWHERE: Final = (
    "r.example/app:1",
    "docker.io/acme/app",
    "acme/app",
    "ci-cache.other.svc:5000/a",
)


def in_cache(location: str) -> tuple[str, ...]:
    return (
        f"{location}/auto/victim:amd64",
        f"{location.upper()}/x",
        f"{location}/x@sha256:0",
        f"acme/app,{location}/x",
    )


@dataclass
class Request:
    """One that BuildKit takes, and what BuildKit does with it."""

    old: tuple[str, dict[str, str]] = ("", {})
    exporters: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    caches: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    old_cache: tuple[str, dict[str, str]] = ("", {})
    entitlements: list[str] = field(default_factory=list)
    session_exporter: bool = False

    def encode(self) -> bytes:
        kind, attributes = self.old
        cache = encoded(1, self.old_cache[0].encode()) if self.old_cache[0] else b""
        cache += protobuf.map_fields(CACHE_OPTIONS["ExportAttrsDeprecated"], self.old_cache[1])
        for entry in self.caches:
            cache += encoded(CACHE_OPTIONS["Exports"], an_entry(*entry))
        return b"".join(
            (
                encoded(SOLVE_REQUEST["Ref"], b"ref"),
                encoded(SOLVE_REQUEST["ExporterDeprecated"], kind.encode()),
                protobuf.map_fields(SOLVE_REQUEST["ExporterAttrsDeprecated"], attributes),
                encoded(SOLVE_REQUEST["Cache"], cache),
                *(encoded(SOLVE_REQUEST["Entitlements"], e.encode()) for e in self.entitlements),
                *(encoded(SOLVE_REQUEST["Exporters"], an_entry(*e)) for e in self.exporters),
                encoded(SOLVE_REQUEST["EnableSessionExporter"], int(self.session_exporter)),
            )
        )

    def may_write_anywhere(self) -> bool:
        """By what the request itself does not say."""
        return self.session_exporter or any(e != "network.host" for e in self.entitlements)

    def written(self) -> Iterable[str]:
        """What the daemon pushes."""
        for kind, attributes in self.exporters or [self.old]:
            if kind == "image" and "push" in attributes:
                yield from attributes.get("name", "").split(",")
                yield attributes.get("dangling-name-prefix", "")
        for kind, attributes in self.caches:
            if kind == "registry":
                yield attributes.get("ref", "")
        yield self.old_cache[0]


def an_entry(kind: str, attributes: dict[str, str]) -> bytes:
    return encoded(TYPE, kind.encode()) + protobuf.map_fields(ATTRS, attributes)


def is_refused(message: bytes, location: str) -> bool:
    cache = CacheBrief(location=location, architecture="amd64")
    return any(
        output.reference in ("", "*") or lies_in(output.reference, cache)
        for output in outputs_of(message)
    )


def requests(location: str) -> st.SearchStrategy[Request]:
    """Any request, with values that are places in the cache, and others."""
    values = st.sampled_from((*in_cache(location), *ELSEWHERE, "*", "true", ""))
    image = st.dictionaries(st.sampled_from((*IMAGE_ATTRIBUTES, "new")), values)
    cache = st.dictionaries(st.sampled_from(("ref", "mode", "ignore-error", "new")), values)
    exporter = st.tuples(st.sampled_from(EXPORTERS), image)
    return st.builds(
        Request,
        old=exporter,
        exporters=st.lists(exporter, max_size=2),
        caches=st.lists(st.tuples(st.sampled_from(CACHES), cache), max_size=2),
        old_cache=st.tuples(values, cache),
        entitlements=st.lists(st.sampled_from(ENTITLEMENTS), max_size=1),
        session_exporter=st.booleans(),
    )


@pytest.mark.parametrize("location", LOCATIONS)
@given(data=st.data())
def test_no_request_that_writes_the_cache_passes(location: str, data: st.DataObject) -> None:
    request = data.draw(requests(location))
    cache = CacheBrief(location=location, architecture="amd64")
    if request.may_write_anywhere() or any(
        name == "*" or lies_in(name, cache) for name in request.written() if name
    ):
        assert is_refused(request.encode(), location)


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("kind", EXPORTERS)
@pytest.mark.parametrize("attribute", [*IMAGE_ATTRIBUTES, "new", "image.name"])
def test_every_attribute_names_no_place_or_is_looked_at(
    location: str, kind: str, attribute: str
) -> None:
    for name in in_cache(location):
        for request in (
            Request(exporters=[(kind, {attribute: name, "push": "true"})]),
            Request(old=(kind, {attribute: name, "push": "true"})),
        ):
            is_harmless = kind in TO_CLIENT or (attribute in NO_NAMES and kind in ("image", ""))
            assert is_refused(request.encode(), location) is not is_harmless


@pytest.mark.parametrize("number", range(1, 40))
def test_every_field_is_harmless_or_looked_at(number: int) -> None:
    """One that BuildKit does not have yet is refused."""
    location = LOCATIONS[0]
    looked_at = {"ExporterDeprecated", "ExporterAttrsDeprecated", "Cache", "Entitlements"}
    looked_at |= {"Exporters", "EnableSessionExporter"}
    harmless = {SOLVE_REQUEST[name] for name in SOLVE_REQUEST.keys() - looked_at}
    refused = []
    for value in (1, b"new", an_entry("new", {"new": f"{location}/x"})):
        try:
            refused.append(is_refused(encoded(number, value), location))
        except WireError:
            refused.append(True)
    if number in harmless:
        assert not any(refused)
    elif number == SOLVE_REQUEST["Cache"]:  # its first field, a ref, is just "new" here
        assert refused[0]
    else:
        assert any(refused)
    if number not in SOLVE_REQUEST.values():
        assert all(refused)


@pytest.mark.parametrize("number", range(1, 20))
def test_every_option_of_caches_is_an_import_or_looked_at(number: int) -> None:
    location = LOCATIONS[0]
    entry = an_entry("registry", {"ref": f"{location}/x"})
    attribute = protobuf.field(1, b"ref") + protobuf.field(2, f"{location}/x".encode())
    refused = []
    for value in (entry, attribute, f"{location}/x".encode()):
        try:
            refused.append(is_refused(encoded(8, encoded(number, value)), location))
        except WireError:
            refused.append(True)
    imports = {CACHE_OPTIONS["ImportRefsDeprecated"], CACHE_OPTIONS["Imports"]}
    assert any(refused) is (number not in imports)


@pytest.mark.parametrize("location", LOCATIONS)
def test_what_builds_of_unreviewed_code_need_passes(location: str) -> None:
    for request in (
        Request(),
        Request(entitlements=["network.host"]),
        Request(exporters=[("image", {"name": ",".join(ELSEWHERE), "push": "true"})]),
        Request(exporters=[("image", dict.fromkeys(NO_NAMES, "true"))]),
        Request(exporters=[("local", {"platform-split": "true"}), ("tar", {}), ("oci", {})]),
        Request(caches=[("registry", {"ref": ELSEWHERE[0], "mode": "max"}), ("inline", {})]),
        Request(caches=[("gha", {"url": "https://gha.example", "scope": "x"})]),
        Request(old_cache=(ELSEWHERE[0], {"mode": "max"})),
    ):
        assert not is_refused(request.encode(), location)


@pytest.mark.parametrize("kind", TO_CLIENT)
def test_what_is_written_to_the_client_may_say_what_it_likes_of_how(kind: str) -> None:
    """As ``docker buildx build --load`` does, and ``--output`` with what buildx does not know."""
    said = {"prefer-image-digest": "true", "src": "/out", "context": "remote", "name": "app"}
    said["buildinfo-attrs"] = "true"
    for request in (Request(exporters=[(kind, said)]), Request(old=(kind, said))):
        assert not is_refused(request.encode(), LOCATIONS[0])


@pytest.mark.parametrize("kinds", [(), ("image",), ("",), ("new",)])
@pytest.mark.parametrize("is_old", [False, True])
@given(data=st.data())
def test_attributes_are_looked_at_where_any_type_may_write_elsewhere(
    kinds: tuple[str, ...], is_old: bool, data: st.DataObject
) -> None:
    """BuildKit takes the last type of several, wherever it stands."""
    number = (SOLVE_REQUEST["ExporterDeprecated"], SOLVE_REQUEST["ExporterAttrsDeprecated"])
    types, attributes = number if is_old else (TYPE, ATTRS)
    others = data.draw(st.lists(st.sampled_from(TO_CLIENT), max_size=2)) if kinds else []
    parts = [protobuf.field(types, kind.encode()) for kind in (*kinds, *others)]
    parts.append(protobuf.map_fields(attributes, {"name": f"{LOCATIONS[0]}/x"}))
    entry = b"".join(data.draw(st.permutations(parts)))
    message = entry if is_old else protobuf.field(SOLVE_REQUEST["Exporters"], entry)
    assert is_refused(message, LOCATIONS[0])


def test_of_a_field_that_stands_twice_every_value_counts() -> None:
    location = LOCATIONS[0]
    bad = Request(exporters=[("image", {"name": f"{location}/x", "push": "true"})]).encode()
    good = Request(exporters=[("image", {"name": "r.example/app"})]).encode()
    assert is_refused(bad + good, location)
    assert is_refused(good + bad, location)
