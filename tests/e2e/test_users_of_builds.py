"""Files of users that the user namespace of a builder does not have, and what helps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from buildpool.core.api.builders import BUILDKIT_VERSION
from cluster import PROJECT, Api, eventually
from e2e.clients import BASE, Client, client_of, context, run
from e2e.pools import change, deploy, settle

ROOTLESS = f"moby/buildkit:{BUILDKIT_VERSION}-rootless"
WIDE = "registry.example.com/buildkit:wide"
LAST, FIRST_ABSENT = 65535, 70000
OPENSHIFT = 1000620000
PAGE = PROJECT / "docs" / "how-to" / "troubleshoot.md"
STEPS = {
    "a step changes an owner": "RUN touch /file && chown {user}:{user} /file",
    "a file is copied for a user": "COPY --chown={user}:{user} Dockerfile /file",
}


def built(client: Client, folder: Path, step: str, user: int) -> str:
    """What a build with this step prints in the end; nothing where it succeeds."""
    files = context(folder, f"FROM {BASE}\n{step.format(user=user)}\n")
    done = run(*client.build_command(files))
    return done.stderr if done.returncode else ""


def told_symptoms() -> list[str]:
    """The errors that the page explains in its row about these users."""
    (row,) = (line for line in PAGE.read_text().splitlines() if "65,535" in line and "| `" in line)
    return [each.rpartition(": ")[2] for each in re.findall(r"`([^`]+)`", row.split("|")[1])]


@pytest.mark.parametrize("security", ["Rootless", "UserNamespace"])
def test_users_above_those_of_the_builder_fail_with_the_words_that_the_page_explains(
    api: Api, namespace: str, tmp_path: Path, security: str
) -> None:
    deploy(api, "ci", namespace, builders={"security": security})
    client = client_of(api, "ci", namespace, tmp_path)
    for number, step in enumerate(STEPS.values()):
        assert built(client, tmp_path / f"good-{number}", step, LAST) == ""
        said = built(client, tmp_path / f"bad-{number}", step, FIRST_ABSENT)
        assert any(symptom in said for symptom in told_symptoms()), said


def wide_image(client: Client, folder: Path) -> None:
    """Has the pool build the image of the page, and brings it to the node."""
    text = dedent(PAGE.read_text().partition("```dockerfile\n")[2].partition("```")[0])
    made = subprocess.run(
        [sys.executable, "-m", "devcluster", "image", "buildkit-rootless"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    layout, archive = Path(made.stdout.strip()), folder / "image.tar"
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    client.build(
        context(folder / "wide", text),
        *("--oci-layout", f"rootless={layout}"),
        *("--opt", f"context:{ROOTLESS}=oci-layout://rootless@{digest}"),
        *("--output", f"type=oci,name={WIDE},dest={archive}"),
    )
    load = [sys.executable, "-m", "devcluster", "load", str(archive)]
    subprocess.run(load, cwd=PROJECT, capture_output=True, timeout=120, check=True)


@pytest.mark.skipif("DEVCLUSTER_NAME" not in os.environ, reason="the image is loaded into it")
def test_a_rootless_image_with_more_users_builds_their_files(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    deploy(api, "ci", namespace)
    wide_image(client_of(api, "ci", namespace, tmp_path), tmp_path)
    change(api, "ci", namespace, builders={"image": WIDE})
    settle(api, "ci", namespace)
    # A builder that drains may get one more build.
    eventually(
        lambda: api.condition("ci", namespace, "Progressing").get("reason") == "Settled",
        within=60,
        what="the builder before is gone",
    )
    client = client_of(api, "ci", namespace, tmp_path)
    for number, step in enumerate(STEPS.values()):
        for user in (FIRST_ABSENT, OPENSHIFT):
            assert built(client, tmp_path / f"{user}-{number}", step, user) == ""
