"""A user asks for other certificates, or another authority, by an annotation: it is done once."""

from __future__ import annotations

import base64
import json
from typing import Any

from cluster import OPERATOR_NAMESPACE, Api, OperatorProcess, eventually
from integration.test_a_pool_converges import created
from integration.test_builders_come_and_go import come_to_be, told

LEAVES = ("ci-builder", "ci-client-a", "ci-client-b")
CLIENTS = [{"name": "a"}, {"name": "b"}]


def ask_for(api: Api, namespace: str, what: str) -> None:
    api.must("annotate", "bkp", "ci", "-n", namespace, f"buildpool.dev/rotate={what}")


def is_asked(api: Api, namespace: str) -> bool:
    pool = api.get("bkp", "ci", namespace)
    assert pool is not None
    return "buildpool.dev/rotate" in pool["metadata"].get("annotations", {})


def data(api: Api, name: str, namespace: str) -> dict[str, str]:
    """What is in a Secret."""
    secret = api.get("secret", name, namespace)
    assert secret is not None
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def authority(api: Api, namespace: str) -> dict[str, str]:
    return data(api, f"authority.{namespace}.ci", OPERATOR_NAMESPACE)


def certificates(api: Api, namespace: str) -> dict[str, str]:
    """The certificates of all parties but the authority, by Secret."""
    return {name: data(api, name, namespace)["tls.crt"] for name in LEAVES}


def is_carried_out(api: Api, namespace: str) -> None:
    eventually(lambda: not is_asked(api, namespace), within=10, what="the request is gone")


def test_certificates_are_replaced_once(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, access={"clients": CLIENTS})
    before, signer = certificates(installed, namespace), authority(installed, namespace)
    ask_for(installed, namespace, "certificates")
    is_carried_out(installed, namespace)
    after = certificates(installed, namespace)
    assert not set(after.values()) & set(before.values())
    assert authority(installed, namespace) == signer
    come_to_be(installed, namespace, 1)  # the daemon reads its certificate once
    assert certificates(installed, namespace) == after
    (message,) = eventually(
        lambda: told(installed, namespace, "RenewedCertificate"), within=10, what="an Event"
    )
    assert all(f"Secret {namespace}/{name}." in message for name in LEAVES)
    ask_for(installed, namespace, "certificates")
    is_carried_out(installed, namespace)
    assert not set(certificates(installed, namespace).values()) & set(after.values())


def test_another_authority_takes_over_in_phases(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    # Long enough for a look, however busy the machine is.
    created(installed, namespace, access={"clients": CLIENTS, "authorityOverlap": "4s"})
    old = authority(installed, namespace)["tls.crt"]
    ask_for(installed, namespace, "authority")
    is_carried_out(installed, namespace)
    seen: list[tuple[str | None, int]] = []

    def is_over() -> bool:
        both = installed.must("get", "bkp/ci", "secret/ci-client-a", "-n", namespace, "-o", "json")
        pool, secret = json.loads(both)["items"]
        phase = pool["status"]["authority"].get("phase")
        trust = base64.b64decode(secret["data"]["ca.pem"])
        trusted = trust.count(b"BEGIN CERTIFICATE")
        if (phase, trusted) not in seen:
            seen.append((phase, trusted))
        return phase is None and trusted == 1

    eventually(is_over, within=60, what="the new authority stands alone")
    phases = [phase for phase, _ in seen if phase]
    assert list(dict.fromkeys(phases)) == ["Introducing", "Replacing"]
    assert ("Introducing", 2) in seen
    assert ("Replacing", 2) in seen
    assert ("Introducing", 1) not in seen
    new = authority(installed, namespace)
    assert set(new) == {"tls.crt", "tls.key"}
    assert new["tls.crt"] != old
    for name in LEAVES:
        assert data(installed, name, namespace)["ca.pem"] == new["tls.crt"]
    events = told(installed, namespace, "RotatingAuthority")
    assert sorted(message.partition(":")[0] for message in events) == ["Introducing", "Replacing"]


def test_without_any_overlap_builders_still_read_everything_in_between(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, access={"authorityOverlap": "0s"})
    old = authority(installed, namespace)["tls.crt"]
    ask_for(installed, namespace, "authority")
    is_carried_out(installed, namespace)

    def is_over() -> bool:
        now = authority(installed, namespace)
        return now["tls.crt"] != old and "previous.crt" not in now

    eventually(is_over, within=60, what="the new authority stands alone")
    # One builder for each phase: both ends of every handshake were of neighbouring ones.
    eventually(
        lambda: len(told(installed, namespace, "RemovedBuilder")) >= 2,
        within=30,
        what="at least two builders were replaced",
    )


def test_a_request_for_something_that_there_is_not_is_told_and_removed(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, access={"clients": CLIENTS})
    before: dict[str, Any] = certificates(installed, namespace)
    ask_for(installed, namespace, "nonsense")
    is_carried_out(installed, namespace)
    messages = eventually(
        lambda: told(installed, namespace, "UnknownRotation"), within=5, what="an Event"
    )
    assert len(messages) == 1
    assert "buildpool.dev/rotate=nonsense" in messages[0]
    assert "authority or certificates" in messages[0]
    assert certificates(installed, namespace) == before
