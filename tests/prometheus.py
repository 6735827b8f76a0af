"""A real Prometheus and its promtool, from Debian's package, for tests of alerts and dashboards.

The package is unpacked as a file: nothing is installed, and no service is started. It is fetched
out here, where Debian's mirrors are found: ``tests.in_cluster`` runs this, and what runs in the
cluster finds it unpacked. To compile the Go module instead takes 220 seconds of CPU, even without
its ways to discover targets; this takes two.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from devcluster.errors import DevclusterError
from devcluster.layout import layout
from devcluster.store import content_key, ensure

PACKAGE: Final = "prometheus"


def programs() -> Path:
    """The folder with ``prometheus`` and ``promtool``, fetched now if need be."""
    return unpacked(PACKAGE) / "usr" / "bin"


def unpacked(package: str) -> Path:
    """The folder with the files of one of Debian's packages, fetched now if need be."""

    def make(folder: Path) -> None:
        fetch = ("apt-get", "-o", "APT::Sandbox::User=root", "download", package)
        if _run(*fetch, at=folder) is not None:
            _run("apt-get", "update", at=folder)  # the list of packages is old
            if (trouble := _run(*fetch, at=folder)) is not None:
                raise DevclusterError(f"{package} cannot be fetched: {trouble[-500:]}")
        (file,) = folder.glob("*.deb")
        if (trouble := _run("dpkg-deb", "--extract", file.name, ".", at=folder)) is not None:
            raise DevclusterError(f"{file.name} cannot be unpacked: {trouble[-500:]}")
        file.unlink()

    release = platform.freedesktop_os_release().get("VERSION_ID", "")
    key = content_key(package, release, platform.machine())
    cache = layout("dev", os.environ, Path.home()).cache
    return ensure(cache, f"debian/{package}", key, make, lambda _: None)


def _run(*command: str, at: Path) -> str | None:
    """What a command complained of; None where it succeeded."""
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr or done.stdout


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs promtool; the exit code is the caller's to judge."""
    command = [str(programs() / "promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs, by its HTTP API."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now; AssertionError where it is no expression."""
        form = urllib.parse.urlencode({"query": expression}).encode()
        url = f"http://127.0.0.1:{self.port}/api/v1/query"
        try:
            with urllib.request.urlopen(url, data=form, timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return True
        except OSError:
            return False


@contextmanager
def a_prometheus(
    folder: Path, *, port: int, scrapes: Mapping[str, int], rules: Path
) -> Iterator[Prometheus]:
    """One that reads ``rules`` and asks these ports of this machine, by job, each second."""
    jobs = [
        {
            "job_name": job,
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
        }
        for job, target in scrapes.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(programs() / "prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
        assert process.poll() is None, (folder / "prometheus.log").read_text()[-4000:]
    finally:
        process.kill()
        process.wait(timeout=30)


if __name__ == "__main__":
    print(programs())
