"""What becomes of the plain manifests in overlays of users. kubectl renders, installs nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import PROJECT
from integration.charts import Object, loaded, the

PLAIN = PROJECT / "manifests" / "kustomize"
GUIDE = PROJECT / "docs" / "how-to" / "install.md"
IMAGE = "registry.example.com/buildpool:0.1.0"
Overlay = Callable[[dict[str, Any]], Path]


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """Makes a folder with a kustomization, upon the plain manifests unless it names others."""

    def make(kustomization: dict[str, Any]) -> Path:
        folder = tmp_path / f"overlay-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        below = kustomization.get("resources", [PLAIN])
        resources = [os.path.relpath(each, folder.resolve()) for each in below]
        text = yaml.safe_dump({**kustomization, "resources": resources})
        (folder / "kustomization.yaml").write_text(text)
        return folder

    return make


def built(folder: Path) -> list[Object]:
    """The objects of a kustomization."""
    command = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return loaded(done.stdout)


def operator_of(objects: list[Object], name: str = "buildpool") -> tuple[str, dict[str, str]]:
    """The image of the operator's container, and what it is told by variables."""
    pod = the("Deployment", name, objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return container["image"], {e["name"]: e["value"] for e in container["env"] if "value" in e}


IMAGES = {
    "another tag": ({"newTag": "0.2.0"}, "buildpool:0.2.0"),
    "another registry": (
        {"newName": "registry.example.com/buildpool"},
        "registry.example.com/buildpool:0.1.0",
    ),
    "a digest": ({"digest": "sha256:" + "a" * 64}, "buildpool@sha256:" + "a" * 64),
}


@pytest.mark.parametrize(("change", "expected"), IMAGES.values(), ids=IMAGES)
def test_the_operator_knows_the_image_that_it_is(
    overlay: Overlay, change: dict[str, str], expected: str
) -> None:
    objects = built(overlay({"images": [{"name": "buildpool", **change}]}))
    image, told = operator_of(objects)
    assert image.endswith(expected.removeprefix("buildpool"))
    assert told["BUILDPOOL_IMAGE"] == image
    # And so does the gateway, whose router is of the same image.
    gateway = the("Deployment", "buildpool-gateway", objects)["spec"]["template"]["spec"]
    assert {each["image"] for each in gateway["containers"]} == {image}


AFFIXES = {
    "a prefix": ({"namePrefix": "x-"}, "x-buildpool"),
    "a suffix": ({"nameSuffix": "-y"}, "buildpool-y"),
}


@pytest.mark.parametrize(("change", "name"), AFFIXES.values(), ids=AFFIXES)
def test_the_operator_knows_its_gateways_service(
    overlay: Overlay, change: dict[str, str], name: str
) -> None:
    objects = built(overlay({**change, "namespace": "other"}))
    _, told = operator_of(objects, name)
    service = the("Service", told["BUILDPOOL_GATEWAY_SERVICE"], objects)
    assert service["metadata"]["namespace"] == "other"
    assert service["spec"]["ports"][0]["name"] == "buildkit"


def test_an_overlay_upon_an_overlay_is_followed_too(overlay: Overlay) -> None:
    one = overlay({"namePrefix": "x-", "images": [{"name": "buildpool", "newName": "one"}]})
    two = overlay(
        {
            "resources": [one],
            "namePrefix": "y-",
            "images": [{"name": "one", "newName": "two", "newTag": "3"}],
        }
    )
    image, told = operator_of(built(two), "y-x-buildpool")
    assert told["BUILDPOOL_IMAGE"] == image == "two:3"
    assert told["BUILDPOOL_GATEWAY_SERVICE"] == "y-x-buildpool-gateway"


def test_the_overlay_of_the_guide_does_what_it_says(overlay: Overlay) -> None:
    blocks = re.findall(r"^```yaml\n(apiVersion: kustomize.*?)^```", GUIDE.read_text(), re.M | re.S)
    (written,) = (yaml.safe_load(block) for block in blocks)
    assert written["resources"] == ["../buildpool/manifests/kustomize"]
    image, told = operator_of(built(overlay({**written, "resources": [PLAIN]})))
    assert told["BUILDPOOL_IMAGE"] == image == IMAGE
