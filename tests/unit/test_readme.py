"""What README tells people to type: a shell can read it, and what it names is there."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from buildpool.cli.render import rendered
from buildpool.core.api import parse_pool
from buildpool.core.objects.refs import Object
from samples import INSTALLATION

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
CONNECT = (PROJECT / "docs" / "how-to" / "connect.md").read_text()
QUICKSTART = (PROJECT / "docs" / "quickstart.md").read_text()
SAMPLE = (PROJECT / "manifests" / "samples" / "pool.yaml").read_text()
VALUES = yaml.safe_load((PROJECT / "manifests" / "helm" / "buildpool" / "values.yaml").read_text())


def commands_of(page: str) -> Iterator[str]:
    """What stands behind a prompt, with the lines that belong to it; no output."""
    for block in re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^\$ (.*(?:\n[ ]+.*)*)", block, re.MULTILINE)


COMMANDS = list(commands_of(README))
BY_HAND = "\n".join(commands_of(CONNECT))
TEXT = "\n".join(COMMANDS)


def the(kind: str, name: str) -> Object:
    """One of the objects of the pool that README creates, with `Direct` routing."""
    direct = SAMPLE.replace("\nspec:\n", "\nspec:\n  routing: Direct\n")  # as that page says
    (pool,) = (o for o in yaml.safe_load_all(direct) if o["kind"] == "BuildKitPool")
    namespace = pool["metadata"]["namespace"]
    objects = yaml.safe_load_all(rendered(direct, namespace=namespace, operator=INSTALLATION))
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_can_read_each_command(command: str) -> None:
    read = subprocess.run(
        ["bash", "-n"], input=command, capture_output=True, text=True, check=False
    )
    assert (read.returncode, read.stderr) == (0, ""), command


def test_files_that_are_applied_are_there() -> None:
    files = re.findall(r"(?:apply|create) -f (\S+)|helm/buildpool\b", TEXT)
    assert files
    assert all((PROJECT / file).exists() for file in filter(None, files))


def test_the_files_of_a_client_are_in_its_secret() -> None:
    (files, secret) = re.findall(r"for file in (.*?); do\s+kubectl get secret (\S+)", BY_HAND)[0]
    data = the("Secret", secret)["data"]
    for file in files.split():
        assert base64.b64decode(data[file]).startswith(b"-----BEGIN ")


def test_what_is_forwarded_is_the_pools_service() -> None:
    name, port = re.findall(r"port-forward -n builds service/(\S+) (\d+)", BY_HAND)[0]
    assert int(port) in [each["port"] for each in the("Service", name)["spec"]["ports"]]


def test_the_sample_is_the_pool_that_is_waited_for() -> None:
    name, namespace = re.findall(r"kubectl wait bkp (\S+) -n (\S+)", QUICKSTART)[0]
    (raw,) = (o for o in yaml.safe_load_all(SAMPLE) if o["kind"] == "BuildKitPool")
    raw["metadata"] |= {"uid": "u", "generation": 1}
    assert parse_pool(raw).key == (namespace, name)


def test_values_and_fields_that_are_named_exist() -> None:
    for path in re.findall(r"--set ([\w.]+)=", TEXT):
        found = VALUES
        for name in path.split("."):
            found = found[name]


def test_no_sentence_of_any_page_has_two_spaces_between_words() -> None:
    pages = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
    found = []
    for page in pages:
        prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [f"{page.name}: {each}" for each in re.findall(r"\w+[,.;:]? {2,}[\w(]+", prose)]
    assert found == []
