"""What is generated is fresh, what is written twice agrees, and nothing tells where it was made."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import buildpool
from buildpool.cli.docs import rendered
from buildpool.cli.flags import Page
from buildpool.core import naming
from buildpool.core.api import crd, parse_pool

PROJECT = Path(__file__).parents[2]
CRD = "buildkitpools.buildpool.dev.yaml"
CHART = PROJECT / "manifests" / "helm" / "buildpool"
SAMPLES = sorted((PROJECT / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.parametrize(
    "copy",
    [
        f"crds/{CRD}",
        f"manifests/helm/buildpool/files/{CRD}",
        "manifests/kustomize/crd.yaml",
    ],
)
def test_the_crd_is_made_from_the_models(copy: str) -> None:
    assert (PROJECT / copy).read_text() == crd.render(), "run `make generate`"


@pytest.mark.parametrize("page", Page)
def test_a_page_of_the_reference_is_made_from_the_code(page: Page) -> None:
    written = (PROJECT / "docs" / "reference" / f"{page}.md").read_text()
    assert written == rendered(page), "run `make generate`"


def test_users_can_look_up_every_label_and_annotation() -> None:
    page = (PROJECT / "docs" / "reference" / "labels.md").read_text()
    ours = {
        value
        for value in vars(naming).values()
        if isinstance(value, str) and value.startswith(f"{naming.GROUP}/")
    } - {naming.API_VERSION}
    assert len(ours) > 5
    assert {name for name in ours if f"`{name}`" not in page} == set()


def test_there_is_one_version() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    changes = (PROJECT / "CHANGELOG.md").read_text()
    released = re.search(r"^## \[?(\d+\.\d+\.\d+)", changes, re.MULTILINE)
    assert released is not None
    assert {
        "pyproject.toml": project["version"],
        "the chart": chart["version"],
        "the chart's image": chart["appVersion"],
        "the top of CHANGELOG.md": released[1],
    } == dict.fromkeys(
        ("pyproject.toml", "the chart", "the chart's image", "the top of CHANGELOG.md"),
        buildpool.__version__,
    )


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_a_sample_is_a_valid_pool(file: Path) -> None:
    documents = list(yaml.safe_load_all(file.read_text()))
    pools = [document for document in documents if document["kind"] == naming.KIND]
    assert pools
    for pool in pools:
        # As stored: what the API server adds to every object.
        parse_pool({**pool, "metadata": {**pool["metadata"], "uid": "u", "generation": 1}})


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end with, as GitHub spells it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in plain}


PAGES = sorted(
    [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), PROJECT / "devcluster" / "README.md"]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_in_the_docs_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads to no file"
        assert not anchor or anchor in anchors(target), f"{link} leads to no heading"


UNTOUCHED = ("CHANGELOG.md",)
FOLDERS = ("operator", "tests", "docs", "demo", "manifests", "crds", "requirements")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+|[\w./-]+/[\w.-]+\.py)`")


@pytest.mark.parametrize(
    "page",
    # Decisions and changes stay as they were written. The architecture is to be written again.
    [page for page in PAGES if page.parent.name != "adr" and page.name not in UNTOUCHED],
    ids=lambda page: str(page.relative_to(PROJECT)),
)
def test_every_path_in_the_docs_exists(page: Path) -> None:
    homes = [PROJECT / home for home in ("", "operator/buildpool", "operator/buildpool/core")]
    named = PATH.findall(page.read_text())
    assert {path for path in named if not any((home / path).exists() for home in homes)} == set()


def below(folder: str) -> str:
    """A path, put together: this file must not hold what it looks for."""
    return f"/{folder}/"


INDEX = "https:/" + "/index.example"
TRACES = {
    "the home of root": (below("root"), below("root") + "src"),
    # BuildKit's own image has a user of that name.
    "somebody's home": (below("home") + r"(?!user/|user\b|someone)[a-z]", below("home") + "ana"),
    "a work folder": (r"(?<![\w.}])" + below("work"), "cd " + below("work")),
    "a package index": (
        r"(?i)(index[-_]url|goproxy|registry)\s*[=: ]\s*['\"]?https?://",
        f"--index-url {INDEX}",
    ),
    "a package registry": (
        r"https?://[^\s\"']*/(?:simple|pypi|artifactory|nexus)/",
        f"{INDEX}/simple/kopf",
    ),
}


@pytest.mark.parametrize(("pattern", "example"), TRACES.values(), ids=TRACES)
def test_no_file_tells_where_it_was_made(pattern: str, example: str) -> None:
    trace = re.compile(pattern)
    assert trace.search(example)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    files = [PROJECT / name for name in listed.stdout.splitlines()]
    assert len(files) > 100
    found = [
        f"{file.relative_to(PROJECT)}:{number}: {line.strip()[:100]}"
        for file in files
        if file.is_file()
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if trace.search(line)
    ]
    assert found == []


TOLD = [
    *PAGES,
    *PROJECT.glob("manifests/samples/*.yaml"),
    CHART / "templates" / "NOTES.txt",
]


@pytest.mark.parametrize("file", TOLD, ids=lambda file: str(file.relative_to(PROJECT)))
def test_nobody_is_told_to_run_anything_in_the_operators_pod(file: Path) -> None:
    """Its token may do all that the operator may."""
    text = file.read_text().replace("\\\n", " ")
    commands = re.findall(r"kubectl[^\n`]* exec [^\n`]*", text)
    operators = re.compile(r"buildpool-system|(deployment|deploy|pod)s?/buildpool")
    assert [command for command in commands if operators.search(command)] == []
