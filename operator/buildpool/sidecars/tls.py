"""TLS contexts out of a mounted Secret: both ends show a certificate of the pool."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

FILES: Final = ("ca.pem", "cert.pem", "key.pem")


def server_context(folder: Path) -> ssl.SSLContext:
    """For a server with the certificate of a folder, open to clients of its authority only.

    OSError, ssl.SSLError among them, if the files cannot be used.
    """
    return context_of(present(folder), ssl.PROTOCOL_TLS_SERVER)


def context_of(folder: Path, protocol: ssl._SSLMethod) -> ssl.SSLContext:
    """For one end of a connection; OSError if the files cannot be used."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def present(folder: Path) -> Path:
    """Where the kubelet keeps the files of a volume, so that all are of the same version of it."""
    return (folder / "cert.pem").resolve(strict=True).parent
