"""Every mistake of the user's is one line and exit code 1, never a traceback."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from buildpool.cli import main
from buildpool.cli.render import rendered
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import Installation

PROJECT = Path(__file__).parents[3]
FULL = yaml.safe_load((PROJECT / "manifests" / "samples" / "pool-full.yaml").read_text())
OPERATOR = Installation("buildpool-system", "buildpool:1")
POOL = {"apiVersion": "buildpool.dev/v1alpha1", "kind": "BuildKitPool", "metadata": {"name": "ci"}}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: object
    out: str
    err: str


Buildpool = Callable[..., Done]


@pytest.fixture
def buildpool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Buildpool:
    """The command, as users run it, without the seconds that a process of its own takes."""

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["buildpool", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(ended.value.code, said.out, said.err)

    return run


def is_one_line(done: Done, said: str) -> None:
    """What a mistake looks like."""
    assert (done.code, done.out) == (1, ""), done
    assert len(done.err.splitlines()) == 1, done
    assert done.err.startswith("error: ")
    assert said in done.err


def test_a_mistake_is_no_traceback() -> None:
    command = [sys.executable, "-m", "buildpool.cli", "render", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == "error: /nowhere cannot be read: No such file or directory\n"
    assert (done.returncode, done.stdout) == (1, "")


def test_a_manifest_that_cannot_be_read_is_one_line(buildpool: Buildpool, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"kind: \xff")
    is_one_line(buildpool("render", f"{tmp_path}/absent"), "cannot be read: No such file")
    is_one_line(buildpool("render", str(tmp_path)), "cannot be read: Is a directory")
    is_one_line(buildpool("render", f"{tmp_path}/binary"), "is no UTF-8 text")
    is_one_line(buildpool("render", "-", stdin=b"\xff"), "- is no UTF-8 text")


MANIFESTS = {
    "a mistake of syntax": ("a: [1,\nb: 2", "no YAML: expected ',' or ']', but got"),
    "a tab": ("a:\n\tb: 1", "no YAML: found character"),
    "a list": ("- kind: BuildKitPool", "document 1 is no object"),
    "a word, later": ("kind: Namespace\n---\nBuildKitPool", "document 2 is no object"),
    "nothing": ("", "holds no BuildKitPool"),
    "another kind": ("kind: Namespace", "holds no BuildKitPool"),
    "no metadata": ("kind: BuildKitPool", "has no name"),
    "a number for a name": ("kind: BuildKitPool\nmetadata: {name: 1}", "has no name"),
    "a namespace that is none": (
        "kind: BuildKitPool\nmetadata: {name: ci, namespace: [a]}",
        "no name of a namespace",
    ),
    "an impossible date": ("a: 2026-99-99", "no YAML of an object: month must be in 1..12"),
    "a number without digits": ('a: !!int ""', "no YAML of an object"),
    "within itself": ("&a {kind: BuildKitPool, spec: *a}", "Circular reference"),
    "half a character": (r'{kind: BuildKitPool, metadata: {name: "\ud800"}}', "no YAML of an"),
    "an endless number": ("{kind: BuildKitPool, spec: .inf}", "no YAML of an object"),
    "too deep": ("[" * 5000, "no YAML of an object"),
    "no fields in the spec": ("kind: BuildKitPool\nmetadata: {name: ci}\nspec: [1]", "spec"),
    "two fields that are wrong": (
        "kind: BuildKitPool\nmetadata: {name: CI}\nspec: {scaling: {min: -1}}",
        "metadata.name: ",
    ),
}


@pytest.mark.parametrize(("text", "said"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_wrong_is_one_line(buildpool: Buildpool, text: str, said: str) -> None:
    is_one_line(buildpool("render", "-", stdin=text.encode()), said)


def test_of_several_mistakes_the_first_is_said(buildpool: Buildpool) -> None:
    text = yaml.safe_dump({**POOL, "spec": {"scaling": {"min": -1}, "nonsense": 1}})
    done = buildpool("render", "-", stdin=text.encode())
    is_one_line(done, "spec.")
    assert done.err.count("spec.") == 1


def test_a_mistake_moves_no_cursor(buildpool: Buildpool) -> None:
    text = yaml.safe_dump({**POOL, "metadata": {"name": "ci", "namespace": "\x1b[31m\x07"}})
    done = buildpool("render", "-", stdin=text.encode())
    assert done.err.removesuffix("\n").isprintable()


def test_a_namespace_that_is_none_is_one_line(buildpool: Buildpool) -> None:
    text = yaml.safe_dump(POOL).encode()
    is_one_line(buildpool("render", "-", "-n", "A", stdin=text), "'A' is no name of a namespace")
    home = ("--operator-namespace", "a b")
    is_one_line(buildpool("render", "-", *home, stdin=text), "'a b' is no name of a namespace")


def objects(text: str, namespace: str = "default") -> list[dict[str, Any]]:
    """What a pool would consist of."""
    made = rendered(text, namespace=namespace, operator=OPERATOR)
    return list(yaml.safe_load_all(made))


def test_a_pool_without_a_namespace_is_rendered_into_the_one_that_is_asked_for(
    buildpool: Buildpool,
) -> None:
    def namespaces(pool: dict[str, Any], *given: str) -> set[str]:
        made = objects(yaml.safe_dump(pool), *given)
        return {each["metadata"]["namespace"] for each in made}

    named = {**POOL, "metadata": {"name": "ci", "namespace": "builds"}}
    assert namespaces(POOL) == {"default", "buildpool-system"}
    assert namespaces(POOL, "other") == {"other", "buildpool-system"}
    assert namespaces(named, "other") == {"builds", "buildpool-system"}
    done = buildpool("render", "-", "-n", "other", stdin=yaml.safe_dump(POOL).encode())
    assert (done.code, done.err) == (0, "")
    assert "namespace: other" in done.out


def test_what_only_the_api_server_writes_is_of_no_account() -> None:
    """A manifest may come out of `kubectl get -o yaml`, by way of a tool that unquotes dates."""
    stored = {"name": "ci", "generation": "x", "annotations": 1}
    text = yaml.safe_dump({**POOL, "metadata": stored, "status": "odd"})
    assert objects(text.replace("  name:", "  creationTimestamp: 2026-01-01T00:00:00Z\n  name:"))


def test_a_date_is_a_text_and_so_is_all_of_unicode() -> None:
    labels = "{day: 2026-01-01, sign: \U0001f600}"
    spec = f"{{scaling: {{min: 1}}, builders: {{podAnnotations: {labels}}}}}"
    text = f"{yaml.safe_dump(POOL)}spec: {spec}"
    (pod,) = (each["spec"]["template"] for each in objects(text) if each["kind"] == "Deployment")
    found = pod["metadata"]["annotations"]
    assert (found["day"], found["sign"]) == ("2026-01-01", "\U0001f600")


def ends_well(text: str) -> None:
    """It is rendered, or refused on purpose."""
    with suppress(BuildpoolError):
        rendered(text, namespace="default", operator=OPERATOR)


TOKENS = """
kind: | BuildKitPool | metadata: | name: | ci | spec: | scaling: | min: | --- | - | : | { | } | [
] | , | &a | *a | !!int | !!set | !!binary | !!timestamp | !!float | 2026-13-01 | 0x | 1_ | ' | "
\\ud800 | ? | > | # | % | @ | ~ | << | é | 1:2:3 | .nan | 0b
"""
SPACES = ("\n", "\n  ", "\n    ", " ", "\t", "\0", "|")
YAML_ISH = st.lists(
    st.sampled_from((*(token.strip() for token in re.split(r"[|\n]", TOKENS)), *SPACES)),
    max_size=25,
).map("".join)


@given(st.text(max_size=60) | YAML_ISH)
def test_no_text_ends_in_a_traceback(text: str) -> None:
    ends_well(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "1", "1Gi", "-1s", "9" * 400, "0s", "ci", "*", "a=b", "\x00"])
    | st.dates()
    | st.datetimes()
    | st.binary(max_size=4),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers(), below, max_size=3)
    ),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something is in a document."""
    below: Callable[[Any], Any] = lambda each: ()  # noqa: E731
    if isinstance(value, dict):
        below = dict.items
    elif isinstance(value, list):
        below = enumerate
    return [at, *(found for key, inner in below(value) for found in paths(inner, (*at, key)))]


def with_another(value: Any, at: tuple[Any, ...], other: Any) -> Any:
    """A document with another value at one place."""
    if not at:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = with_another(value[at[0]], at[1:], other)
    return copy


@given(st.sampled_from(paths(FULL)), VALUES)
def test_no_value_in_a_pool_ends_in_a_traceback(at: tuple[Any, ...], value: Any) -> None:
    try:
        text = yaml.safe_dump(with_another(FULL, at, value))
    except UnicodeEncodeError:
        return
    ends_well(text)
