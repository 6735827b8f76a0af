"""The requests with which builds start: read, and extended, byte by byte.

The oracle is Google's own implementation of protobuf, with the fields that BuildKit declares.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import (
    MAX_FIELDS,
    MAX_MESSAGE_BYTES,
    MAX_NAME_CHARACTERS,
    CacheEntry,
    frame,
    read_bridge_solve,
    read_solve,
    read_status,
    unframe,
    with_cache,
    with_imports,
)
from daemons import field, number

# What clients of BuildKit 0.34.2 sent, each with the argument TOKEN=hunter2: buildctl, with
# --import-cache and --export-cache, and buildx 0.38.2 in a repository, with both of its requests.
BUILDCTL: Final = bytes.fromhex(
    "0a196d64356e6268756c6975683067667568766d6f766e347962701a05696d61676522220a046e616d65121a72"
    "2e6578616d706c653a353030302f61636d652f6170703a76312a1964797763787471656a7131786d7a39753569"
    "776a78737534363a460a0d63616368652d696d706f72747312355b7b2254797065223a22726567697374727922"
    "2c224174747273223a7b22726566223a223132372e302e302e313a392f63227d7d5d3a1a0a0f6275696c642d61"
    "72673a544f4b454e120768756e74657232423922150a06696e6c696e65120b0a046d6f646512036d696e2a200a"
    "08726567697374727912140a03726566120d3132372e302e302e313a392f636a2b0a05696d61676512220a046e"
    "616d65121a722e6578616d706c653a353030302f61636d652f6170703a7631"
)
BUILDX: Final = bytes.fromhex(
    "0a19323472366f6b7768317378776b767a74663638697974686c761a05696d616765221d0a046e616d65121572"
    "2e6578616d706c652f61636d652f6170703a76312a19716d386f6c336d65723131633038637334777076367676"
    "6b753a190a147663733a6c6f63616c6469723a636f6e7465787412012e3a3a0a0a7663733a736f75726365122c"
    "68747470733a2f2f78787878783a7878787878406769742e6578616d706c652f61636d652f6170702e6769743a"
    "380a0c7663733a7265766973696f6e122862623461633936626561353239663162666238303536383938333865"
    "6130363662303131363336373a160a0866696c656e616d65120a446f636b657266696c653a1a0a0f6275696c64"
    "2d6172673a544f4b454e120768756e746572323a2e0a116174746573743a70726f76656e616e636512196d6f64"
    "653d6d696e2c696e6c696e652d6f6e6c793d747275653a1c0a177663733a6c6f63616c6469723a646f636b6572"
    "66696c6512012e42006a260a05696d616765121d0a046e616d651215722e6578616d706c652f61636d652f6170"
    "703a7631"
)
BUILDX_PART: Final = bytes.fromhex(
    "120d646f636b657266696c652e76301a160a0866696c656e616d65120a446f636b657266696c651a1a0a0f6275"
    "696c642d6172673a544f4b454e120768756e746572321a2e0a116174746573743a70726f76656e616e63651219"
    "6d6f64653d6d696e2c696e6c696e652d6f6e6c793d747275651a1c0a177663733a6c6f63616c6469723a646f63"
    "6b657266696c6512012e1a190a147663733a6c6f63616c6469723a636f6e7465787412012e1a3a0a0a7663733a"
    "736f75726365122c68747470733a2f2f78787878783a7878787878406769742e6578616d706c652f61636d652f"
    "6170702e6769741a380a0c7663733a7265766973696f6e12286262346163393662656135323966316266623830"
    "353638393833386561303636623031313633363728013001"
)

_STRING, _BYTES, _BOOL, _MESSAGE = 9, 12, 8, 11
_FIELDS: Final = {
    # name: (number, type or message, repeated). Maps are lists of entries on the wire.
    "Entry": {"key": (1, _STRING, False), "value": (2, _STRING, False)},
    "CacheEntry": {"Type": (1, _STRING, False), "Attrs": (2, "Entry", True)},
    "Cache": {
        "ExportRefDeprecated": (1, _STRING, False),
        "ImportRefsDeprecated": (2, _STRING, True),
        "Exports": (4, "CacheEntry", True),
        "Imports": (5, "CacheEntry", True),
        "Later": (99, _BYTES, True),
    },
    "Exporter": {"Type": (1, _STRING, False), "Attrs": (2, "Entry", True)},
    "Solve": {
        "Ref": (1, _STRING, False),
        "Definition": (2, _BYTES, False),
        "ExporterDeprecated": (3, _STRING, False),
        "ExporterAttrsDeprecated": (4, "Entry", True),
        "Session": (5, _STRING, False),
        "Frontend": (6, _STRING, False),
        "FrontendAttrs": (7, "Entry", True),
        "Cache": (8, "Cache", False),
        "Entitlements": (9, _STRING, True),
        "Internal": (11, _BOOL, False),
        "Exporters": (13, "Exporter", True),
        "Later": (99, _BYTES, True),
    },
    "BridgeSolve": {
        "Definition": (1, _BYTES, False),
        "Frontend": (2, _STRING, False),
        "FrontendOpt": (3, "Entry", True),
        "Final": (10, _BOOL, False),
        "CacheImports": (12, "CacheEntry", True),
        "Later": (99, _BYTES, True),
    },
}


def _messages() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle")
    file.syntax = "proto3"
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for each, (tag, kind, repeated) in fields.items():
            added = message.field.add(name=each, number=tag, label=3 if repeated else 1)
            if isinstance(kind, str):
                added.type, added.type_name = _MESSAGE, f".oracle.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"oracle.{name}"))
        for name in _FIELDS
    }


ORACLE: Final = _messages()


def a_message(name: str, **fields: Any) -> Message:
    """A message of the oracle; maps as dicts."""
    message = ORACLE[name]()
    for each, value in fields.items():
        _, kind, repeated = _FIELDS[name][each]
        if kind == "Entry":
            for key, content in value.items():
                getattr(message, each).add(key=key, value=content)
        elif isinstance(kind, str) and repeated:
            getattr(message, each).extend(a_message(kind, **part) for part in value)
        elif isinstance(kind, str):
            getattr(message, each).CopyFrom(a_message(kind, **value))
        elif repeated:
            getattr(message, each).extend(value)
        else:
            setattr(message, each, value)
    return message


def a_solve(**fields: Any) -> bytes:
    return a_message("Solve", **fields).SerializeToString()


def a_bridge_solve(**fields: Any) -> bytes:
    return a_message("BridgeSolve", **fields).SerializeToString()


words = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
maps = st.dictionaries(words, words, max_size=3)
later = st.lists(st.binary(max_size=9), max_size=2)
entries = st.lists(st.fixed_dictionaries({"Type": words, "Attrs": maps}), max_size=3)
frontends = st.sampled_from(["", "dockerfile.v0"])
solves = st.fixed_dictionaries(
    {"Frontend": frontends},
    optional={
        "Ref": words,
        "Definition": st.binary(max_size=40),
        "ExporterDeprecated": words,
        "ExporterAttrsDeprecated": maps,
        "Session": words,
        "FrontendAttrs": maps,
        "Cache": st.fixed_dictionaries(
            {},
            optional={
                "ExportRefDeprecated": words,
                "ImportRefsDeprecated": st.lists(words, max_size=2),
                "Exports": entries,
                "Imports": entries,
                "Later": later,
            },
        ),
        "Entitlements": st.lists(words, max_size=2),
        "Internal": st.booleans(),
        "Exporters": entries,
        "Later": later,
    },
)
bridge_solves = st.fixed_dictionaries(
    {"Frontend": frontends},
    optional={
        "Definition": st.binary(max_size=40),
        "FrontendOpt": maps,
        "Final": st.booleans(),
        "Later": later,
    },
)
EXPORT: Final = CacheEntry("registry", {"ref": "r.example/c", "mode": "max"})
IMPORT: Final = CacheEntry("registry", {"ref": "r.example/c"})
TOLD: Final = json.dumps([{"Type": "registry", "Attrs": {"ref": "r.example/c"}}])


def spelled(entry: CacheEntry) -> Message:
    """The same as the oracle has it."""
    return a_message("CacheEntry", Type=entry.type, Attrs=dict(sorted(entry.attrs.items())))


def understood(entry: Any) -> CacheEntry:
    """What the oracle has, as a value."""
    return CacheEntry(entry.Type, {attr.key: attr.value for attr in entry.Attrs})


@given(solves)
def test_what_is_added_to_a_request_changes_nothing_else_of_it(fields: dict[str, Any]) -> None:
    before = a_message("Solve", **fields)
    changed = with_cache(before.SerializeToString(), exports=[EXPORT], imports=[IMPORT])
    assert changed.startswith(before.SerializeToString())
    after = ORACLE["Solve"].FromString(changed)
    before.Cache.Exports.append(spelled(EXPORT))
    before.Cache.Imports.append(spelled(IMPORT))
    if fields.get("Frontend"):
        before.FrontendAttrs.add(key="cache-imports", value=TOLD)
    assert after == before


@given(bridge_solves)
def test_what_is_added_to_a_part_of_a_build_changes_nothing_else_of_it(
    fields: dict[str, Any],
) -> None:
    before = a_message("BridgeSolve", **fields)
    changed = with_imports(before.SerializeToString(), [IMPORT])
    assert changed.startswith(before.SerializeToString())
    after = ORACLE["BridgeSolve"].FromString(changed)
    if fields.get("Frontend"):
        before.FrontendOpt.add(key="cache-imports", value=TOLD)
    else:
        before.CacheImports.append(spelled(IMPORT))
    assert after == before


@given(solves)
def test_what_was_added_is_found_again(fields: dict[str, Any]) -> None:
    changed = with_cache(a_solve(**fields), exports=[EXPORT], imports=[IMPORT])
    solve = read_solve(changed)
    assert EXPORT in solve.exports
    assert IMPORT in solve.imports


@given(solves, solves)
def test_of_a_text_that_stands_twice_the_last_counts(
    first: dict[str, Any], last: dict[str, Any]
) -> None:
    said: Any = ORACLE["Solve"].FromString(a_solve(**first) + a_solve(**last))
    solve = read_solve(a_solve(**first) + a_solve(**last))
    assert (solve.ref, solve.session, solve.is_internal) == (said.Ref, said.Session, said.Internal)
    assert read_status(a_solve(**first) + a_solve(**last)) == said.Ref


@given(bridge_solves)
def test_what_was_added_to_a_part_is_found_again(fields: dict[str, Any]) -> None:
    assert read_bridge_solve(with_imports(a_bridge_solve(**fields), [IMPORT])).has_imports


@given(solves)
def test_a_request_is_read_as_the_oracle_reads_it(fields: dict[str, Any]) -> None:
    said: Any = a_message("Solve", **fields)
    solve = read_solve(said.SerializeToString())
    assert (solve.ref, solve.session, solve.is_internal) == (said.Ref, said.Session, said.Internal)
    assert solve.takes_imports_directly is bool(said.Definition or said.Frontend)
    old = [*said.Cache.ImportRefsDeprecated]
    imports = [understood(each) for each in said.Cache.Imports]
    assert sorted(solve.imports, key=repr) == sorted(
        [*imports, *(CacheEntry("registry", {"ref": ref}) for ref in old)], key=repr
    )
    assert {entry.ref for entry in solve.exports} == {
        *(understood(each).ref for each in said.Cache.Exports),
        *filter(None, [said.Cache.ExportRefDeprecated]),
    }


@pytest.mark.parametrize("client", [BUILDCTL, BUILDX], ids=["buildctl", "buildx"])
def test_what_clients_sent_is_read_and_extended(client: bytes) -> None:
    assert b"hunter2" in client
    solve = read_solve(client)
    assert "hunter2" not in repr(solve)
    assert not solve.takes_imports_directly
    changed = with_cache(client, exports=[EXPORT], imports=[])
    assert changed.startswith(client)
    before, after = (ORACLE["Solve"].FromString(each) for each in (client, changed))
    before.Cache.Exports.append(spelled(EXPORT))
    assert after == before


def test_what_buildctl_asks_of_caches_is_seen() -> None:
    solve = read_solve(BUILDCTL)
    assert (solve.ref, solve.session) == ("md5nbhuliuh0gfuhvmovn4ybp", "dywcxtqejq1xmz9u5iwjxsu46")
    assert solve.images == ("r.example:5000/acme/app",)
    assert [entry.ref for entry in solve.imports] == ["127.0.0.1:9/c"] * 2
    assert solve.exports == (CacheEntry("inline", {"mode": "min"}),)


def test_what_buildx_builds_is_seen() -> None:
    solve = read_solve(BUILDX)
    assert solve.source == "git.example/acme/app"
    assert solve.images == ("r.example/acme/app",)
    assert solve.imports == solve.exports == ()
    part = read_bridge_solve(BUILDX_PART)
    assert (part.has_imports, part.is_no_cache) == (False, False)
    assert read_bridge_solve(with_imports(BUILDX_PART, [IMPORT])).has_imports


@given(st.binary(max_size=60))
def test_garbage_is_called_garbage_and_nothing_else_happens(garbage: bytes) -> None:
    for read in (read_solve, read_bridge_solve, read_status, unframe):
        with suppress(WireError):
            read(garbage)


@given(st.binary(max_size=60))
def test_what_can_be_read_can_be_extended(garbage: bytes) -> None:
    for message in (garbage, field(2, garbage) + field(6, garbage)):
        try:
            read_solve(message)
        except WireError:
            continue
        assert with_cache(message, exports=[EXPORT], imports=[IMPORT]).startswith(message)
    for message in (garbage, field(2, garbage)):
        try:
            read_bridge_solve(message)
        except WireError:
            continue
        assert with_imports(message, [IMPORT]).startswith(message)


def fixed(tag: int, form: int, size: int) -> bytes:
    """A field of a fixed size."""
    return number(tag << 3 | form) + bytes(size)


tags = st.sampled_from([1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 11, 12, 13, 99])
"""Those that are read, that of the frontend often."""
fields_of_any_form = st.one_of(
    st.builds(field, tags, st.integers(0, 2**64 - 1)),
    st.builds(field, tags, st.binary(max_size=4)),
    st.builds(fixed, tags, st.just(1), st.just(8)),
    st.builds(fixed, tags, st.just(5), st.just(4)),
)


@given(st.lists(fields_of_any_form, max_size=6).map(b"".join))
@example(field(6, 1))
@example(field(6, b"dockerfile.v0") + fixed(6, 5, 4))
@example(field(6, 1) + field(6, b"dockerfile.v0"))
def test_what_can_be_read_can_be_extended_whatever_form_its_fields_have(message: bytes) -> None:
    with suppress(WireError):
        read_solve(message)
        extended = attempt(lambda: with_cache(message, exports=[EXPORT], imports=[IMPORT]))
        assert extended is not None, "it was read"
        assert extended.startswith(message)
    with suppress(WireError):
        read_bridge_solve(message)
        extended = attempt(lambda: with_imports(message, [IMPORT]))
        assert extended is not None, "it was read"
        assert extended.startswith(message)


def attempt(extend: Callable[[], bytes]) -> bytes | None:
    """What it comes to; None where it cannot read what it is to extend."""
    try:
        return extend()
    except WireError:
        return None


@given(st.integers(0, len(BUILDX) - 1), st.integers(0, 255))
def test_a_request_with_a_byte_changed_is_read_or_refused(at: int, byte: int) -> None:
    with suppress(WireError):
        read_solve(BUILDX[:at] + bytes([byte]) + BUILDX[at + 1 :])


EXPORTED: Final = field(1, b"registry") + field(2, field(1, b"ref") + field(2, b"r.example/c"))


@pytest.mark.parametrize(
    ("request_", "trouble"),
    [
        # BuildKit cuts numbers of fields to 32 bits: to it, these are 8 and 13.
        (field(8 + 2**32, field(4, EXPORTED)), "a number that is too large"),
        (field(13 + 2**32, EXPORTED), "a number that is too large"),
        # It takes what follows as text, whatever its form.
        (
            field(13, field(2, field(1, b"name") + number(2 << 3 | 1) + b"\x07a.io/xy")),
            "the value of a map entry is neither text nor a message",
        ),
        (
            field(8, field(4, field(2, field(1, b"ref") + number(2 << 3) + b"\x02xy"))),
            "the value of a map entry is neither text nor a message",
        ),
    ],
    ids=["cache", "exporter", "name", "ref"],
)
def test_no_export_can_be_hidden_where_buildkit_is_laxer(request_: bytes, trouble: str) -> None:
    with pytest.raises(WireError, match=trouble):
        read_solve(field(1, b"ref") + request_)


@pytest.mark.parametrize(
    ("request_", "trouble"),
    [
        (field(1, b"\xff"), "field Ref is not UTF-8"),
        (field(6, b"x" * 70_000), "field Frontend has more than 65536 bytes"),
        (field(7, field(1, b"cache-from") + field(2, b"\xff")), "field cache-from is not UTF-8"),
        (field(7, field(1, 1)), "field key of a map entry is not text"),
        (field(8, field(4, 1)), "cache entry is not a message"),
        (field(8, field(4, field(1, 1))), "field Type of a cache entry is not text"),
        (field(8, field(4, field(2, 1))), "map entry is not a message"),
        (field(8, field(1, 1)), "field ref of a cache entry is not text"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_with_the_field(request_: bytes, trouble: str) -> None:
    with pytest.raises(WireError) as raised:
        read_solve(request_)
    assert str(raised.value) == trouble


@pytest.mark.parametrize(
    ("request_", "trouble"),
    [
        (field(9, b"") * (MAX_FIELDS + 1), "fields"),
        (field(8, field(4, b"") * (MAX_FIELDS // 2)) * 2, "fields"),
        (field(7, field(1, b"") * (MAX_FIELDS + 1)), "fields"),
        (field(7, field(1, b"cache-from") + field(2, b"a," * 50_000)), "bytes"),
        (field(13, field(2, field(1, b"name") + field(2, b"a," * 50_000))), "bytes"),
    ],
    ids=["fields", "caches", "attributes", "imports", "images"],
)
def test_a_request_that_would_take_long_to_read_is_refused(request_: bytes, trouble: str) -> None:
    with pytest.raises(WireError, match=f"more than .* {trouble}"):
        read_solve(request_)


def test_a_large_build_argument_is_none_of_our_business() -> None:
    long = {"build-arg:LIST": "x" * 1_000_000, "no-cache": ""}
    assert read_solve(a_solve(FrontendAttrs=long)).is_no_cache
    assert read_bridge_solve(a_bridge_solve(FrontendOpt=long)).is_no_cache


def test_a_request_that_would_become_too_long_stays_as_it_is() -> None:
    solve = field(2, bytes(MAX_MESSAGE_BYTES - 5))
    part = field(1, bytes(MAX_MESSAGE_BYTES - 5))
    assert len(solve) == len(part) == MAX_MESSAGE_BYTES
    assert with_cache(solve, exports=[EXPORT], imports=[]) is solve
    assert with_imports(part, [IMPORT]) is part


def test_what_a_request_says_is_read() -> None:
    solve = read_solve(
        a_solve(
            Ref="ref",
            Session="session",
            FrontendAttrs={"vcs:source": "git@github.com:acme/app.git", "build-arg:TOKEN": "x"},
            Exporters=[{"Type": "image", "Attrs": {"name": "r.example:5000/app:v1,r.example/b"}}],
        )
    )
    assert (solve.ref, solve.session) == ("ref", "session")
    assert solve.source == "github.com/acme/app"
    assert solve.images == ("r.example:5000/app", "r.example/b")
    assert not solve.takes_imports_directly
    assert not solve.is_no_cache
    assert solve.imports == solve.exports == ()


def test_a_frontend_of_a_request_is_told_of_imports_as_it_does_not_see_those_of_buildkit() -> None:
    def told(message: bytes) -> list[str]:
        said: Any = ORACLE["Solve"].FromString(message)
        return [each.value for each in said.FrontendAttrs if each.key == "cache-imports"]

    direct = a_solve(Frontend="dockerfile.v0")
    assert told(with_cache(direct, exports=[], imports=[IMPORT])) == [TOLD]
    assert told(with_cache(direct, exports=[EXPORT], imports=[])) == []
    assert told(with_cache(a_solve(Definition=b"x"), exports=[], imports=[IMPORT])) == []


def test_old_spellings_of_exports_count_where_there_are_no_new_ones() -> None:
    old = {"ExporterDeprecated": "image", "ExporterAttrsDeprecated": {"name": "r.example/a:1"}}
    new = [{"Type": "image", "Attrs": {"name": "r.example/b"}}, {"Type": "local"}]
    assert read_solve(a_solve(**old)).images == ("r.example/a",)
    assert read_solve(a_solve(**old, Exporters=new)).images == ("r.example/b",)
    cache = {"ExportRefDeprecated": "r.example/c:1"}
    assert [entry.ref for entry in read_solve(a_solve(Cache=cache)).exports] == ["r.example/c:1"]


def test_no_secret_of_a_request_is_kept_or_shown() -> None:
    solve = read_solve(a_solve(FrontendAttrs={"build-arg:TOKEN": "hunter2", "no-cache": "hunter2"}))
    assert "hunter2" not in repr(solve)


@pytest.mark.parametrize(
    ("attributes", "is_no_cache"),
    [({}, False), ({"no-cache": ""}, True), ({"no-cache": "one,two"}, False)],
)
def test_a_build_wants_no_cache_where_all_of_it_shall_run(
    attributes: dict[str, str], is_no_cache: bool
) -> None:
    assert read_solve(a_solve(FrontendAttrs=attributes)).is_no_cache is is_no_cache
    assert read_bridge_solve(a_bridge_solve(FrontendOpt=attributes)).is_no_cache is is_no_cache


@pytest.mark.parametrize(
    "attributes",
    [
        {"cache-imports": '[{"Type":"registry","Attrs":{"ref":"r.example/x"}}]'},
        {"cache-from": "r.example/x"},
        {"cache-imports": "this is no JSON"},
        {"cache-imports": '{"a": 1}'},
    ],
)
def test_imports_are_seen_however_a_client_spells_them(attributes: dict[str, str]) -> None:
    assert read_solve(a_solve(FrontendAttrs=attributes)).imports
    assert read_bridge_solve(a_bridge_solve(FrontendOpt=attributes)).has_imports


def test_a_build_without_imports_has_none() -> None:
    assert not read_bridge_solve(a_bridge_solve(Frontend="dockerfile.v0")).has_imports
    assert not read_bridge_solve(a_bridge_solve(FrontendOpt={"cache-imports": "[]"})).has_imports


def test_a_context_that_is_a_url_is_a_source_and_a_folder_is_none() -> None:
    def source(context: str) -> str:
        return read_solve(a_solve(FrontendAttrs={"context": context})).source

    assert source("https://github.com/acme/app.git#main") == "github.com/acme/app"
    assert source("input:context") == ""
    assert source("local-dir/sub") == ""


@pytest.mark.parametrize(
    ("attributes", "is_usual"),
    [
        ({}, True),
        ({"filename": "Dockerfile", "vcs:localdir:context": "."}, True),
        ({"context": "https://github.com/acme/app.git#main"}, True),
        ({"target": "test"}, False),
        ({"filename": "web.Dockerfile"}, False),
        ({"vcs:localdir:context": "web"}, False),
        ({"context": "https://github.com/acme/app.git#main:web"}, False),
    ],
)
def test_what_is_built_of_a_repository_is_seen(attributes: dict[str, str], is_usual: bool) -> None:
    part = read_solve(a_solve(FrontendAttrs=attributes)).part
    assert (part == "") is is_usual


def test_parts_of_a_repository_are_told_apart() -> None:
    told = [{"target": "web"}, {"filename": "web"}, {"vcs:localdir:context": "web"}]
    assert len({read_solve(a_solve(FrontendAttrs=each)).part for each in told}) == len(told)


def test_both_clients_build_the_usual_part_alike() -> None:
    assert read_solve(BUILDX).part == read_solve(BUILDCTL).part == ""
    assert read_solve(BUILDX).inputs == read_solve(BUILDCTL).inputs == ""
    assert read_solve(BUILDX).is_exact is read_solve(BUILDCTL).is_exact is False


def test_a_request_says_which_variant_it_builds() -> None:
    def variant(**attributes: str) -> tuple[tuple[str, ...], str]:
        told = {name.replace("__", ":"): value for name, value in attributes.items()}
        solve = read_solve(a_solve(FrontendAttrs=told))
        return solve.platforms, solve.inputs

    told: tuple[dict[str, str], ...] = (
        {},
        {"platform": "linux/arm64"},
        {"build-arg__V": "1"},
        {"build-arg__V": "2"},
        {"build-arg__W": "1"},
        {"context__base": "docker-image://docker.io/library/alpine:3"},
        {"build-arg__V": "x" * 1_000_000},
    )
    assert len({variant(**each) for each in told}) == len(told)
    # What says nothing of the steps makes no variant.
    assert variant(**{"no-cache": "", "label__a": "b", "vcs__revision": "1"}) == ((), "")


@pytest.mark.parametrize(
    ("request_", "is_exact"),
    [
        ({"Exporters": [{"Type": "oci", "Attrs": {"rewrite-timestamp": "true"}}]}, True),
        ({"Exporters": [{"Type": "local"}, {"Attrs": {"rewrite-timestamp": "1"}}]}, True),
        ({"ExporterAttrsDeprecated": {"rewrite-timestamp": "T"}}, True),
        ({"Exporters": [{"Type": "image", "Attrs": {"rewrite-timestamp": "false"}}]}, False),
        ({"FrontendAttrs": {"attest:provenance": "mode=max"}}, True),
        ({"FrontendAttrs": {"attest:provenance": "builder-id=a,mode=full"}}, True),
        ({"FrontendAttrs": {"attest:provenance": '"mode=max"'}}, True),
        ({"FrontendAttrs": {"attest:provenance": ""}}, True),
        ({"FrontendAttrs": {"attest:provenance": "mode=min,mode=max"}}, True),
        ({"FrontendAttrs": {"attest:provenance": '"'}}, True),
        ({"FrontendAttrs": {"build-arg:BUILDKIT_ATTEST_PROVENANCE": "mode=max"}}, True),
        ({"FrontendAttrs": {"attest:provenance": "mode=min,inline-only=true"}}, False),
        ({"FrontendAttrs": {"attest:sbom": "mode=max"}}, False),
        ({}, False),
    ],
)
def test_builds_whose_result_depends_on_imported_layers_are_seen(
    request_: dict[str, Any], is_exact: bool
) -> None:
    assert read_solve(a_solve(**request_)).is_exact is is_exact


def test_a_body_is_exactly_one_message() -> None:
    assert unframe(frame(b"message")) == b"message"
    for body in (b"", b"\0\0\0\0", frame(b"a") + frame(b"b"), frame(b"abc")[:-1]):
        with pytest.raises(WireError, match="exactly one message"):
            unframe(body)
    with pytest.raises(WireError, match="compressed"):
        unframe(b"\1" + frame(b"a")[1:])


def test_the_build_that_a_status_is_about_is_read() -> None:
    assert read_status(a_solve(Ref="ref")) == "ref"
    assert read_status(a_solve(Ref="other") + a_solve(Ref="ref")) == "ref"
    assert read_status(b"") == ""


def test_the_names_of_builds_and_sessions_are_short() -> None:
    assert read_solve(a_solve(Ref="r" * MAX_NAME_CHARACTERS)).ref == "r" * MAX_NAME_CHARACTERS
    for which in ("Ref", "Session"):
        with pytest.raises(WireError, match="more than 256 characters"):
            read_solve(a_solve(**{which: "r" * (MAX_NAME_CHARACTERS + 1)}))


def test_what_is_no_frontend_or_build_is_said_with_the_field() -> None:
    with pytest.raises(WireError, match=r"^field Frontend is not text$"):
        read_bridge_solve(field(2, 1))
    with pytest.raises(WireError, match=r"^field Ref is not text$"):
        read_status(field(1, 1))
