"""What is fetched to make the image and the development environment is pinned, by hash."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
DOCKERFILE = (PROJECT / "Dockerfile").read_text().replace("\\\n", " ")


def pinned(file: str) -> dict[str, str]:
    """Versions by name."""
    text = (PROJECT / "requirements" / file).read_text()
    found = re.findall(r"^([\w.-]+)==(\S+)(?: ;[^\\]*)? \\\n    --hash=sha256:", text, re.MULTILINE)
    # Every line with a pin has a hash.
    assert len(found) == len(re.findall(r"^[\w.-]+(?:\[.*\])?==", text, re.MULTILINE))
    return dict(found)


def commands(text: str) -> list[str]:
    """Each run of pip, from its name to the end of the command."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        m[0] for m in re.finditer(r"\bpip (?:--\S+ \S+ |-\S+ )*(?:install|wheel)\b[^&|\n]*", joined)
    ]


@pytest.mark.parametrize("place", ["Dockerfile", "Makefile"])
def test_pip_fetches_nothing_that_has_no_hash(place: str) -> None:
    found = commands((PROJECT / place).read_text())
    assert len(found) >= 2
    for command in found:
        if "--no-index" in command:
            continue
        assert "--no-deps" in command or "--require-hashes" in command, command
        # To build a wheel in isolation, pip fetches what builds it, and looks at no hash.
        assert "--require-hashes" in command or "--no-build-isolation" in command, command


def test_the_demo_builds_its_wheel_without_isolation() -> None:
    text = (PROJECT / "demo" / "install.py").read_text()
    assert '"wheel", "--no-deps", "--no-build-isolation"' in text
    assert '"download", "--require-hashes"' in text


def test_what_builds_the_wheel_is_pinned_wherever_it_is_built() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    needed = {re.split(r"[<>=~!;\[ ]", each)[0] for each in project["build-system"]["requires"]}
    assert project["build-system"]["requires"] == project["dependency-groups"]["build"]
    assert needed <= pinned("build.txt").keys()
    # The development environment builds it, too, with the same ones.
    assert pinned("build.txt").items() <= pinned("dev.txt").items()
    assert pinned("operator.txt").items() <= pinned("dev.txt").items()


def test_the_builder_sees_what_the_dockerfile_copies_and_no_more() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    listed = (PROJECT / ".dockerignore").read_text().splitlines()
    seen = [line.removeprefix("!") for line in listed if line.startswith("!")]
    assert sorted(copied) == sorted(seen)
    assert "*" in listed
    assert not any(fnmatch("requirements/dev.txt", each) for each in seen)


def test_both_stages_are_of_one_base_that_a_release_can_pin() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases == ["${PYTHON}", "scratch", "${PYTHON}"]
    (default,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", default)


def the_release(text: str) -> list[str]:
    """The words of the command that builds and pushes a release; names and versions left out."""
    plain = re.sub(r"^#|[`\\]", " ", text, flags=re.MULTILINE)
    found = re.search(
        r"SOURCE_DATE_EPOCH=\S+ log -1 --format=%ct\) docker buildx build (.*?) \.\s",
        plain,
        re.DOTALL,
    )
    assert found is not None
    words = found[1].replace("--build-arg VERSION=X.Y.Z", "").split()
    return [re.sub(r"name=[^,]*", "name=", word) for word in words]


def test_the_release_is_built_as_is_written_wherever_that_is() -> None:
    written = [
        the_release((PROJECT / file).read_text()) for file in ("Dockerfile", "docs/development.md")
    ]
    assert written[0] == written[1]
    for needed in (
        "linux/amd64,linux/arm64",
        "--sbom=true",
        "--provenance=mode=max",
        "type=image,name=,push=true,rewrite-timestamp=true",
    ):
        assert needed in written[0]
