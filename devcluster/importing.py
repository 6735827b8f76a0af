"""Brings images into containerd: ``python -m devcluster.importing CTR LAYOUT…`` inside the box.

Skips images that are there already, and sends layers that several images share only once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from devcluster import oci
from devcluster.layout import CONTAINERD_SOCKET


def import_images(ctr: Path, images: tuple[Path, ...], socket: Path = CONTAINERD_SOCKET) -> None:
    """Import all of them that containerd does not have with this very content."""
    command = (str(ctr), f"--address={socket}", "--namespace=k8s.io", "images")
    listing = subprocess.run((*command, "list"), stdout=subprocess.PIPE, text=True, check=True)
    present = {tuple(line.split()[0:3:2]) for line in listing.stdout.splitlines()[1:]}
    wanted = [
        image
        for image in images
        if any((name, digest) not in present for name, digest in oci.names(image))
    ]
    if not wanted:
        return
    process = subprocess.Popen((*command, "import", "-"), stdin=subprocess.PIPE)
    assert process.stdin is not None  # noqa: S101  (PIPE was asked for)
    with process.stdin:
        oci.write_archive(tuple(wanted), process.stdin)
    if process.wait():
        raise SystemExit(f"ctr images import failed with {process.returncode}")


if __name__ == "__main__":
    import_images(Path(sys.argv[1]), tuple(map(Path, sys.argv[2:])))
