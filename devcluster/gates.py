"""Looks at the gate of a component: does it serve yet? Only from inside the box."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from devcluster.components import Gate

PATIENCE_SECONDS: Final = 2.0
"""Seconds for one look."""


def is_open(gate: Gate, pki: Path) -> bool:
    """Whether the component behind the gate serves."""
    where = urlsplit(gate.address)
    try:
        if where.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE_SECONDS)
                client.connect(where.path)
            return True
        connection: http.client.HTTPConnection
        if where.scheme == "https":
            # Only reached over the box's own loopback; some components sign for themselves.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if gate.identity:
                context.load_cert_chain(pki / f"{gate.identity}.crt", pki / f"{gate.identity}.key")
            connection = http.client.HTTPSConnection(
                where.netloc, timeout=PATIENCE_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(where.netloc, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", where.path)
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False
