"""README's way from an installation to an image in a registry, as it is written there.

It is gone by somebody outside of the cluster's network, who reaches nothing but the API server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import OPERATOR_NAMESPACE, PROJECT, Api
from e2e import pools
from e2e.clients import BASE, client_of, context
from e2e.outside import Outside, a_user_outside, write_kubeconfig
from e2e.registries import Registry, serve

NAMESPACE = "builds"
"""That of README's pool."""
EXAMPLE = "registry.example.com"
if "DEVCLUSTER_NAME" not in os.environ:
    pytest.skip("this needs the node of a devcluster", allow_module_level=True)


def commands() -> list[str]:
    """The block that begins with the installation and ends with the push, as shell commands."""
    page = (PROJECT / "README.md").read_text()
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = (b for b in blocks if "helm upgrade --install" in b and "--push" in b)
    return re.findall(r"^\$ (.*(?:\n +.*)*)", block, re.MULTILINE)


@pytest.fixture
def registry(api: Api, namespace: str, tmp_path: Path) -> Registry:
    """A registry that has the base image, too, for the node reaches no other."""
    made = Registry("hub", namespace)
    serve(api, made, None)
    pools.deploy(api, "seed", namespace, registries=[{"host": made.host, "http": True}])
    image = f"type=image,name={made.host}/library/{BASE},push=true"
    source = context(tmp_path / "seed", f"FROM {BASE}\n")
    client_of(api, "seed", namespace, tmp_path / "certificates").build(source, "--output", image)
    return made


@pytest.fixture
def checkout(registry: Registry, tmp_path: Path) -> Path:
    """What the commands read, with the registries of this cluster in README's pool."""
    shutil.copytree(PROJECT / "manifests", tmp_path / "manifests")
    pool = tmp_path / "manifests" / "samples" / "pool.yaml"
    own = [{"host": registry.host, "http": True}, {"host": "docker.io", "mirrors": [registry.host]}]
    pool.write_text(f"{pool.read_text().rstrip()}\n  registries: {json.dumps(own)}\n")
    return tmp_path


@pytest.fixture
def outside(api: Api, checkout: Path) -> Iterator[Outside]:
    """An administrator of the cluster on a machine outside, in a checkout."""
    write_kubeconfig(api, checkout / "kubeconfig")
    with a_user_outside(checkout) as user:
        yield user
    api.must("delete", "bkp", "ci", "-n", NAMESPACE, "--ignore-not-found")
    api.must("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def test_four_commands_lead_to_an_image_in_a_registry(
    api: Api, registry: Registry, outside: Outside
) -> None:
    operator = api.get("deployment", "buildpool", OPERATOR_NAMESPACE)
    assert operator is not None
    image = operator["spec"]["template"]["spec"]["containers"][0]["image"]
    repository, _, tag = image.rpartition(":")
    found = commands()
    assert len(found) == 4
    for command in found:
        line = command.replace(f"{EXAMPLE}/buildpool", repository).replace(
            "tag=0.1.0", f"tag={tag}"
        )
        done = outside.run("sh", "-ec", line.replace(EXAMPLE, registry.host))
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        print(line, done.stdout, done.stderr, sep="\n")
    url = f"http://{registry.host}/v2/hello/manifests/1"
    accept = {"Accept": "application/vnd.oci.image.index.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=10) as answer:
        assert json.load(answer)["manifests"]
