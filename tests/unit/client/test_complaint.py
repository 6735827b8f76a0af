from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from buildpool.client.folder import Folder
from buildpool.client.holding import HANGS_UP, complaint
from buildpool.client.values import Certificate
from buildpool.core.pki import CertificateRequest, KeyPair, Use, issue, issue_authority
from gateway.ports import free_port
from unit.client.connections import a_node
from unit.core.pki.certificates import DAY

NOW = datetime.now(UTC)
"""OpenSSL verifies against the real clock."""
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""The first words of a server of HTTP/2."""


@pytest.fixture
def authority() -> KeyPair:
    return issue_authority("builds/ci", now=NOW, lifetime=DAY)


@pytest.fixture
def folder(authority: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A connection with the certificate of a client."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = issue(authority, CertificateRequest(Use.CLIENT, "anna", DAY), now=NOW)
    certificate = Certificate(made.trust, made.pair.certificate, made.pair.key)
    found = Folder("ci")
    found.keep_certificate(a_node(), certificate)
    return found


@contextmanager
def a_pool(
    authority: KeyPair, folder: Path, *, clients: KeyPair | None = None, answer: bytes = SETTINGS
) -> Iterator[int]:
    """What answers for a pool; its port. ``clients``: who vouches for them, if that is another."""
    names = ("ci.builds.svc",)
    made = issue(authority, CertificateRequest(Use.SERVER, "ci", DAY, dns_names=names), now=NOW)
    file, trust = folder / "server.pem", folder / "trust.pem"
    file.write_bytes(made.pair.certificate + made.pair.key)
    trust.write_bytes(made.trust if clients is None else clients.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trust))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    with suppress(OSError), context.wrap_socket(plain, server_side=True) as each:
                        each.recv(24)
                        each.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_nothing_is_wrong_with_a_pool_that_answers(
    authority: KeyPair, folder: Folder, tmp_path: Path
) -> None:
    with a_pool(authority, tmp_path) as port:
        assert complaint(a_node(port=port), folder) == ""
        other = a_node(port=port, server_name="other.builds.svc")
        assert "not valid for 'other.builds.svc'" in complaint(other, folder)


def test_another_authority_is_one(folder: Folder, tmp_path: Path) -> None:
    with a_pool(issue_authority("builds/ci", now=NOW, lifetime=DAY), tmp_path) as port:
        assert "certificate verify failed" in complaint(a_node(port=port), folder)


def test_a_certificate_that_the_pool_does_not_take_is_one(
    authority: KeyPair, folder: Folder, tmp_path: Path
) -> None:
    others = issue_authority("builds/other", now=NOW, lifetime=DAY)
    with a_pool(authority, tmp_path, clients=others) as port:
        said = complaint(a_node(port=port), folder)
        # By the time that it is read, the connection may be reset, and the alert be lost.
        assert said == HANGS_UP or "unknown ca" in said.lower()


def test_who_hangs_up_is_one(authority: KeyPair, folder: Folder, tmp_path: Path) -> None:
    with a_pool(authority, tmp_path, answer=b"") as port:
        assert complaint(a_node(port=port), folder) == HANGS_UP


def test_nobody_there_is_one(folder: Folder) -> None:
    assert "refused" in complaint(a_node(port=free_port()), folder)


def test_what_newer_pythons_demand_of_certificates_is_met(
    authority: KeyPair, folder: Folder, tmp_path: Path
) -> None:
    """From 3.13 on, they verify as strictly as the standard says."""
    files = folder.path / "builds.ci.anna"
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    with (
        a_pool(authority, tmp_path) as port,
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="ci.builds.svc") as connected,
    ):
        assert connected.getpeercert()
