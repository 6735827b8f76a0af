"""Real TLS handshakes in memory, by OpenSSL: what buildkitd and its clients will do."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle, pairwise

import pytest

from buildpool.core.pki import Authority, Bundle, KeyPair, Use, issue, issue_authority
from unit.core.pki.certificates import CLIENT, DAY, SERVER

NOW = datetime.now(UTC)  # OpenSSL verifies against the real clock

A = issue_authority("builds/a", now=NOW, lifetime=DAY)
B = issue_authority("builds/b", now=NOW, lifetime=DAY)


def a_server(authority: Authority | KeyPair = A, **overrides: object) -> Bundle:
    return issue(authority, replace(SERVER, **overrides), now=NOW)


def a_client(authority: Authority | KeyPair = A, **overrides: object) -> Bundle:
    return issue(authority, replace(CLIENT, **overrides), now=NOW)


@pytest.fixture
def context(tmp_path):
    numbers = iter(range(10))

    def make(bundle: Bundle, protocol: int) -> ssl.SSLContext:
        file = tmp_path / f"{next(numbers)}.pem"
        file.write_bytes(bundle.pair.certificate + bundle.pair.key)
        made = ssl.SSLContext(protocol)
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=bundle.trust.decode())
        made.load_cert_chain(file)
        return made

    return make


@pytest.fixture
def shake_hands(context):
    def shake(server: Bundle, client: Bundle, name: str = "ci.builds.svc") -> str:
        """Run both ends to completion and return what the server learnt of the client."""
        upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
        serving = context(server, ssl.PROTOCOL_TLS_SERVER).wrap_bio(
            upstream, downstream, server_side=True
        )
        calling = context(client, ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
            downstream, upstream, server_hostname=name
        )
        unfinished = [calling, serving]
        for end in cycle((calling, serving)):
            if not unfinished:
                break
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if end in unfinished:
                unfinished.remove(end)
        names = serving.getpeercert()["subjectAltName"]
        return dict(names)["URI"]

    return shake


def test_a_client_and_a_server_of_one_authority_meet(shake_hands):
    assert shake_hands(a_server(), a_client()) == "buildpool://builds/ci/client/laptop"


REFUSED = {
    "a client of another authority": (a_server(), replace(a_client(B), trust=A.certificate)),
    "a server of another authority": (replace(a_server(B), trust=A.certificate), a_client()),
    "a server's certificate as a client's": (a_server(), a_server()),
    "a client's certificate as a server's": (a_client(dns_names=SERVER.dns_names), a_client()),
    "a server under another name": (a_server(dns_names=("other.svc",)), a_client()),
}


@pytest.mark.parametrize(("server", "client"), REFUSED.values(), ids=REFUSED.keys())
def test_who_is_refused(shake_hands, server, client):
    with pytest.raises(ssl.SSLError):
        shake_hands(server, client)


def test_the_use_alone_decides_between_a_server_and_a_client(shake_hands):
    both_names = {"dns_names": SERVER.dns_names, "uris": CLIENT.uris}
    shake_hands(a_server(**both_names), a_client(**both_names))
    with pytest.raises(ssl.SSLError):
        shake_hands(a_server(**both_names), a_client(**both_names, use=Use.SERVER))


NAMESAKE = issue_authority("builds/a", now=NOW, lifetime=DAY)
PHASES = (
    Authority(A),
    Authority(A, upcoming=NAMESAKE),
    Authority(NAMESAKE, previous=A.certificate),
    Authority(NAMESAKE),
)
"""An authority is replaced by one of the same name, as those of a pool are."""


@pytest.mark.parametrize(("one", "other"), list(pairwise(PHASES)))
def test_neighbouring_phases_of_a_rotation_meet(shake_hands, one, other):
    for server, client in ((one, one), (one, other), (other, one)):
        assert shake_hands(a_server(server), a_client(client))


@pytest.mark.parametrize(
    ("one", "other"), [(0, 2), (1, 3), (0, 3)], ids=["two apart", "two apart, later", "the ends"]
)
def test_phases_that_are_farther_apart_do_not_meet(shake_hands, one, other):
    for server, client in ((one, other), (other, one)):
        with pytest.raises(ssl.SSLError):
            shake_hands(a_server(PHASES[server]), a_client(PHASES[client]))
