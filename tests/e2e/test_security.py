"""Who gets in, and what those who are in could do."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import pytest

from cluster import OPERATOR_NAMESPACE, Api, a_pool
from e2e.clients import Client, client_of, files_of, run
from e2e.pools import settle


@pytest.fixture(scope="module")
def pools(api: Api, shared_namespace: str) -> str:
    """The namespace of two Ready pools, a and b."""
    names = ("a", "b")
    api.apply(*(a_pool(name, shared_namespace) for name in names))
    for name in names:
        settle(api, name, shared_namespace)
    return shared_namespace


@pytest.fixture
def client(api: Api, pools: str, tmp_path: Path) -> Client:
    """The client of pool a."""
    return client_of(api, "a", pools, tmp_path)


def refusal(address: str, *, trusts: Path, shows: Path | None) -> str:
    """The alert with which a builder turns down a client that shows this certificate.

    What buildctl says of it depends on whether it writes or reads first; that it fails does not.
    """
    buildctl = ["buildctl", "--addr", address, "--tlscacert", f"{trusts}/ca.pem"]
    context = ssl.create_default_context(cafile=trusts / "ca.pem")
    if shows is not None:
        buildctl += ["--tlscert", f"{shows}/cert.pem", "--tlskey", f"{shows}/key.pem"]
        context.load_cert_chain(shows / "cert.pem", shows / "key.pem")
    assert run(*buildctl, "debug", "info").returncode != 0
    host, _, port = address.removeprefix("tcp://").partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
        pytest.raises(ssl.SSLError) as refused,
    ):
        secured.recv(1)  # in TLS 1.3, a client is done with the handshake before it is judged
    return refused.value.reason


def test_the_pools_own_client_is_taken(client: Client) -> None:
    assert client.can_connect()


def test_a_client_without_certificate_is_refused(client: Client) -> None:
    alert = refusal(client.address, trusts=client.certificates, shows=None)
    assert alert == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_client_without_tls_is_refused(client: Client) -> None:
    assert run("buildctl", "--addr", client.address, "debug", "info").returncode != 0


def test_the_client_of_another_pool_is_refused(
    api: Api, client: Client, pools: str, tmp_path: Path
) -> None:
    """Though it trusts this pool, and has a good certificate, from its own authority."""
    other = client_of(api, "b", pools, tmp_path)
    alert = refusal(client.address, trusts=client.certificates, shows=other.certificates)
    assert alert == "TLSV1_ALERT_UNKNOWN_CA"


def test_a_client_does_not_take_another_pools_builders_for_its_own(
    api: Api, client: Client, pools: str, tmp_path: Path
) -> None:
    other = client_of(api, "b", pools, tmp_path)
    done = run(*Client(other.address, client.certificates).buildctl("debug", "info"))
    assert done.returncode != 0
    assert "certificate signed by unknown authority" in done.stderr


def test_the_certificate_of_a_builder_is_none_of_a_client(
    api: Api, client: Client, pools: str, tmp_path: Path
) -> None:
    """It is from the right authority, for another use."""
    builder = files_of(api, "a-builder", pools, tmp_path)
    alert = refusal(client.address, trusts=client.certificates, shows=builder)
    assert alert == "SSLV3_ALERT_BAD_CERTIFICATE"


def test_a_builder_is_an_ordinary_user_without_a_token(api: Api, pools: str) -> None:
    inside = ("exec", "-n", pools, "deploy/a-builder-0", "--", "sh", "-c")
    assert api.must(*inside, "id -u; id -g").split() == ["1000", "1000"]
    daemon = "$(grep -l '^Name:.buildkitd$' /proc/[0-9]*/status)"
    uids = api.must(*inside, f"grep -h ^Uid: {daemon}").split()[1:]
    assert uids == ["1000"] * 4
    assert api.must(*inside, "ls /var/run/secrets 2>/dev/null | wc -l").strip() == "0"


def test_the_operator_can_neither_be_root_nor_change_its_files(api: Api) -> None:
    script = (
        "import os, pathlib\n"
        "print(os.getuid())\n"
        "print(next(l for l in open('/proc/1/status') if l.startswith('CapEff')).split()[1])\n"
        "try: pathlib.Path('/opt/new').write_text('x')\n"
        "except OSError as error: print(error.strerror)\n"
    )
    inside = ("exec", "-n", OPERATOR_NAMESPACE, "deploy/buildpool", "--", "python", "-c")
    uid, capabilities, refusal = api.must(*inside, script).splitlines()
    assert int(uid) != 0
    assert int(capabilities, 16) == 0
    assert refusal == "Read-only file system"


def test_who_reads_secrets_beside_a_pool_does_not_get_its_authority(api: Api, pools: str) -> None:
    """With its key one could make clients at will."""
    authority = api.get("secret", f"authority.{pools}.a", OPERATOR_NAMESPACE)
    assert authority is not None
    key = authority["data"]["tls.key"]
    assert all(key not in secret["data"].values() for secret in api.list("secrets", pools))


@pytest.mark.parametrize(
    ("component", "container", "ports"),
    [("gateway", "router", {1234, 8082, 8083}), ("operator", "operator", {8080, 8081})],
)
def test_who_may_forward_ports_reaches_nothing_but_what_is_for_clients(
    api: Api, component: str, container: str, ports: set[int]
) -> None:
    """Nothing on loopback, either: keys of all pools were there."""
    selector = f"app.kubernetes.io/component={component}"
    found = json.loads(
        api.must("get", "pods", "-n", OPERATOR_NAMESPACE, "-l", selector, "-o", "json")
    )["items"]
    assert found
    for pod in found:
        name = pod["metadata"]["name"]
        tables = ("cat", "/proc/net/tcp", "/proc/net/tcp6")
        said = api.must("exec", name, "-n", OPERATOR_NAMESPACE, "-c", container, "--", *tables)
        rows = [line.split() for line in said.splitlines()]
        listening = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3:4] == ["0A"]}
        assert listening == ports, name
