"""What requests build: the same however it is spelled, and nothing that is not."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit.solve_identity import (
    MAX_INPUTS,
    MAX_STEADIED_BYTES,
    Inputs,
    folder_of,
    part_of,
    platforms_of,
    repository_of,
)


@pytest.mark.parametrize(
    ("url", "repository"),
    [
        ("https://github.com/acme/app", "github.com/acme/app"),
        ("https://GitHub.com/acme/App.git", "github.com/acme/App"),
        ("https://user:secret@github.com/acme/app.git#main:sub", "github.com/acme/app"),
        ("https://user:s@cret@github.com/acme/app?ref=main", "github.com/acme/app"),
        ("HTTPS://user@github.com/acme/app", "github.com/acme/app"),
        ("deploy:acme/app", "deploy/acme/app"),
        # Not to be told from a host with a path, where a password has signs of its own.
        ("https://user:sec#ret@github.com/acme/app", ""),
        ("https://user:sec?ret@github.com/acme/app", ""),
        ("https://user:sec/ret@github.com/acme/app", ""),
        # Folders of somebody's machine are no repositories of everybody's.
        ("../app", ""),
        ("srv/git/app", ""),
        ("/srv/git/app", ""),
        ("C:/git/app", ""),
        ("file:///srv/git/app", ""),
        ("git@github.com:acme/app.git", "github.com/acme/app"),
        ("ssh://git@host.example:22/acme/app.git", "host.example:22/acme/app"),
        ("git://host.example/app/", "host.example/app"),
        ("github.com/acme/app#v1", "github.com/acme/app"),
        ("", ""),
        (".", ""),
        ("https://host.example", ""),
        # An archive that a client uploads has another name each time.
        ("http://buildkit-session/g5v3o4f9hq1mbbe", ""),
    ],
)
def test_a_repository_is_always_spelled_the_same_and_without_secrets(
    url: str, repository: str
) -> None:
    assert repository_of(url) == repository


FOLDERS = st.lists(
    st.text("abcxyz019._- +&=%\u00e4", min_size=1, max_size=6).filter(
        lambda name: name not in (".", "..")
    ),
    max_size=3,
).map("/".join)
BRANCHES = st.sampled_from(["", "main", "refs/heads/a/b", "v1.2"])
SCHEMES = st.sampled_from(
    ["https://github.com/acme/app.git", "git@github.com:acme/app.git", "github.com/acme/app"]
)
OTHERS = st.dictionaries(
    st.sampled_from(["ref", "tag", "branch", "checksum", "commit", "submodules", "keep-git-dir"]),
    st.sampled_from(["1", "main", "subdir", "a:b", "v1&2"]),
)


@given(SCHEMES, FOLDERS, BRANCHES, OTHERS, st.booleans(), st.randoms())
def test_a_folder_of_a_repository_is_the_same_in_all_spellings(
    url: str, folder: str, branch: str, others: dict[str, str], is_last: bool, random: object
) -> None:
    ways = [quote, quote_plus]
    spelled = [f"{url}#{branch}:{quote(folder)}", f"{url}#:/{quote(folder)}/"]
    for way in ways:
        fields = [f"{name}={quote_plus(value)}" for name, value in others.items()]
        fields.insert(len(fields) * is_last, f"subdir={way(folder)}")
        spelled.append(f"{url}?{'&'.join(fields)}")
        spelled.append(f"{spelled[-1]}#{branch}")
    if not folder:
        spelled += [url, f"{url}#{branch}", f"{url}?ref=main"]
    assert {folder_of(each) for each in spelled} == {folder}
    told = {(repository_of(each), part_of({"context": each})) for each in spelled}
    assert len(told) == 1
    usual = part_of({"context": url})
    assert (told == {(repository_of(url), usual)}) is (folder == "")


def test_the_folder_of_what_is_no_repository_is_none() -> None:
    for context in ("", ".", "input:context", "./a?subdir=b", "a#b:c"):
        assert folder_of(context) == ""


@given(st.text())
def test_whatever_a_context_is_it_has_a_folder_or_none(context: str) -> None:
    for url in (context, f"https://github.com/{context}", f"https://h/a.git?{context}#{context}"):
        assert not folder_of(url).startswith("/")
        repository_of(url)


@pytest.mark.parametrize(
    ("asked", "platforms"),
    [
        ("", ()),
        ("linux/amd64", ("linux/amd64",)),
        ("linux/arm64/v8", ("linux/arm64",)),
        ("linux/AArch64", ("linux/arm64",)),
        ("linux/arm/v7", ("linux/arm",)),
        ("linux/arm/v6", ("linux/arm/v6",)),
        ("linux/x86_64,linux/arm64, linux/amd64", ("linux/amd64", "linux/arm64")),
        (",", ()),
    ],
)
def test_a_platform_is_the_same_in_all_spellings(asked: str, platforms: tuple[str, ...]) -> None:
    assert platforms_of({"platform": asked}) == platforms


def inputs(**arguments: str) -> str:
    told = Inputs()
    for name, value in arguments.items():
        told.add(f"build-arg:{name}", memoryview(value.encode()))
    return told.digest


def one_input(name: str, value: bytes) -> str:
    told = Inputs()
    told.add(name, memoryview(value))
    return told.digest


@given(st.lists(st.text("abc./-123", max_size=5), min_size=2, max_size=6, unique=True))
def test_variants_of_one_argument_are_told_apart(values: list[str]) -> None:
    assert len({inputs(VERSION=value) for value in values}) == len(values)


@given(st.dictionaries(st.sampled_from("VWXYZ"), st.text(max_size=4), min_size=1))
def test_the_order_of_arguments_makes_no_variant(arguments: dict[str, str]) -> None:
    backwards = dict(reversed(arguments.items()))
    assert inputs(**arguments) == inputs(**backwards)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("VERSION", "1.4.2-7-g0a1b2c3", "1.4.2-7-gfe3d2c1"),
        ("VERSION", "1.4.2+20261130", "1.4.2+20261201"),
        ("LABEL", "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567", "1" * 40),
        ("WHEN", "2026-11-30T20:39:13.5Z", "2026-12-01T04:05Z"),
        ("ID", "123e4567-e89b-12d3-a456-426614174000", "00000000-e89b-12d3-a456-426614174009"),
        ("TAG", "ci-81234", "ci-81235"),
        ("GIT_SHA", "a", "b"),
        ("VCS_REF", "a", "b"),
        ("BUILD_NUMBER", "17", "18"),
        ("CI-JOB-TOKEN", "x", "y"),
        ("SOURCE_DATE_EPOCH", "0", "1"),
        ("BUILDKIT_INLINE_CACHE", "0", "1"),
        ("HTTPS_PROXY", "http://a", "http://b"),
    ],
)
def test_what_is_another_in_every_build_makes_no_variant(name: str, one: str, other: str) -> None:
    assert inputs(V="1", **{name: one}) == inputs(V="1", **{name: other})


def test_words_that_could_be_numbers_are_words() -> None:
    told = ["acceded", "effaced", "facade", "3.12", "2024", "release"]
    assert len({inputs(VERSION=each) for each in told}) == len(told)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("docker-image://docker.io/library/a:1", "docker-image://docker.io/library/a:1@sha256:0"),
        ("oci-layout://abc@sha256:1", "oci-layout://xyz@sha256:2"),
        ("local:base", "local:other"),
        ("https://u:p@github.com/a/b.git#main:x", "https://github.com/a/b.git?subdir=x&ref=1"),
    ],
)
def test_a_named_context_is_the_same_though_its_content_is_another(one: str, other: str) -> None:
    made = {one_input("context:base", each.encode()) for each in (one, other)}
    assert len(made) == 1


def test_named_contexts_make_variants() -> None:
    told = [
        ("context:a", b"docker-image://a:1"),
        ("context:a", b"docker-image://a:2"),
        ("context:b", b"docker-image://a:1"),
        ("context:a", b"https://github.com/a/b.git#:x"),
        ("context:a", b"https://github.com/a/b.git#:y"),
        ("context:a", b"local:a"),
    ]
    made = {one_input(name, value) for name, value in told}
    assert len(made) == len(told)


@given(st.binary(max_size=2 * MAX_STEADIED_BYTES))
def test_whatever_bytes_an_input_has_it_makes_a_variant(value: bytes) -> None:
    for name in ("build-arg:X", "context:x"):
        assert one_input(name, value)


def test_builds_with_too_many_arguments_to_look_at_are_one_variant() -> None:
    def many(value: str, number: int) -> str:
        return inputs(**{f"X{each}": value for each in range(number)})

    assert many("1", MAX_INPUTS) != many("2", MAX_INPUTS)
    assert many("1", MAX_INPUTS + 1) == many("2", MAX_INPUTS + 2) != ""
