"""The Debian packages this machine needs, and their installation.

Installs only what ``apt.txt`` names, and only when something of it is missing.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from devcluster.errors import DevclusterError

PACKAGES: Final = Path(__file__).parent / "apt.txt"


def parse_packages(text: str) -> tuple[str, ...]:
    """Package names of a list with comments."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def missing_packages() -> tuple[str, ...]:
    """Which of the needed packages are not installed."""
    needed = parse_packages(PACKAGES.read_text())
    try:
        listing = subprocess.run(
            ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", *needed),
            capture_output=True,
            text=True,
            check=False,  # it fails when one package is unknown, and still lists the others
        ).stdout
    except FileNotFoundError:
        raise DevclusterError(
            "this machine has no dpkg", remedy="Use Debian 12 or newer, or a derivative of it."
        ) from None
    installed = {line.split()[1] for line in listing.splitlines() if line.startswith("installed ")}
    return tuple(package for package in needed if package not in installed)


def install_command(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The command that installs them."""
    return ("apt-get", "install", "--yes", "--no-install-recommends", *packages)


def install_packages(packages: tuple[str, ...], log: Path) -> None:
    """Install them, with the output in a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for command in (("apt-get", "update"), install_command(packages)):
            done = subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode:
                raise DevclusterError(f"`{' '.join(command)}` failed", log=log)


def require_root() -> None:
    """Namespaces with their own mounts and network need root."""
    if os.geteuid() != 0:
        raise DevclusterError(
            "the development cluster needs root: it makes namespaces, mounts and a bridge",
            remedy="Run it as root, for instance with `sudo -E`.",
        )
