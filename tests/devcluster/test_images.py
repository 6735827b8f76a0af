"""Layers, images and archives: the formats, without unpacking any Debian package."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from devcluster import building, oci
from devcluster.errors import DevclusterError
from devcluster.images import AT_START, CAP_SETGID, CAP_SETUID, recipes
from devcluster.layout import PROJECT
from devcluster.oci import Entry, ImageConfig
from devcluster.rootfs import is_left_out


def an_image(folder: Path, reference: str, layers: tuple[Path, ...]) -> Path:
    folder.mkdir()
    oci.write_image(reference, ImageConfig(entrypoint=("/run",)), layers, folder)
    return folder


def a_layer(file: Path, *entries: Entry) -> Path:
    oci.write_layer(entries or (Entry("run", content=b"#!/bin/sh\n"),), file)
    return file


def test_the_same_content_gives_the_same_digest(tmp_path: Path) -> None:
    layers = [a_layer(tmp_path / name).read_bytes() for name in ("a.tar", "b.tar")]
    assert layers[0] == layers[1]


def test_a_layer_keeps_owner_mode_link_and_capability(tmp_path: Path) -> None:
    layer = a_layer(
        tmp_path / "layer.tar",
        Entry("home", owner=1000),
        Entry("bin/a", 0o750, content=b"x", capability=CAP_SETUID),
        Entry("bin/b", target="a"),
    )
    with tarfile.open(layer) as tar:
        home, program, link = tar.getmembers()
    assert (home.isdir(), home.uid, home.mtime) == (True, 1000, 0)
    assert (program.mode, program.size) == (0o750, 1)
    assert (link.issym(), link.linkname) == (True, "a")
    # As it lies in the archive: Python reads values back as text.
    assert b"SCHILY.xattr.security.capability=" + CAP_SETUID in layer.read_bytes()


def test_capabilities_are_those_of_setcap() -> None:
    assert CAP_SETUID.hex() == "0100000280000000" + "00" * 12
    assert CAP_SETGID.hex() == "0100000240000000" + "00" * 12


def test_a_shared_layer_is_in_an_archive_once_and_every_blob_is_what_it_says(
    tmp_path: Path,
) -> None:
    shared = a_layer(tmp_path / "shared.tar")
    own = a_layer(tmp_path / "own.tar", Entry("own", content=b"own"))
    images = (
        an_image(tmp_path / "a", "docker.io/a/a:1", (shared,)),
        an_image(tmp_path / "b", "docker.io/b/b:1", (shared, own)),
    )
    output = io.BytesIO()
    oci.write_archive(images, output)
    output.seek(0)
    with tarfile.open(fileobj=output) as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/")]
        for name in blobs:
            file = tar.extractfile(name)
            assert file
            assert hashlib.sha256(file.read()).hexdigest() == Path(name).name
        index = tar.extractfile("index.json")
        assert index
        heads = json.load(index)["manifests"]
    assert len(blobs) == len(set(blobs)) == 2 + 2 + 2
    assert [head["annotations"][oci.CONTAINERD_NAME] for head in heads] == [
        "docker.io/a/a:1",
        "docker.io/b/b:1",
    ]


def test_the_images_have_the_names_of_the_ones_they_stand_in_for() -> None:
    references = {recipe.name: recipe.reference for recipe in recipes()}
    assert references["buildkit-rootless"] == "docker.io/moby/buildkit:v0.34.2-rootless"
    assert references["registry"] == "docker.io/library/registry:3.1.2"
    assert references["dockerfile-frontend"] == "docker.io/docker/dockerfile:1"


def test_a_node_has_the_very_envoy_that_the_chart_asks_for() -> None:
    values = yaml.safe_load((PROJECT / "manifests/helm/buildpool/values.yaml").read_text())
    image = values["gateway"]["image"]
    asked = building.full_reference(f"{image['repository']}:{image['tag']}")
    assert asked in [recipe.reference for recipe in recipes() if recipe.name in AT_START]


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("usr/share/doc/git/copyright", True),
        ("usr/lib/x86_64-linux-gnu/perl-base/strict.pm", True),
        ("usr/lib/git-core/git-remote-https", False),
        ("usr/bin/git", False),
    ],
)
def test_documentation_and_perl_stay_out_of_images(path: str, left_out: bool) -> None:
    assert is_left_out(path) is left_out


@pytest.mark.parametrize(
    ("tag", "reference"),
    [
        ("buildpool", "docker.io/library/buildpool:latest"),
        ("buildpool:dev", "docker.io/library/buildpool:dev"),
        ("moby/buildkit:v1", "docker.io/moby/buildkit:v1"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("registry.example/a:1", "registry.example/a:1"),
    ],
)
def test_a_tag_becomes_the_name_that_kubernetes_looks_up(tag: str, reference: str) -> None:
    assert building.full_reference(tag) == reference


def test_named_contexts_are_folders_layouts_or_images_of_ours(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    image = an_image(tmp_path / "image", "docker.io/a/a:1", (a_layer(tmp_path / "layer.tar"),))
    digest = oci.manifests(image)[0]["digest"]
    plain, layout, ours = building.resolve(
        (f"wheels={wheels}", f"a:1=oci-layout://{image}", "python:3=image://python"),
        lambda name: {"python": image}[name],
    )
    assert plain.options() == (f"--local=wheels={wheels}", "--opt=context:wheels=local:wheels")
    assert layout.options() == (
        f"--oci-layout=a-1={image}",
        f"--opt=context:a:1=oci-layout://a-1@{digest}",
    )
    assert ours.digest == digest


@pytest.mark.parametrize("option", ["wheels", "=x", "wheels=", "wheels=/does/not/exist"])
def test_a_named_context_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(DevclusterError, match="named context"):
        building.resolve((option,), Path)
