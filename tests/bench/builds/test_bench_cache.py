"""What the shared cache is worth: one project, built without it, with it, and with a local cache.

Ratios within one run count; seconds depend on the machine. The client gets the whole image each
time. Each round:

    none      on an empty builder, without a cache
    local     again there, from its own cache
    export    again there, exporting to the pool's shared cache: what the export costs
    shared    on another builder that is empty, from the shared cache
    changed   on the first one again, with a source file changed
    exported  the same with another change, exporting: what the export of a changed build costs

It is exported as the gateway would have it: ``mode=max`` and ``ignore-error``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import PROJECT, Api
from e2e.clients import Client, client_of, run
from e2e.pools import address_of, deploy, serving

SOURCE = Path(__file__).parent / "project"
ROUNDS = 3
BASE = "python:3.11-slim-bookworm"


@pytest.fixture(scope="module")
def base() -> list[str]:
    """Options that hand the base image in, where builders have no registry to pull it from."""
    if "DEVCLUSTER_NAME" not in os.environ:
        return []
    command = [sys.executable, "-m", "devcluster", "image", "python"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    layout = Path(done.stdout.strip())
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    named = f"context:{BASE}=oci-layout://python@{digest}"
    return ["--oci-layout", f"python={layout}", "--opt", named]


def test_bench_a_project_without_with_and_with_a_local_cache(
    api: Api, shared_namespace: str, tmp_path: Path, base: list[str]
) -> None:
    cache = {"registry": {"managed": {"storage": {"size": "2Gi"}}}}
    deploy(api, "ci", shared_namespace, scaling={"min": 2}, cache=cache)
    through = client_of(api, "ci", shared_namespace, tmp_path)
    pods = [serving(api, f"ci-builder-{number}", shared_namespace) for number in (0, 1)]
    first, second = (through.at(address_of(pod)) for pod in pods if pod)
    ref = f"type=registry,ref=ci-cache.{shared_namespace}.svc:5000/shop:main"
    project = shutil.copytree(SOURCE, tmp_path / "project")
    took: dict[str, list[float]] = {
        name: [] for name in ("none", "local", "export", "shared", "changed", "exported")
    }
    for _ in range(ROUNDS):
        for client in (first, second):
            client.ask("prune", "--all")
        image = f"type=oci,dest={tmp_path / 'image.tar'}"
        options = [*base, "--output", image]
        export = ["--export-cache", f"{ref},mode=max,ignore-error=true"]
        took["none"].append(seconds(first, project, options))
        took["local"].append(seconds(first, project, options))
        took["export"].append(seconds(first, project, [*options, *export]))
        took["shared"].append(seconds(second, project, [*options, "--import-cache", ref]))
        change(project)
        took["changed"].append(seconds(first, project, options))
        change(project)
        took["exported"].append(seconds(first, project, [*options, *export]))
    print()
    for name, times in took.items():
        ratios = [one / none for one, none in zip(times, took["none"], strict=True)]
        print(
            f"{name:>8}: {' '.join(f'{one:6.2f}' for one in times)} s   "
            f"of none: {' '.join(f'{ratio:5.2f}' for ratio in ratios)}"
        )


def change(project: Path) -> None:
    """Makes one source file another one."""
    with (project / "shop" / "prices.py").open("a") as file:
        file.write(f"# {time.monotonic_ns()}\n")


def seconds(client: Client, project: Path, options: list[str]) -> float:
    """How long one build takes, which has to succeed."""
    command = client.buildctl("build", "--frontend", "dockerfile.v0", "--progress", "plain")
    command += ["--local", f"context={project}", "--local", f"dockerfile={project}", *options]
    began = time.monotonic()
    done = run(*command, within=300)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began
