"""A storage that is looked after."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildpool.sidecars.keeper import files
from buildpool.sidecars.keeper.inventory import Identity
from unit.sidecars.kept import Kept


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept(tmp_path)

    def digest_file(path: Path) -> tuple[Identity, str] | None:
        kept.read.append(path.parent.name)
        return files.digest_file(path)

    monkeypatch.setattr("buildpool.sidecars.keeper.storage.digest_file", digest_file)
    return kept
