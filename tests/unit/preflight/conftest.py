"""The system knows one authority in these tests, whatever machine they run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.preflight.servers import an_authority


@pytest.fixture(autouse=True)
def system_authorities(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    folder: Path = tmp_path_factory.mktemp("system")
    file = folder / "known.pem"
    file.write_bytes(an_authority("System").certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder / "none"))
