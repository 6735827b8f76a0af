"""Root file systems made of Debian packages, as one layer each.

The packages are unpacked, not installed: no maintainer script runs, so what those would make (the
shell's commands, the bundle of certificates) is made here.
"""

from __future__ import annotations

import fnmatch
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

from devcluster.errors import DevclusterError

SUITE: Final = "bookworm"
LEFT_OUT: Final = (
    "dev/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/lintian/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "usr/share/bug/*",
    "usr/share/i18n/*",
    "usr/share/bash-completion/*",
    "usr/lib/*/gconv/*",
    "usr/lib/*/perl*",
    "usr/share/perl*",
    "usr/bin/perl*",
    "usr/lib/*/libperl.so*",
    "var/cache/*",
    "var/lib/apt/*",
    "var/lib/dpkg/info/*",
    "usr/lib/python3*/EXTERNALLY-MANAGED",
    "usr/lib/*/libdb-*",
    "usr/sbin/add*",  # in Perl; those of busybox do
    "usr/sbin/del*",
    "usr/lib/git-core/git-daemon",
    "usr/lib/git-core/git-http-backend",
    "usr/lib/git-core/git-http-fetch",
    "usr/lib/git-core/git-http-push",
    "usr/lib/git-core/git-imap-send",
    "usr/lib/git-core/git-sh-i18n--envsubst",
    "usr/lib/git-core/git-shell",
    "usr/lib/git-core/scalar",
    "usr/bin/git-shell",
    "usr/bin/scalar",
)
"""Never needed by a container of ours. Perl comes with git for commands nobody calls."""
_AUTHORITIES: Final = "usr/share/ca-certificates/*.crt"
_BUSYBOX: Final = "usr/bin/busybox"
_BUNDLE: Final = "etc/ssl/certs/ca-certificates.crt"


def is_left_out(path: str) -> bool:
    """Whether a file of a package stays out of the layer."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in LEFT_OUT)


def write_debian_layer(packages: tuple[str, ...], file: Path, log: Path) -> None:
    """A layer with these packages and what they depend on. Needs busybox-static among them."""
    unpacked = file.with_suffix(".unpacked.tar")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = (
        "mmdebstrap",
        "--variant=extract",
        f"--include={','.join(packages)}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--format=tar",
        SUITE,
        str(unpacked),
    )
    with log.open("w") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
            check=False,
        )
    if done.returncode:
        raise DevclusterError("mmdebstrap cannot unpack the Debian packages of an image", log=log)
    _copy_wanted(unpacked, file)
    unpacked.unlink()


def _copy_wanted(unpacked: Path, file: Path) -> None:
    authorities: dict[str, bytes] = {}
    present: set[str] = set()
    with tarfile.open(unpacked) as source, tarfile.open(file, "w") as layer:
        for member in source:
            path = str(PurePosixPath(member.name))
            if is_left_out(path) or path == _BUNDLE:
                continue
            member.mtime = 0
            data = source.extractfile(member) if member.isreg() else None
            if data and fnmatch.fnmatch(path, _AUTHORITIES):
                authorities[path] = data.read()
                data.seek(0)
            layer.addfile(member, data)
            present.add(path)
        bundle = b"".join(authorities[path] for path in sorted(authorities))
        info = tarfile.TarInfo(_BUNDLE)
        info.size = len(bundle)
        layer.addfile(info, io.BytesIO(bundle))
        for applet in sorted(set(_applets(content(source, _BUSYBOX))) - present):
            info = tarfile.TarInfo(applet)
            info.type, info.linkname = tarfile.SYMTYPE, f"/{_BUSYBOX}"
            layer.addfile(info)


def _applets(busybox: bytes) -> tuple[str, ...]:
    """Paths of all commands that a busybox can be, in a file system with merged /usr."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "busybox"
        program.write_bytes(busybox)
        program.chmod(0o755)
        listing = subprocess.run(
            (program, "--list-full"), capture_output=True, text=True, check=True
        )
    folders = ("bin/", "sbin/")
    paths = listing.stdout.split()
    return tuple(
        f"usr/{path}" if path.startswith(folders) else path for path in paths if "/" in path
    )


def content(layer: tarfile.TarFile, path: str) -> bytes:
    """One file of a layer."""
    for name in (path, f"./{path}"):
        try:
            file = layer.extractfile(name)
        except KeyError:
            continue
        if file:
            return file.read()
    raise DevclusterError(f"no Debian package of the layer brings {path}")
